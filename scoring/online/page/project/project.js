// The labels of a data set, and functions that return a changed copy. Pure.
//
// A project is {classes, images, objects}. It is immutable, so undo keeps earlier projects.
//   classes: [{id, name, colour}]
//   images: [{id, name, width, height, done, missing}]; `missing`: the labels are known, the image file is not
//   objects: image id -> [object], from the bottom to the top of the drawing
// An object is {id, classId, hidden, proposal, concept, mask, prompt, candidates, chosen, model, edits, request}:
//   mask: {size, counts, area, bbox} as in masks/runs.js, or null while the endpoint has not answered
//   prompt: {points, labels, box}; candidates: [{mask, score}] of the latest answer; chosen: the index of one of them
//   proposal: found by a search and not yet accepted; concept: of a search by text, as in project/proposals.js, or null
//   edits: corrections by the brush, as in masks/stroke.js, or null
//   request: id of the latest request for this object, or null; answers to earlier requests are ignored. A reload keeps it, so
//   a number that starts again with each visit would fit later requests too.

import { endsOf, maskOf, union } from "../masks/runs.js";
import { isColour, nextColour } from "./palette.js";

export const NO_PROMPT = Object.freeze({ points: [], labels: [], box: null });
export const NEW_OBJECT = Object.freeze({
  hidden: false, proposal: false, concept: null, mask: null, prompt: NO_PROMPT, candidates: [], chosen: 0, model: "", edits: null, request: null,
});
export const EMPTY = Object.freeze({ classes: [Object.freeze({ id: "class-1", name: "object", colour: "#0072b2" })], images: [], objects: {} });

let identifiers = 0;

/** Return an id that no other class, image, object or request has, also in other sessions of the browser. */
export const newId = () => `${Date.now().toString(36)}-${(++identifiers).toString(36)}-${Math.floor(Math.random() * 1e6).toString(36)}`;

/** Return the objects of an image, from the bottom to the top. */
export const objectsOf = (project, imageId) => project.objects[imageId] ?? [];

/** Return the objects of an image that belong to the data set: objects that have a mask and are no proposals. */
export const finished = (project, imageId) => objectsOf(project, imageId).filter(({ mask, proposal }) => mask?.area && !proposal);

/** Return the object with this id, or undefined. */
export const objectWith = (project, imageId, id) => objectsOf(project, imageId).find((object) => object.id === id);

export const withObjects = (project, imageId, objects) => ({ ...project, objects: { ...project.objects, [imageId]: objects } });

/** Return the project with changes to one object of an image. */
export function changeObject(project, imageId, id, changes) {
  const objects = objectsOf(project, imageId);
  if (!objects.some((object) => object.id === id)) return project;
  return withObjects(project, imageId, objects.map((object) => (object.id === id ? Object.freeze({ ...object, ...changes }) : object)));
}

/** Return the project with an object on top of the others. */
export const addObject = (project, imageId, object) =>
  withObjects(project, imageId, [...objectsOf(project, imageId), Object.freeze({ ...NEW_OBJECT, ...object })]);

export const removeObjects = (project, imageId, ids) => withObjects(project, imageId, objectsOf(project, imageId).filter(({ id }) => !ids.includes(id)));

/** Return the project with an object moved by `steps` places towards the top. */
export function moveObject(project, imageId, id, steps) {
  const objects = [...objectsOf(project, imageId)];
  const from = objects.findIndex((object) => object.id === id);
  const to = Math.max(0, Math.min(objects.length - 1, from + steps));
  if (from < 0 || from === to) return project;
  objects.splice(to, 0, ...objects.splice(from, 1));
  return withObjects(project, imageId, objects);
}

/** Return the project with the objects `ids` joined to one, which takes the place and the class of the first. */
export function mergeObjects(project, imageId, ids) {
  const parts = objectsOf(project, imageId).filter(({ id, mask }) => ids.includes(id) && mask);
  if (parts.length < 2) return project;
  const runs = parts.map(({ mask }) => endsOf(mask)).reduce(union);
  const first = ids.map((id) => parts.find((part) => part.id === id)).find(Boolean);
  const merged = { mask: maskOf(runs, first.mask.size), prompt: NO_PROMPT, candidates: [], chosen: 0, edits: null, proposal: false, request: null };
  const rest = parts.map(({ id }) => id).filter((id) => id !== first.id);
  return removeObjects(changeObject(project, imageId, first.id, merged), imageId, rest);
}

/** Return the project with a new class, and the class. If a class has this name already, it is returned instead. */
export function addClass(project, name, colour) {
  const known = project.classes.find((other) => other.name === name);
  if (known) return { project, added: known };
  const added = Object.freeze({ id: newId(), name, colour: isColour(colour) ? colour : nextColour(project.classes.map((other) => other.colour)) });
  return { project: { ...project, classes: [...project.classes, added] }, added };
}

export const changeClass = (project, id, changes) => ({ ...project, classes: project.classes.map((other) => (other.id === id ? Object.freeze({ ...other, ...changes }) : other)) });

/** Return the number of objects of a class in the whole data set. */
export const countOfClass = (project, id) => Object.values(project.objects).flat().filter(({ classId }) => classId === id).length;

/** Return the project without a class. Classes that have objects, and the last class, stay. */
export function removeClass(project, id) {
  if (project.classes.length < 2 || countOfClass(project, id)) return project;
  return { ...project, classes: project.classes.filter((other) => other.id !== id) };
}

export const changeImage = (project, id, changes) => ({ ...project, images: project.images.map((image) => (image.id === id ? Object.freeze({ ...image, ...changes }) : image)) });

/** Return the project with an image whose file is there. The project can have the image already, without its file. */
export const withFile = (project, image) =>
  project.images.some(({ id }) => id === image.id) ? changeImage(project, image.id, { missing: false }) : { ...project, images: [...project.images, Object.freeze({ ...image, missing: false })] };

/** Return the project without an image and its objects. */
export function removeImage(project, id) {
  const { [id]: _, ...objects } = project.objects;
  return { ...project, images: project.images.filter((image) => image.id !== id), objects };
}

/** Return {labelled, total}: how many images have an object or are marked as done, and how many images there are. */
export const progressOf = (project) => ({
  labelled: project.images.filter(({ id, done }) => done || finished(project, id).length).length,
  total: project.images.length,
});
