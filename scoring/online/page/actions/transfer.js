// Import and export the labels of the whole data set.

import { fromCoco, toCoco } from "../formats/coco.js";
import { baseName } from "../formats/names.js";
import { fromPngMasks, toPngMasks } from "../formats/pngmasks.js";
import { fromYolo, toYolo } from "../formats/yolo.js";
import { unzip, zip } from "../formats/zip.js";
import { getFile } from "../images/files.js";
import { mergeLabels } from "../project/merge.js";
import { finished } from "../project/project.js";
import { commit, get, setStatus } from "../state.js";
import { addImages } from "./images.js";

const NAMED = 3; // number of missing images that a message names
// The folder of the photographs in an archive, also in a folder that wraps everything. The folder classes/images/ is no such
// folder: it has masks, of photographs whose own names begin with images/.
const PHOTO_FOLDER = /^(?:(?!(?:classes|objects|images)\/)[^/]+\/)*images\//;
const PHOTO = /\.(?:avif|bmp|gif|jpe?g|png|webp)$/i;

/** Return {images, objects}: the numbers of images and objects that an export contains. */
export function exportSize({ project } = get()) {
  return { images: project.images.length, objects: project.images.reduce((sum, { id }) => sum + finished(project, id).length, 0) };
}

/** Return a promise of {name, blob}, the file of an export. `format` is "coco-rle", "coco-polygons", "yolo" or "png". */
export async function exportFile(format, { tolerance = 0, withImages = false } = {}) {
  const { project } = get();
  if (format.startsWith("coco")) {
    const text = JSON.stringify(toCoco(project, { polygons: format === "coco-polygons", tolerance }));
    if (!withImages) return { name: "annotations.json", blob: new Blob([text], { type: "application/json" }) };
    return { name: "coco.zip", blob: await zip([{ name: "annotations.json", data: text }, ...(await imageFiles(project))]) };
  }
  const files = format === "yolo" ? toYolo(project, { tolerance }) : await toPngMasks(project);
  return { name: `${format === "yolo" ? "yolo" : "masks"}.zip`, blob: await zip([...files, ...(withImages ? await imageFiles(project) : [])]) };
}

async function imageFiles({ images }) {
  const files = await Promise.all(images.map(async ({ id, name }) => ({ name: `images/${name}`, data: await getFile(id) })));
  return files.filter(({ data }) => data);
}

/** Import label files, a list of {name, data}: COCO's JSON, YOLO's text files, PNG masks, or a ZIP archive of them. */
export async function importFiles(files) {
  try {
    const unpacked = [];
    for (const file of files) {
      if (/\.zip$/i.test(file.name)) unpacked.push(...(await unzip(file.data)));
      else unpacked.push(file);
    }
    const photos = unpacked.filter(({ name }) => PHOTO_FOLDER.test(name) && PHOTO.test(name));
    if (photos.length) await addImages(photos.map(({ name, data }) => ({ name: name.replace(PHOTO_FOLDER, ""), blob: new Blob([data], { type: typeOf(name) }) })));
    await importLabels(unpacked.filter((file) => !photos.includes(file)));
  } catch (error) {
    setStatus(`Nothing was imported. ${error.message}`, true);
  }
}

const typeOf = (name) => `image/${baseName(name).split(".").at(-1).toLowerCase().replace("jpg", "jpeg")}`;

async function importLabels(files) {
  const { images } = get().project;
  const present = images.filter(({ width }) => width > 0);
  const read = [], missing = [];
  for (const { name, data } of files.filter((file) => /\.json$/i.test(file.name))) read.push(fromCoco(await parsed(data, name)));
  if (files.some(({ name }) => /\.txt$/i.test(name) && !/(^|\/)classes\.txt$/i.test(name))) {
    const texts = files.filter(({ name }) => /\.(txt|ya?ml)$/i.test(name));
    take(fromYolo(await Promise.all(texts.map(async ({ name, data }) => ({ name, text: await data.text() }))), present));
  }
  if (files.some(({ name }) => /\.png$/i.test(name))) take(await fromPngMasks(files, present));
  function take(result) {
    read.push(result.labels);
    missing.push(...result.missing);
  }
  if (!read.length) throw new Error("There are no labels among the files. The page reads COCO's JSON, YOLO's text files, PNG masks, and ZIP archives of them.");
  report(read, missing);
}

async function parsed(data, name) {
  try {
    return JSON.parse(await data.text());
  } catch {
    throw new Error(`${name} is not a JSON file.`);
  }
}

function report(read, unknown) {
  const labels = { classes: read.flatMap(({ classes }) => classes), images: read.flatMap(({ images }) => images) };
  const { project, added, repeated, missing, misfits } = mergeLabels(get().project, labels);
  const { classes } = project;
  commit(project, { active: null, ...(classes.some(({ id }) => id === get().classId) ? {} : { classId: classes[0].id }) });
  const sentences = [`${added} object${added === 1 ? "" : "s"} imported.`];
  if (repeated) sentences.push(`${repeated} ${repeated === 1 ? "was" : "were"} in the data set already.`);
  if (missing.length) sentences.push(`${imagesNamed(missing)} not in this browser. The labels are kept. Add the image files to see them.`);
  if (unknown.length) sentences.push(`${imagesNamed(unknown, "label file", "label files")} left out, because the images are not in this browser. Add the images, and import the labels again.`);
  if (misfits.length) sentences.push(`${imagesNamed(misfits)} of another size than the labels. These labels are left out.`);
  setStatus(sentences.join(" "), Boolean(missing.length || unknown.length || misfits.length));
}

function imagesNamed(names, one = "image", many = "images") {
  const unique = [...new Set(names)];
  const more = unique.length > NAMED ? ` and ${unique.length - NAMED} more` : "";
  return `${unique.length} ${unique.length === 1 ? `${one} is` : `${many} are`} (${unique.slice(0, NAMED).join(", ")}${more})`.replace(/^(\d+ \S+(?: \S+)?) (is|are) (\(.*\))$/s, "$1 $3 $2");
}
