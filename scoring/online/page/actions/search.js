// The actions that ask the endpoint for several objects: everything, objects like one, objects that fit a text.

import { isUploaded, listModels, score } from "../endpoint/api.js";
import { modelOf, noTextNote, thresholdsOf } from "../endpoint/models.js";
import { requestForEverything, requestForSimilar, requestForTexts, sizeProblem } from "../endpoint/requests.js";
import { endsOf, iou } from "../masks/runs.js";
import { addObject, finished, newId, objectsOf, withObjects } from "../project/project.js";
import { conceptsFor, textsOf } from "../project/proposals.js";
import { activeObject, commit, get, setStatus, shownProposals, update } from "../state.js";
import { cornersOf, fail, seconds, toCandidate } from "./segment.js";

const SAME_OBJECT = 0.8; // a proposal whose IoU with an object is larger is that object, and is not proposed
let searching = 0; // number of the latest search

/** Find all objects in the image, and propose those that are not labelled yet. */
export const everything = () => propose("Searching for all objects …", requestForEverything(), 0, everything);

/** Find the objects that look like the active object, and propose those that are not labelled yet. */
export async function similar() {
  const { mask } = activeObject() ?? {};
  if (!mask?.area) return setStatus("Select an object first. Then search for objects that look like it.");
  const { exemplar_thresh: threshold } = await thresholds();
  return propose("Searching for objects like the selected one …", requestForSimilar(cornersOf(mask.bbox), threshold), threshold, similar);
}

/** Find the objects that fit what the user has typed, such as "cup, spoon", and propose those that are not labelled yet. */
export async function findTexts(typed) {
  const texts = textsOf(typed);
  if (!texts.length) return setStatus("Type what to find, for example: cup, spoon.", true);
  const { concept_thresh: threshold } = await thresholds();
  const note = noTextNote(get().models, get().model);
  if (note) return setStatus(note, true);
  return propose(`Searching for ${texts.join(", ")} …`, requestForTexts(texts, threshold), threshold, () => findTexts(typed));
}

/** Return the thresholds of the selected model. The list of models is loaded again if the model was not loaded at first. */
async function thresholds() {
  const { key, model } = get();
  if (!modelOf(get().models, model)?.thresholds) {
    const models = await listModels(key).catch(() => null);
    if (models) update({ models });
  }
  return thresholdsOf(get().models, model);
}

/**
 * Send a request for several objects, and show them as proposals. `threshold` is the score from which they are shown at
 * first. `retry` repeats the search.
 */
async function propose(text, content, threshold, retry) {
  const { picture, model, key, imageId, classId } = get();
  if (!picture) return;
  const request = ++searching;
  update({ corner: null, draft: null, hover: null });
  setStatus(isUploaded(picture, model) ? text : `Uploading the image. ${text}`);
  const begin = performance.now();
  try {
    const { predictions, model: answered } = await score(picture, model, key, content);
    if (request !== searching) return;
    const masks = predictions.map((prediction) => prediction.mask_per_prediction[0]);
    const problem = sizeProblem(masks, picture);
    if (problem) return setStatus(problem, true);
    const { project } = get();
    if (!project.images.some(({ id }) => id === imageId)) return;
    const known = finished(project, imageId).map(({ mask }) => endsOf(mask));
    const concepts = conceptsFor(project, predictions.flatMap(({ concept }) => concept ?? []));
    const found = masks.map((mask, i) => ({ ...toCandidate(mask), concept: concepts.get(predictions[i].concept) ?? null }));
    const candidates = found.filter(({ mask }) => mask.area).sort((a, b) => b.mask.area - a.mask.area);
    const fresh = candidates.filter(({ mask }) => !known.some((other) => iou(other, endsOf(mask)) > SAME_OBJECT));
    const proposals = fresh.map(({ mask, score: value, concept }) => ({ id: newId(), classId, proposal: true, concept, mask, candidates: [{ mask, score: value }], model: answered }));
    const kept = objectsOf(project, imageId).filter(({ proposal }) => !proposal);
    const next = proposals.reduce((result, proposal) => addObject(result, imageId, proposal), withObjects(project, imageId, kept));
    commit(next, { thresholds: { ...get().thresholds, [imageId]: threshold }, ...(get().imageId === imageId ? { active: null } : {}) });
    const skipped = candidates.filter(({ score: value }) => value >= threshold).length - fresh.filter(({ score: value }) => value >= threshold).length;
    setStatus(`${describeFound(get().imageId === imageId ? shownProposals().length : proposals.length, proposals.length)}, ${seconds(begin)}.${skipped ? ` ${skipped} more ${skipped === 1 ? "is" : "are"} labelled already.` : ""}${proposals.length ? " Click on a proposal to accept it, or accept all." : ""}`);
  } catch (error) {
    if (request === searching) fail(error, retry);
  }
}

function describeFound(shown, all) {
  const rest = all - shown;
  if (!all) return "No object found";
  return `${shown} object${shown === 1 ? "" : "s"}${rest ? ` (${rest} more with lower scores)` : ""}`;
}
