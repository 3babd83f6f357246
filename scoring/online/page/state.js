// The page's state, in one place. `update` replaces parts of it and calls the watchers; nothing in it is changed in place.

/** A prompt with nothing in it. `answer` is the endpoint's: {model, masks, chosen}, masks as the endpoint sends them. */
export const NO_PROMPT = Object.freeze({ points: [], labels: [], box: null, everything: false, answer: null });

let state = Object.freeze({
  picture: null, // {bitmap, blob, name, width, height}: upright, whatever its EXIF orientation
  prompt: NO_PROMPT,
  history: [], // earlier prompts, for undo
  cross: null, // where the keyboard points, in the picture's pixels
  crossShown: false, // whether the keyboard was the last to point
  corner: null, // where a box began
  draft: null, // the box as it is being drawn, two corners
  models: [], // as /models lists them
  model: "", // the name of the model that is asked
  key: "", // of the endpoint, where it asks for one
  locked: false, // whether the endpoint has asked for a key
  status: { text: "", wrong: false },
});
const watchers = [];

export const get = () => state;

export function update(changes) {
  const before = state;
  state = Object.freeze({ ...state, ...changes });
  for (const watcher of watchers) watcher(state, before);
}

/** Call `watcher(state, before)` after each change. */
export const watch = (watcher) => watchers.push(watcher);

export const say = (text, wrong = false) => update({ status: { text, wrong } });

/** Replace the prompt, and keep the earlier one for undo. */
export const change = (prompt, changes = {}) => update({ prompt, history: [...state.history, state.prompt], ...changes });

export const isEmpty = ({ points, box, everything }) => !points.length && !box && !everything;

/** Return the masks of a prompt that are shown: all of "everything", else the chosen candidate. */
export function shownMasks({ answer, everything }) {
  if (!answer) return [];
  return everything ? answer.masks : [answer.masks[answer.chosen]];
}
