// The state of the page. It is immutable: `update` replaces it by a changed copy and calls the watchers.

import { NO_HISTORY, mapProjects, record } from "./project/history.js";
import { changeObject, EMPTY, objectsOf, objectWith } from "./project/project.js";

let state = Object.freeze({
  project: EMPTY, // the labels of all images: see project/project.js
  history: NO_HISTORY, // earlier and later projects, for undo and redo
  imageId: null, // id of the open image
  picture: null, // the open image: {id, bitmap, blob, name, width, height}; the bitmap is turned as its EXIF orientation says
  active: null, // id of the object that clicks and strokes change, or null: the next click starts a new object
  marked: [], // ids of the objects that are marked in the list, to merge them
  classId: EMPTY.classes[0].id, // class of new objects
  tool: "add", // "add", "subtract", "box", "brush", "eraser" or "move"
  each: false, // whether each click makes a new object
  radius: 14, // radius of the brush, in CSS pixels: to paint finer, zoom in
  opacity: 0.45, // of the fill of the masks, 0 to 1
  colourBy: "class", // "class" or "object"
  letters: true, // whether single keys are shortcuts
  view: null, // where the image is on the canvas: {scale, x, y} in CSS pixels, see view/geometry.js
  hover: null, // preview of the mask under the pointer: {mask}, or null
  pointer: null, // position of the mouse, in pixels of the image, for the brush
  stroke: null, // the stroke that is being painted: {points, erases, radius}; the radius is in pixels of the image
  crosshair: null, // position of the keyboard's cursor, in pixels of the image
  crosshairShown: false, // whether the latest input came from the keyboard
  corner: null, // first corner of a box that is not complete
  draft: null, // two opposite corners of a box while it is being drawn
  models: [], // the response of /models
  model: "", // name of the selected model
  key: "", // the API key
  locked: false, // whether the endpoint has rejected a request without a valid API key
  status: { text: "", isError: false, retry: null }, // retry: a function that repeats the failed action, or null
});
const watchers = [];

/** Return the current state. */
export const get = () => state;

/** Change parts of the state, and call the watchers. */
export function update(changes) {
  const before = state;
  state = Object.freeze({ ...state, ...changes });
  for (const watcher of watchers) watcher(state, before);
}

/** Register a function `watcher(state, before)` that is called after each change of the state. */
export const watch = (watcher) => watchers.push(watcher);

/** Show a message to the user. */
export const setStatus = (text, isError = false, retry = null) => update({ status: { text, isError, retry } });

/** Return what undo restores. */
export const entryNow = ({ project, imageId, active } = state) => ({ project, imageId, active });

/** Replace the project as a step that can be undone. `changes` are further changes of the state. */
export function commit(project, changes = {}) {
  if (project === state.project) return update(changes);
  update({ project, history: record(state.history, entryNow()), ...changes });
}

/** Apply a change to the current project and to all projects of undo and redo, so that undo does not undo the change. */
export function commitEverywhere(change, changes = {}) {
  update({ project: change(state.project), history: mapProjects(state.history, change), ...changes });
}

/**
 * Store a response in an object, in every project (current, undo, redo) in which the object still waits for this request.
 * Return whether the current project is one of them.
 */
export function answerObject(imageId, id, request, changes) {
  const waiting = (project) => objectWith(project, imageId, id)?.request === request;
  const change = (project) => (waiting(project) ? changeObject(project, imageId, id, changes) : project);
  const present = waiting(state.project);
  commitEverywhere(change);
  return present;
}

/** Return the objects of the open image. */
export const shownObjects = ({ project, imageId } = state) => objectsOf(project, imageId);

/** Return the active object, or undefined. */
export const activeObject = ({ project, imageId, active } = state) => objectWith(project, imageId, active);

/** Return the objects for the downloads of the open image: the active object, or all objects if none is active. */
export function chosenObjects(from = state) {
  const active = activeObject(from);
  if (active) return active.mask ? [active] : [];
  return shownObjects(from).filter(({ mask, proposal }) => mask && !proposal);
}
