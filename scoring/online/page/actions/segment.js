// The actions that ask the endpoint for one object: points, boxes, other candidates. Pointer, keys and buttons call them.

import { isUploaded, score } from "../endpoint/api.js";
import { bestOf, requestFor, sizeProblem } from "../endpoint/requests.js";
import { contains, endsOf, maskOf } from "../masks/runs.js";
import { decodeRuns } from "../masks/rle.js";
import { applyEdits } from "../masks/stroke.js";
import { addObject, changeObject, newId, NO_PROMPT } from "../project/project.js";
import { acceptProposal } from "../project/proposals.js";
import { activeObject, answerObject, commit, get, setStatus, shownObjects, update } from "../state.js";
import { boxBetween } from "../view/geometry.js";
import { accept } from "./edit.js";

const KEPT_LOGITS = 30; // number of answers whose logits are kept in memory

// The list of candidates of an answer -> {model, logits}: the requested model, and the logits of each candidate. They are too
// large to be saved. The key is the list itself, because undo gives an object the list of an earlier answer again.
const answers = new Map();

/** Return the topmost visible object at a pixel of the image, or undefined. */
export const objectAt = (point) => shownObjects().findLast(({ mask, hidden }) => mask && !hidden && contains(endsOf(mask), mask.size, point));

/**
 * Add a point to the active object, or start a new object with it. A point on a proposal accepts the proposal.
 *
 * The mask shown so far is refined: the request contains its logits or, if the page does not have those of the selected model,
 * its box.
 */
export function addPoint(point, positive) {
  const { picture, each } = get();
  if (!picture) return;
  const active = activeObject();
  const hit = positive && objectAt(point);
  if (hit?.proposal && hit !== active) return accept([hit.id]);
  if (!positive && !active) return setStatus("Click on an object first. Then subtract what does not belong to it.");
  if (!active || (each && positive)) return start({ ...NO_PROMPT, points: [point], labels: [1] });
  const logits = shownLogits(active);
  const { points, labels, box } = active.prompt;
  const frame = box ?? (active.mask?.area && !logits && !points.length ? cornersOf(active.mask.bbox) : null);
  const prompt = { points: [...points, point], labels: [...labels, positive ? 1 : 0], box: frame };
  change(active.id, { prompt }, logits);
}

/** Return the logits of an object's mask, or undefined if the page does not have them or if they are of another model. */
function shownLogits({ candidates, chosen }) {
  const { model, logits } = answers.get(candidates) ?? {};
  return model === get().model ? logits?.[chosen] : undefined;
}

function keepLogits(candidates, model, masks) {
  answers.set(candidates, { model, logits: masks.map(({ low_res_logits: text }) => text) });
  if (answers.size > KEPT_LOGITS) answers.delete(answers.keys().next().value);
}

/** Return the corners [x1, y1, x2, y2] of a box [x, y, width, height]. */
export const cornersOf = ([x, y, width, height]) => [x, y, x + width, y + height];

/** Start a new object with a box between two opposite corners. */
export function addBox(from, to) {
  const box = boxBetween(from, to);
  update({ corner: null, draft: null });
  if (box && get().picture) start({ ...NO_PROMPT, box });
}

/** Start a box at its first corner and show `hint`, or complete the box at its opposite corner. */
export function addCorner(point, hint) {
  const { corner } = get();
  if (corner) return addBox(corner, point);
  update({ corner: point });
  setStatus(hint);
}

function start(prompt) {
  const { project, imageId, classId } = get();
  const id = newId();
  commit(addObject(project, imageId, { id, classId, prompt, request: newId() }), { active: id });
  segment(id);
}

function change(id, changes, logits) {
  const { project, imageId } = get();
  const accepted = acceptProposal(project, imageId, [id], activeObject()?.classId);
  commit(changeObject(accepted, imageId, id, { ...changes, request: newId() }), { active: id });
  segment(id, logits);
}

/** Send the prompt of the active object again, for example to another model. The mask shown so far is not refined. */
export function segmentAgain(id = get().active) {
  const object = shownObjects().find((other) => other.id === id);
  if (object && (object.prompt.points.length || object.prompt.box)) change(id, {});
}

/** Send the prompt of an object to the endpoint. `logits` are those of the mask to refine, or undefined. */
async function segment(id, logits) {
  const { picture, model, key, imageId } = get();
  const { prompt, request } = activeObject();
  setStatus(isUploaded(picture, model) ? "Segmenting …" : "Uploading the image. Segmenting …");
  const begin = performance.now();
  try {
    const { predictions, model: answered } = await score(picture, model, key, requestFor(prompt, logits));
    const masks = predictions[0].mask_per_prediction;
    const problem = sizeProblem(masks, picture);
    if (problem) {
      if (answerObject(imageId, id, request, () => ({ mask: null, candidates: [] }))) setStatus(problem, true);
      return;
    }
    const candidates = masks.map(toCandidate);
    const chosen = bestOf(masks);
    keepLogits(candidates, model, masks);
    const changesOf = ({ edits }) => ({ candidates, chosen, model: answered, mask: edited(candidates[chosen].mask, edits) });
    if (!answerObject(imageId, id, request, changesOf)) return;
    if (get().active !== id || get().imageId !== imageId) return;
    update({ hover: null });
    setStatus(`${describe(activeObject())}, ${seconds(begin)}.`);
  } catch (error) {
    fail(error, () => segmentAgain(id));
  }
}

/** Convert a mask of the endpoint to a candidate {mask, score}. */
export const toCandidate = ({ size, encoded_binary_mask: counts, iou_score: score }) => ({ mask: maskOf(decodeRuns(counts, size), size), score });

const edited = (mask, edits) => (edits ? maskOf(applyEdits(endsOf(mask), edits), mask.size) : mask);

/** Return the time since `begin` as a text. */
export const seconds = (begin) => `${((performance.now() - begin) / 1000).toFixed(2)} s`;

/** Show an error of the endpoint. `retry` is a function that repeats the request. */
export function fail(error, retry) {
  if (error.status === 401) update({ locked: true });
  setStatus(error.message, true, retry);
}

/** Return a description of an object's mask. */
export function describe({ mask, candidates, chosen }) {
  const score = candidates[chosen] ? `, score ${candidates[chosen].score.toFixed(2)}` : "";
  return `${mask.area.toLocaleString()} pixels${score}`;
}

/** Display the candidate mask with this index. */
export function choose(chosen) {
  const { imageId } = get();
  const active = activeObject();
  if (!(chosen < active?.candidates.length) || active.candidates.length < 2) return;
  const mask = edited(active.candidates[chosen].mask, active.edits);
  update({ project: changeObject(get().project, imageId, active.id, { chosen, mask }) });
  setStatus(`Candidate ${chosen + 1}: ${describe(activeObject())}`);
}

/** Display the next candidate mask. */
export const chooseNext = () => {
  const active = activeObject();
  if (active?.candidates.length > 1) choose((active.chosen + 1) % active.candidates.length);
};
