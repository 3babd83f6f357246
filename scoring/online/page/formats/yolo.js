// Convert between the page's project and the text files of YOLO segmentation. Pure.

import { polygonRuns, polygonsOf } from "../masks/polygons.js";
import { endsOf, maskOf } from "../masks/runs.js";
import { finished } from "../project/project.js";
import { checkStems, matchByName, stem } from "./names.js";

const DIGITS = 6;

/** Return the files of a project, a list of {name, data}: a text file for each image, and data.yaml with the class names. */
export function toYolo(project, { tolerance = 0 } = {}) {
  checkStems(project.images, "YOLO's format");
  const numbers = new Map(project.classes.map(({ id }, i) => [id, i]));
  const labels = project.images.map(({ id, name, width, height }) => {
    const lines = finished(project, id).flatMap(({ classId, mask }) =>
      polygonsOf(endsOf(mask), mask.size, { tolerance, single: true }).map((corners) =>
        [numbers.get(classId), ...corners.flatMap(([x, y]) => [short(x / width), short(y / height)])].join(" "),
      ),
    );
    return { name: `labels/${stem(name)}.txt`, data: lines.map((line) => `${line}\n`).join("") };
  });
  const names = project.classes.map(({ name }, i) => `  ${i}: ${JSON.stringify(name)}\n`).join("");
  return [{ name: "data.yaml", data: `path: .\ntrain: images\nval: images\nnames:\n${names}` }, ...labels];
}

const short = (value) => String(Number(value.toFixed(DIGITS)));

/**
 * Read YOLO's files, a list of {name, text}. Return {labels, missing}.
 *
 * Corners in these files are fractions of the image's size, so the page must have the image to read its labels. `missing`
 * has the names of the label files whose image is not in the list `images`.
 */
export function fromYolo(files, images) {
  const classes = classNames(files);
  const read = [], missing = [];
  const used = new Set();
  const texts = files.filter(({ name }) => /\.txt$/i.test(name) && !/(^|[\\/])classes\.txt$/i.test(name));
  const pathOf = (name) => name.replace(/(^|[\\/])labels[\\/]/, "$1");
  const found = matchByName(images, texts.map(({ name }) => pathOf(name)), stem);
  for (const { name, text } of texts) {
    const image = found.get(pathOf(name));
    if (!image) {
      missing.push(name);
      continue;
    }
    const size = [image.height, image.width];
    const objects = text.split("\n").filter((line) => line.trim()).map((line, i) => {
      const [number, ...values] = line.trim().split(/\s+/).map(Number);
      if (!Number.isInteger(number) || values.some(Number.isNaN) || values.length % 2 || values.length < 4) {
        throw new Error(`Line ${i + 1} of ${name} is not a class number followed by pairs of coordinates.`);
      }
      used.add(number);
      return { label: classes[number] ?? `class ${number}`, mask: maskOf(polygonRuns([cornersOf(values, image)], size), size) };
    });
    read.push({ name: image.name, width: image.width, height: image.height, objects });
  }
  const names = Array.from({ length: Math.max(classes.length, ...[...used].map((number) => number + 1)) }, (_, i) => ({ name: classes[i] ?? `class ${i}` }));
  return { labels: { classes: names, images: read }, missing };
}

// Four values are a box of YOLO's detection format: the centre, the width and the height. More values are a polygon.
function cornersOf(values, { width, height }) {
  if (values.length > 4) return Array.from({ length: values.length / 2 }, (_, i) => [precise(values[2 * i], width), precise(values[2 * i + 1], height)]);
  const [x, y, w, h] = values;
  return [[x - w / 2, y - h / 2], [x + w / 2, y - h / 2], [x + w / 2, y + h / 2], [x - w / 2, y + h / 2]].map(([a, b]) => [a * width, b * height]);
}

// Fractions in the files are rounded to six digits. So a coordinate that is nearly a whole number was a whole number.
function precise(fraction, length) {
  const value = fraction * length, whole = Math.round(value);
  return Math.abs(value - whole) <= length * 10 ** -DIGITS ? whole : value;
}

function classNames(files) {
  const list = files.find(({ name }) => /(^|[\\/])classes\.txt$/i.test(name));
  if (list) return list.text.split("\n").map((line) => line.trim()).filter(Boolean);
  const yaml = files.find(({ name }) => /\.ya?ml$/i.test(name))?.text ?? "";
  const inline = yaml.match(/^names:\s*\[(.*)\]/m);
  if (inline) return inline[1].split(",").map(unquote);
  const block = yaml.match(/^names:\s*\n((?:[ \t-].*(?:\n|$))*)/m);
  const names = [];
  for (const [, number, name] of block?.[1].matchAll(/^[ \t]*(?:(\d+):|-)[ \t]*(.*)$/gm) ?? []) names[number ?? names.length] = unquote(name);
  return names;
}

function unquote(text) {
  const value = text.trim();
  if (/^".*"$/.test(value)) return JSON.parse(value);
  return value.replace(/^'(.*)'$/, "$1");
}
