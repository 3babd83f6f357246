// The state of the page for videos. It is immutable: `update` replaces it by a changed copy and calls the watchers.

import { createStore } from "../store.js";

export const NO_TRACKS = Object.freeze({ objects: [], prompts: {}, tracks: [], run: 0 }); // see tracks.js

export const { get, update, watch } = createStore({
  clip: null, // the open video: {id, name, file, size: [height, width], count, frames: [{seconds, blob}], complete}
  frame: 0, // number of the shown frame
  playing: false,
  ...NO_TRACKS,
  past: [], // earlier {objects, prompts, tracks, run}, for undo
  active: null, // number of the object that clicks change, or null: the next click starts a new object
  draft: null, // two opposite corners of a box while it is being drawn
  crosshair: null, // position of the keyboard's cursor, in pixels of the frame
  crosshairShown: false, // whether the latest input came from the keyboard
  corner: null, // first corner of a box that is not complete
  running: null, // tracking in progress: {from, last: the latest answered frame, done: number of answered frames, begin}
  saved: true, // whether the tracks have been downloaded since the latest change
  opacity: 0.45, // of the fill of the masks
  models: [], // the response of /models
  model: "", // name of the selected model
  key: "", // the API key
  locked: false, // whether the endpoint has rejected a request without a valid API key
  status: { text: "", isError: false },
});

/** Show a message to the user. */
export const setStatus = (text, isError = false) => update({ status: { text, isError } });

const versionNow = ({ objects, prompts, tracks, run } = get()) => ({ objects, prompts, tracks, run });

/** Change objects, prompts or tracks as a step that can be undone. `changes` are further changes of the state. */
export function commit(change, changes = {}) {
  update({ ...change, past: [...get().past.slice(-99), versionNow()], saved: false, ...changes });
}

/**
 * Apply a change to the shown version and to all earlier ones, so that undo does not undo it, for example for answers that
 * arrive after further clicks. `change` returns the changes to a version {objects, prompts, tracks, run}.
 */
export function changeEverywhere(change, changes = {}) {
  const past = get().past.map((version) => ({ ...version, ...change(version) }));
  update({ ...change(versionNow()), past, ...changes });
}
