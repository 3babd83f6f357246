// The actions of the user: open an image, add points and boxes, choose a mask, undo. Pointer, keys and buttons call them.

import { isUploaded, score } from "./api.js";
import { decodeUpright } from "./decode.js";
import { boxBetween, within } from "./geometry.js";
import { bestOf, requestFor, sizeProblem } from "./requests.js";
import { get, isEmpty, NO_PROMPT, setPrompt, setStatus, shownMasks, update } from "./state.js";

let latest = 0; // number of the latest request; responses to earlier requests are ignored

/** Open an image: decode it once, turn it as its EXIF orientation says, and display it. */
export async function openImage(blob, name) {
  const number = ++latest;
  let bitmap;
  try {
    bitmap = await decodeUpright(blob);
  } catch {
    return setStatus(`${name} is not an image this browser can read. Choose another file.`, true);
  }
  if (number !== latest) return bitmap.close();
  const { width, height } = bitmap;
  get().picture?.bitmap.close();
  update({
    picture: { bitmap, blob, name, width, height },
    prompt: NO_PROMPT,
    history: [],
    crosshair: within([Math.round(width / 2), Math.round(height / 2)], bitmap),
    corner: null,
    draft: null,
  });
  setStatus("Click on an object, or drag a box around it.");
}

/** Close the image, so that the user can open another. */
export function closeImage() {
  latest++;
  get().picture?.bitmap.close();
  update({ picture: null, prompt: NO_PROMPT, history: [], corner: null, draft: null });
  setStatus("Open an image to begin.");
}

/** Add a point and segment again. The mask shown so far is refined. */
export function addPoint(point, positive) {
  const { prompt } = get();
  const { points, labels, answer, ...rest } = prompt.everything ? NO_PROMPT : prompt;
  setPrompt({ ...rest, points: [...points, point], labels: [...labels, positive ? 1 : 0], answer });
  segment(answer?.masks[answer.chosen].low_res_logits);
}

/** Replace the prompt by a box between two opposite corners, and segment. */
export function addBox(from, to) {
  const box = boxBetween(from, to);
  update({ corner: null, draft: null });
  if (!box) return;
  setPrompt({ ...NO_PROMPT, box });
  segment();
}

/** Start a box at its first corner and show `hint`, or complete the box at its opposite corner. */
export function addCorner(point, hint) {
  const { corner } = get();
  if (corner) return addBox(corner, point);
  update({ corner: point });
  setStatus(hint);
}

/** Segment all objects in the image. */
export function everything() {
  if (!get().picture) return;
  setPrompt({ ...NO_PROMPT, everything: true });
  segment();
}

/** Send the prompt again, for example to another model. The mask shown so far is not refined. */
export function segmentAgain() {
  const { picture, prompt } = get();
  if (picture && !isEmpty(prompt)) segment();
}

/** Restore the previous prompt and its masks. */
export function undo() {
  const { history } = get();
  if (!history.length) return;
  latest++;
  const prompt = history.at(-1);
  update({ prompt, history: history.slice(0, -1), corner: null, draft: null });
  setStatus(isEmpty(prompt) ? "Undone. There are no points or boxes." : `Undone. ${describe(prompt)}`);
}

/** Remove all points and boxes. */
export function clear() {
  latest++;
  if (!isEmpty(get().prompt)) setPrompt(NO_PROMPT);
  update({ corner: null, draft: null });
  setStatus("Click on an object.");
}

/** Display the candidate mask with this index. */
export function choose(chosen) {
  const { prompt } = get();
  if (prompt.everything || !(chosen < prompt.answer?.masks.length)) return;
  update({ prompt: { ...prompt, answer: { ...prompt.answer, chosen } } });
  setStatus(`Candidate ${chosen + 1}: ${describe(get().prompt)}`);
}

/** Display the next candidate mask. */
export const chooseNext = () => {
  const { answer } = get().prompt;
  if (answer) choose((answer.chosen + 1) % answer.masks.length);
};

/** Send the current prompt to the endpoint. `logits` are those of the mask to refine, or undefined. */
async function segment(logits) {
  const number = ++latest;
  const { picture, prompt, model, key } = get();
  const doing = prompt.everything ? "Segmenting everything …" : "Segmenting …";
  setStatus(isUploaded(picture, model) ? doing : `Uploading the image. ${doing}`);
  const start = performance.now();
  try {
    const { predictions, model: answered } = await score(picture, model, key, requestFor(prompt, logits));
    if (number !== latest) return;
    const masks = prompt.everything ? predictions.map((prediction) => prediction.mask_per_prediction[0]) : predictions[0].mask_per_prediction;
    const problem = sizeProblem(masks, picture);
    if (problem) {
      update({ prompt: { ...prompt, answer: null } });
      return setStatus(problem, true);
    }
    update({ prompt: { ...prompt, answer: { model: answered, masks, chosen: masks.length ? bestOf(masks) : 0 } } });
    setStatus(`${describe(get().prompt)}, ${((performance.now() - start) / 1000).toFixed(2)} s.`);
  } catch (error) {
    if (number !== latest) return;
    if (error.status === 401) update({ locked: true });
    setStatus(error.message, true);
  }
}

/** Return a description of the displayed masks. */
function describe(prompt) {
  const masks = shownMasks(prompt);
  if (prompt.everything) return `${masks.length} object${masks.length === 1 ? "" : "s"}`;
  return masks.map((mask) => `${mask.area.toLocaleString()} pixels, score ${mask.iou_score.toFixed(2)}`).join();
}
