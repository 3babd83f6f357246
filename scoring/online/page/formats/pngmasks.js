// Convert between the page's project and PNG masks: for each image one file with class numbers and one with object numbers. Pure.

import { fromColumns, endsOf, maskOf } from "../masks/runs.js";
import { rasterize } from "../masks/rle.js";
import { finished } from "../project/project.js";
import { checkStems, matchByName, stem } from "./names.js";
import { decodePng, encodePng } from "./png.js";

/**
 * Return a promise of the files of a project, a list of {name, data}: classes/NAME.png (8 bits, 0 is the background),
 * objects/NAME.png (16 bits, objects are counted from 1) and classes.txt (class 1 is the first line).
 *
 * Throws an Error if the numbers do not fit into the files, or if two images would have the same files.
 */
export async function toPngMasks(project) {
  if (project.classes.length > 255) throw new Error("PNG masks can hold 255 classes. Export as COCO instead.");
  checkStems(project.images, "the format of PNG masks");
  const numbers = new Map(project.classes.map(({ id }, i) => [id, i + 1]));
  const files = [{ name: "classes.txt", data: project.classes.map(({ name }) => `${name}\n`).join("") }];
  for (const { id, name, width, height } of project.images) {
    if (!(width > 0)) continue;
    const [classes, objects] = [new Uint8Array(width * height), new Uint16Array(width * height)];
    finished(project, id).forEach(({ classId, mask }, i) => {
      rasterize(endsOf(mask), mask.size, classes, width, height, numbers.get(classId));
      rasterize(endsOf(mask), mask.size, objects, width, height, i + 1);
    });
    files.push({ name: `classes/${stem(name)}.png`, data: await encodePng(classes, width, height) });
    files.push({ name: `objects/${stem(name)}.png`, data: await encodePng(objects, width, height, 16) });
  }
  return files;
}

/**
 * Read PNG masks. Return a promise of {labels, missing}.
 *
 * `files` is a list of {name, data}: the PNG files, and classes.txt with the names of the classes. A mask belongs to the
 * image with the same name. Without a file of object numbers, all pixels of a class are one object. `missing` has the names
 * of the masks whose image is not in the list `images`.
 */
export async function fromPngMasks(files, images) {
  const list = files.find(({ name }) => /(^|\/)classes\.txt$/i.test(name));
  const names = list ? (await list.data.text()).split("\n").map((line) => line.trim()).filter(Boolean) : [];
  const label = (number) => names[number - 1] ?? (number === 255 && !names.length ? "object" : `class ${number}`);
  const byImage = new Map(), missing = [], used = new Set();
  const masks = files.filter(({ name }) => /\.png$/i.test(name));
  const pathOf = (name) => name.replace(/(^|\/)(classes|objects)\//, "$1");
  const matched = matchByName(images, masks.map(({ name }) => pathOf(name)), stem);
  for (const { name, data } of masks) {
    const image = matched.get(pathOf(name));
    if (!image) missing.push(name);
    else byImage.set(image, { ...byImage.get(image), [/(^|\/)objects\//.test(name) ? "objects" : "classes"]: { name, data } });
  }
  const read = [];
  for (const [image, { classes, objects }] of byImage) {
    const [classPixels, objectPixels] = [classes && (await pixels(classes)), objects && (await pixels(objects))];
    const separate = objectPixels ?? classPixels;
    const found = separateObjects(separate).map(({ runs, first }) => ({
      label: label(classPixels ? classPixels.values[first] : 1),
      mask: maskOf(runs, [separate.height, separate.width]),
    }));
    found.forEach((object) => used.add(object.label));
    read.push({ name: image.name, width: separate.width, height: separate.height, objects: found });
  }
  const known = names.length ? names : [...used];
  return { labels: { classes: known.map((name) => ({ name })), images: read }, missing };
}

async function pixels({ name, data }) {
  try {
    return await decodePng(data);
  } catch (error) {
    throw new Error(`The mask ${name} cannot be read. ${error.message}`);
  }
}

/** Return an entry for each number except 0, in ascending order: the runs of its pixels, and the index of one pixel. */
function separateObjects({ values, width, height }) {
  const objects = new Map();
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; ) {
      const value = values[y * width + x], begin = y;
      while (y < height && values[y * width + x] === value) y++;
      if (!value) continue;
      if (!objects.has(value)) objects.set(value, { columns: new Map(), first: begin * width + x });
      const { columns } = objects.get(value);
      if (!columns.has(x)) columns.set(x, []);
      columns.get(x).push([begin, y]);
    }
  }
  return [...objects].sort(([a], [b]) => a - b).map(([, { columns, first }]) => ({ runs: fromColumns(columns, [height, width]), first }));
}
