// The actions on objects and prompts: click, box, undo, delete. Each click shows its mask at once.

import { score } from "../endpoint/api.js";
import { bestOf, requestFor } from "../endpoint/requests.js";
import { decodeRuns } from "../masks/rle.js";
import { contains, endsOf, maskOf, resizeRuns } from "../masks/runs.js";
import { boxBetween } from "../view/geometry.js";
import { fail } from "./errors.js";
import { changeEverywhere, commit, get, setStatus, update } from "./state.js";
import { addObject, promptAt, trackAt, withClickAnswer, withoutObject, withPrompt } from "./tracks.js";

// Prompt -> {model, logits}: the requested model, and the logits of the answer. Each click makes a new prompt, and undo restores
// the earlier one, so a prompt also tells which versions an answer belongs to.
const answers = new WeakMap();

/** Return the topmost visible object at a pixel of the shown frame, or undefined. */
export const objectAt = (point) =>
  get().objects.findLast(({ id, hidden }) => {
    const { mask } = trackAt(get(), get().frame, id) ?? {};
    return !hidden && mask && contains(endsOf(mask), mask.size, point);
  });

/** Add a point to the active object on the shown frame, or start a new object with it. */
export function addPoint(point, positive) {
  const { clip, frame, active } = get();
  if (!clip) return;
  if (!positive && !active) return setStatus("Select an object first. Then subtract what does not belong to it.");
  const { points, labels, box } = promptAt(get(), frame, active) ?? firstPrompt(frame, active);
  send(active, { points: [...points, point], labels: [...labels, positive ? 1 : 0], box });
}

// The first click on a tracked mask refines this mask: the prompt begins with its box.
function firstPrompt(frame, id) {
  const { mask } = trackAt(get(), frame, id) ?? {};
  const [x, y, width, height] = mask?.bbox ?? [];
  return { points: [], labels: [], box: mask?.area ? [x, y, x + width, y + height] : null };
}

/** Select the active object by a box on the shown frame, or start a new object with it. */
export function addBox(from, to) {
  const box = boxBetween(from, to);
  update({ draft: null, corner: null });
  if (box && get().clip) send(get().active, { points: [], labels: [], box });
}

/** Start a box at its first corner, or complete it at the opposite corner. */
export function addCorner(point) {
  const { corner } = get();
  if (corner) return addBox(corner, point);
  update({ corner: point });
  setStatus("Move the crosshair to the opposite corner and press B again.");
}

async function send(known, prompt) {
  const { clip, frame, model, key } = get();
  const added = known ? { objects: get().objects, id: known } : addObject(get());
  const { objects, id } = added;
  const before = answers.get(promptAt(get(), frame, id));
  const logits = prompt.points.length > 1 && before?.model === model ? before.logits : undefined;
  commit({ objects, ...withPrompt(get(), frame, id, prompt, trackAt(get(), frame, id)) }, { active: id, playing: false });
  setStatus("Segmenting …");
  const { blob } = clip.frames[frame];
  try {
    const { width, height } = await sizeOf(blob);
    const picture = { id: `${clip.id}/${frame}`, blob };
    const { predictions } = await score(picture, model, key, requestFor(scaled(prompt, width / clip.size[1], height / clip.size[0]), logits));
    const masks = predictions[0].mask_per_prediction;
    const best = masks[bestOf(masks)];
    const ends = resizeRuns(decodeRuns(best.encoded_binary_mask, best.size), best.size, clip.size);
    answers.set(prompt, { model, logits: best.low_res_logits });
    const track = { mask: maskOf(ends, clip.size), score: Number(best.iou_score.toFixed(6)) };
    changeEverywhere((version) => ({ tracks: withClickAnswer(version, frame, id, prompt, track) }));
    if (promptAt(get(), frame, id) !== prompt) return; // there are later clicks, or the click is undone
    setStatus(track.mask.area ? `Object ${id} on frame ${frame}: ${track.mask.area.toLocaleString()} pixels. Add clicks, or press T to track.` : "Nothing is selected there. Undo the click, or add others.");
  } catch (error) {
    fail(error);
  }
}

async function sizeOf(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  bitmap.close();
  return { width, height };
}

const scaled = ({ points, labels, box }, x, y) => ({
  points: points.map((point) => [point[0] * x, point[1] * y]), labels, box: box && [box[0] * x, box[1] * y, box[2] * x, box[3] * y],
});

/** Make an object active. With null, the next click starts a new object. */
export function select(id) {
  update({ active: id, corner: null, draft: null });
  setStatus(id ? `Object ${id} is selected. Clicks on any frame correct it.` : "Click on the next object.");
}

/** Delete an object on all frames. */
export function remove(id = get().active) {
  if (!get().objects.some((object) => object.id === id)) return;
  commit(withoutObject(get(), id), { active: get().active === id ? null : get().active });
  setStatus(`Object ${id} is deleted.`);
}

/** Remove the clicks and the mask of the active object from the shown frame. */
export function clearFrame() {
  const { frame, active } = get();
  if (!active || !(promptAt(get(), frame, active) || trackAt(get(), frame, active))) return;
  commit(withPrompt(get(), frame, active, null, null));
  setStatus(`Object ${active} has no mask on frame ${frame} any more.`);
}

/** Hide or show an object in the view. Hidden objects are tracked and saved, too. Undo does not undo this change. */
export const setHidden = (id, hidden) => changeEverywhere(({ objects }) => ({ objects: objects.map((object) => (object.id === id ? { ...object, hidden } : object)) }));

/** Undo the latest change. */
export function undo() {
  const { past, active, running } = get();
  if (running) return setStatus("Stop tracking first.");
  const before = past.at(-1);
  if (!before) return setStatus("There is nothing to undo.");
  update({ ...before, past: past.slice(0, -1), active: before.objects.some(({ id }) => id === active) ? active : null, saved: false });
  setStatus("Undone.");
}
