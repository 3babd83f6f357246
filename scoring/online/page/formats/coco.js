// Convert between the page's project and COCO's JSON. Pure.
//
// The readers of all formats return an object of the same form, called "labels": {classes: [{name, colour}], images: [{name,
// width, height, objects: [{label: name of the class, mask}]}]}.

import { polygonRuns, polygonsOf } from "../masks/polygons.js";
import { decodeRuns, endsOfCounts } from "../masks/rle.js";
import { endsOf, maskOf } from "../masks/runs.js";
import { finished } from "../project/project.js";

/** Return COCO's JSON object for a project. With `polygons`, masks are polygons; otherwise they are run lengths. */
export function toCoco(project, { polygons = false, tolerance = 0 } = {}) {
  const categories = new Map(project.classes.map(({ id }, i) => [id, i + 1]));
  const annotations = project.images.flatMap(({ id: imageId }, i) =>
    finished(project, imageId).map(({ classId, mask }) => ({
      image_id: i + 1,
      category_id: categories.get(classId),
      segmentation: polygons ? polygonsOf(endsOf(mask), mask.size, { tolerance }).map((corners) => corners.flat()) : { size: mask.size, counts: mask.counts },
      area: mask.area,
      bbox: mask.bbox,
      iscrowd: 0,
    })),
  );
  return {
    info: { description: "Labelled with the page of a Segment Anything endpoint" },
    images: project.images.map(({ name, width, height }, i) => ({ id: i + 1, file_name: name, width, height })),
    annotations: annotations.map((annotation, i) => ({ id: i + 1, ...annotation })),
    categories: project.classes.map(({ name, colour }, i) => ({ id: i + 1, name, supercategory: "", color: colour })),
  };
}

/** Return the labels of COCO's JSON object. Throws an Error if it is not in COCO's format. */
export function fromCoco(json) {
  if (![json?.images, json?.annotations, json?.categories].every(Array.isArray)) {
    throw new Error(`The JSON file is not in COCO's format: it needs the lists "images", "annotations" and "categories".`);
  }
  const names = new Map(json.categories.map(({ id, name }) => [id, String(name)]));
  const images = new Map(json.images.map(({ id, file_name: name, width, height }) => [id, { name: String(name), width, height, objects: [] }]));
  for (const { id, image_id: imageId, category_id: category, segmentation } of json.annotations) {
    const image = images.get(imageId);
    if (!image) throw new Error(`Annotation ${id} belongs to image ${imageId}, which is not in the list "images".`);
    const label = names.get(category);
    if (label === undefined) throw new Error(`Annotation ${id} has category ${category}, which is not in the list "categories".`);
    const mask = maskFrom(segmentation, image, id);
    if (mask) image.objects.push({ label, mask });
  }
  return { classes: json.categories.map(({ name, color }) => ({ name: String(name), colour: color })), images: [...images.values()] };
}

function maskFrom(segmentation, { width, height, name }, id) {
  if (!segmentation || (Array.isArray(segmentation) && !segmentation.length)) return null; // a box without a mask
  const size = [height, width];
  if (Array.isArray(segmentation)) {
    if (!(width > 0 && height > 0)) throw new Error(`Image ${name} has no width and height, so its polygons cannot be read.`);
    const corners = segmentation.map((flat) => Array.from({ length: flat.length >> 1 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]));
    return maskOf(polygonRuns(corners, size), size);
  }
  const { counts, size: own = size } = segmentation;
  try {
    return maskOf(typeof counts === "string" ? decodeRuns(counts, own) : endsOfCounts(counts, own), own);
  } catch (error) {
    throw new Error(`Annotation ${id} of ${name} cannot be read. ${error.message}`);
  }
}
