// The state of the page. It is immutable: `update` replaces it by a changed copy and calls the watchers.

import { NO_HISTORY, mapProjects, record } from "./project/history.js";
import { changeObject, EMPTY, objectWith } from "./project/project.js";
import { shownOf, sortedProposals } from "./project/proposals.js";
import { createStore } from "./store.js";

const store = createStore({
  project: EMPTY, // the labels of all images: see project/project.js
  history: NO_HISTORY, // earlier and later projects, for undo and redo
  imageId: null, // id of the open image
  picture: null, // the open image: {id, bitmap, blob, name, width, height}; the bitmap is turned as its EXIF orientation says
  active: null, // id of the object that clicks and strokes change, or null: the next click starts a new object
  marked: [], // ids of the objects that are marked in the list, to merge them
  classId: EMPTY.classes[0].id, // class of new objects
  tool: "add", // "add", "subtract", "box", "brush", "eraser" or "move"
  thresholds: {}, // image id -> threshold; proposals with a lower score are not shown
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
  takenOver: false, // whether another tab has opened the data set since; this tab then saves nothing
  status: { text: "", isError: false, retry: null }, // retry: a function that repeats the failed action, or null
});

/** Return the current state. */
export const get = store.get;

/** Change parts of the state, and call the watchers. */
export const update = store.update;

/** Register a function `watcher(state, before)` that is called after each change of the state. */
export const watch = store.watch;

/** Show a message to the user. */
export const setStatus = (text, isError = false, retry = null) => update({ status: { text, isError, retry } });

/** Return what undo restores. */
export const entryNow = ({ project, imageId, active } = get()) => ({ project, imageId, active });

/** Replace the project as a step that can be undone. `changes` are further changes of the state. */
export function commit(project, changes = {}) {
  if (project === get().project) return update(changes);
  update({ project, history: record(get().history, entryNow()), ...changes });
}

/** Apply a change to the current project and to all projects of undo and redo, so that undo does not undo the change. */
export function commitEverywhere(change, changes = {}) {
  update({ project: change(get().project), history: mapProjects(get().history, change), ...changes });
}

/**
 * Store a response in an object, in every project (current, undo, redo) in which the object still waits for this request.
 * `changesOf(object)` returns the changes to the object, which can have other brush strokes in each project. Return whether
 * the current project is one of them.
 */
export function answerObject(imageId, id, request, changesOf) {
  const waiting = (project) => {
    const object = objectWith(project, imageId, id);
    return object?.request === request ? object : null;
  };
  const present = Boolean(waiting(get().project));
  commitEverywhere((project) => {
    const object = waiting(project);
    return object ? changeObject(project, imageId, id, changesOf(object)) : project;
  });
  return present;
}

/** Return the objects of the open image, without the proposals below the threshold. */
export const shownObjects = ({ project, imageId, thresholds } = get()) => shownOf(project, imageId, thresholds[imageId]);

/** Return the proposals of the open image that are not below the threshold, in the order of their list. */
export const shownProposals = (from = get()) => sortedProposals(shownObjects(from));

/** Return the active object, or undefined. */
export const activeObject = ({ project, imageId, active } = get()) => objectWith(project, imageId, active);

/** Return the objects for the downloads of the open image: the active object, or all objects if none is active. */
export function chosenObjects(from = get()) {
  const active = activeObject(from);
  if (active) return active.mask ? [active] : [];
  return shownObjects(from).filter(({ mask, proposal }) => mask && !proposal);
}
