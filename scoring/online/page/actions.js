// What a person can do: open a picture, prompt, choose, undo. Gestures, keys and buttons call these.

import { isSent, score } from "./api.js";
import { decodeUpright } from "./decode.js";
import { boxBetween, within } from "./geometry.js";
import { bestOf, requestFor, sizeProblem } from "./requests.js";
import { change, get, isEmpty, NO_PROMPT, say, shownMasks, update } from "./state.js";

let latest = 0; // number of the latest request; answers to earlier ones are dropped

/** Open a picture: decode it, once, and show it upright. */
export async function open(blob, name) {
  const number = ++latest;
  let bitmap;
  try {
    bitmap = await decodeUpright(blob);
  } catch {
    return say(`${name} is not an image this browser can read.`, true);
  }
  if (number !== latest) return bitmap.close();
  const { width, height } = bitmap;
  get().picture?.bitmap.close();
  update({
    picture: { bitmap, blob, name, width, height },
    prompt: NO_PROMPT,
    history: [],
    cross: within([Math.round(width / 2), Math.round(height / 2)], bitmap),
    corner: null,
    draft: null,
  });
  say("Click on something, or drag a box around it.");
}

/** Put the picture away, to choose another. */
export function close() {
  latest++;
  get().picture?.bitmap.close();
  update({ picture: null, prompt: NO_PROMPT, history: [], corner: null, draft: null });
  say("No image yet.");
}

export function addPoint(point, positive) {
  const { prompt } = get();
  const { points, labels, answer, ...rest } = prompt.everything ? NO_PROMPT : prompt;
  change({ ...rest, points: [...points, point], labels: [...labels, positive ? 1 : 0], answer });
  segment(answer?.masks[answer.chosen].low_res_logits);
}

export function addBox(from, to) {
  const box = boxBetween(from, to);
  update({ corner: null, draft: null });
  if (!box) return;
  change({ ...NO_PROMPT, box });
  segment();
}

/** Begin a box at a corner, or end it at the opposite one. `hint` says how to place that. */
export function addCorner(point, hint) {
  const { corner } = get();
  if (corner) return addBox(corner, point);
  update({ corner: point });
  say(hint);
}

export function everything() {
  if (!get().picture) return;
  change({ ...NO_PROMPT, everything: true });
  segment();
}

/** Ask about the prompt again, without the mask so far: another model may be asked. */
export function askAgain() {
  const { picture, prompt } = get();
  if (picture && !isEmpty(prompt)) segment();
}

export function undo() {
  const { history } = get();
  if (!history.length) return;
  latest++;
  const prompt = history.at(-1);
  update({ prompt, history: history.slice(0, -1), corner: null, draft: null });
  say(isEmpty(prompt) ? "Nothing is marked." : `One step back. ${describe(prompt)}`);
}

export function clear() {
  latest++;
  if (!isEmpty(get().prompt)) change(NO_PROMPT);
  update({ corner: null, draft: null });
  say("Click on something.");
}

/** Show another candidate. */
export function choose(chosen) {
  const { prompt } = get();
  if (prompt.everything || !(chosen < prompt.answer?.masks.length)) return;
  update({ prompt: { ...prompt, answer: { ...prompt.answer, chosen } } });
  say(`Candidate ${chosen + 1}: ${describe(get().prompt)}`);
}

export const chooseNext = () => {
  const { answer } = get().prompt;
  if (answer) choose((answer.chosen + 1) % answer.masks.length);
};

/** Ask about the prompt as it stands. `logits` are those of the mask so far, if it is refined. */
async function segment(logits) {
  const number = ++latest;
  const { picture, prompt, model, key } = get();
  const doing = prompt.everything ? "Looking for everything …" : "Segmenting …";
  say(isSent(picture, model) ? doing : `Sending the image. ${doing}`);
  const start = performance.now();
  try {
    const { predictions, model: answered } = await score(picture, model, key, requestFor(prompt, logits));
    if (number !== latest) return;
    const masks = prompt.everything ? predictions.map((prediction) => prediction.mask_per_prediction[0]) : predictions[0].mask_per_prediction;
    const problem = sizeProblem(masks, picture);
    if (problem) {
      update({ prompt: { ...prompt, answer: null } });
      return say(problem, true);
    }
    update({ prompt: { ...prompt, answer: { model: answered, masks, chosen: masks.length ? bestOf(masks) : 0 } } });
    say(`${describe(get().prompt)}, ${((performance.now() - start) / 1000).toFixed(2)} s.`);
  } catch (error) {
    if (number !== latest) return;
    if (error.status === 401) update({ locked: true });
    say(error.message, true);
  }
}

/** Return what is shown, in words. */
function describe(prompt) {
  const masks = shownMasks(prompt);
  if (prompt.everything) return `${masks.length} object${masks.length === 1 ? "" : "s"}`;
  return masks.map((mask) => `${mask.area.toLocaleString()} pixels, score ${mask.iou_score.toFixed(2)}`).join();
}
