// Add labels that were read from files to a project. Pure.

import { matchByName } from "../formats/names.js";
import { endsOf, iou } from "../masks/runs.js";
import { addClass, addObject, countOfClass, EMPTY, newId, objectsOf } from "./project.js";

const SAME = 0.999; // two objects of the same class with a larger IoU are the same object, imported twice

/**
 * Return {project, added, repeated, missing, misfits} after an import of `labels` (see formats/coco.js).
 *
 * `added` is the number of new objects, `repeated` the number of objects that the project had already. `missing` has the
 * names of images that the project does not have: they and their objects are kept, and wait for the image file. `misfits`
 * has the names of images whose size differs from the labels' size; their labels are not added.
 */
export function mergeLabels(project, labels) {
  let result = withoutPlaceholder(project, labels);
  const classIds = new Map();
  for (const { name, colour } of labels.classes) {
    const { project: next, added } = addClass(result, name, colour);
    result = next;
    classIds.set(name, added.id);
  }
  const missing = [], misfits = [];
  let [added, repeated] = [0, 0];
  const found = matchByName(project.images, labels.images.map(({ name }) => name));
  for (const { name, width, height, objects } of labels.images) {
    const size = objects[0]?.mask.size ?? [height, width];
    let image = found.get(name);
    if (image && (image.width !== size[1] || image.height !== size[0]) && objects.length) {
      misfits.push(name);
      continue;
    }
    if (!image) {
      image = Object.freeze({ id: newId(), name, width: size[1], height: size[0], done: false, missing: true });
      result = { ...result, images: [...result.images, image] };
      found.set(name, image);
    }
    if (image.missing) missing.push(name);
    for (const { label, mask } of objects) {
      const classId = classIds.get(label);
      const known = objectsOf(result, image.id).some((other) => other.classId === classId && other.mask && similar(other.mask, mask));
      if (known) repeated++;
      else {
        result = addObject(result, image.id, { id: newId(), classId, mask });
        added++;
      }
    }
  }
  return { project: result, added, repeated, missing, misfits };
}

// The class of a new project is a placeholder. An import removes this class if no object has it and the labels have classes.
function withoutPlaceholder(project, labels) {
  const [placeholder] = EMPTY.classes;
  const [first, ...others] = project.classes;
  const replaced = labels.classes.length && !others.length && first?.id === placeholder.id && first.name === placeholder.name && !countOfClass(project, first.id);
  return replaced ? { ...project, classes: [] } : project;
}

function similar(a, b) {
  if (a.counts === b.counts) return true;
  if (Math.abs(a.area - b.area) > (1 - SAME) * Math.max(a.area, b.area)) return false;
  return iou(endsOf(a), endsOf(b)) > SAME;
}
