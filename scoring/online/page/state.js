// The state of the page. It is immutable: `update` replaces it by a changed copy and calls the watchers.

/**
 * An empty prompt. `labels` has 1 for a point on the object and 0 for a point that is not on it. `answer` is the endpoint's
 * response: {model: name of the model that answered, masks: as the endpoint sends them, chosen: index of the mask shown}.
 */
export const NO_PROMPT = Object.freeze({ points: [], labels: [], box: null, everything: false, answer: null });

let state = Object.freeze({
  picture: null, // the open image: {bitmap, blob, name, width, height}; the bitmap is turned as its EXIF orientation says
  prompt: NO_PROMPT,
  history: [], // earlier prompts, for undo
  crosshair: null, // position of the keyboard's cursor, in pixels of the image
  crosshairShown: false, // whether the latest input came from the keyboard
  corner: null, // first corner of a box that is not complete
  draft: null, // two opposite corners of a box while it is being drawn
  models: [], // the response of /models
  model: "", // name of the selected model
  key: "", // the API key
  locked: false, // whether the endpoint has rejected a request without a valid API key
  status: { text: "", isError: false },
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
export const setStatus = (text, isError = false) => update({ status: { text, isError } });

/** Replace the prompt, and add the previous prompt to the history, for undo. */
export const setPrompt = (prompt, changes = {}) => update({ prompt, history: [...state.history, state.prompt], ...changes });

/** Return whether a prompt has no points, no box and does not ask for everything. */
export const isEmpty = ({ points, box, everything }) => !points.length && !box && !everything;

/** Return the masks of a prompt that are displayed: all masks of "everything", or the chosen candidate. */
export function shownMasks({ answer, everything }) {
  if (!answer) return [];
  return everything ? answer.masks : [answer.masks[answer.chosen]];
}
