// The actions on objects and classes: select, accept, hide, delete, merge, reorder, paint, undo and redo.

import { divide } from "../masks/components.js";
import { endsOf, maskOf } from "../masks/runs.js";
import { addStroke, applyEdits, painted } from "../masks/stroke.js";
import { back, forward } from "../project/history.js";
import {
  addClass, addObject, changeClass, changeObject, countOfClass, mergeObjects, moveObject, newId, objectsOf, objectWith, removeClass, removeObjects,
} from "../project/project.js";
import { acceptProposal, scoreOf } from "../project/proposals.js";
import { activeObject, commit, commitEverywhere, entryNow, get, setStatus, shownObjects, shownProposals, update } from "../state.js";
import { openStored } from "./images.js";

const CLEAN = 0.02; // parts smaller than this fraction of an object are removed, and holes smaller than that are filled

/** Make an object active. Clicks and strokes change the active object. With null, no object is active. */
export function select(id) {
  const object = objectWith(get().project, get().imageId, id);
  update({ active: object ? id : null, hover: null, corner: null, draft: null, ...(object && !object.proposal ? { classId: object.classId } : {}) });
  if (object) setStatus(describeSelected(object));
}

function describeSelected({ id, mask, proposal, concept, ...object }) {
  if (proposal) return `A proposal is selected: ${concept ? `${concept.name}, ` : ""}${mask.area.toLocaleString()} pixels, score ${scoreOf(object).toFixed(2)}. Press Y to accept it.`;
  const number = shownObjects().filter((other) => !other.proposal).findIndex((other) => other.id === id) + 1;
  return mask ? `Object ${number} is selected: ${mask.area.toLocaleString()} pixels.` : `Object ${number} has no mask yet.`;
}

/** Finish the active object. The next click starts a new one. */
export function finish() {
  update({ active: null, corner: null, draft: null, hover: null });
  setStatus("Click on the next object.");
}

/** Make the next or the previous object of the list active. */
export function step(by) {
  const objects = shownObjects();
  if (!objects.length) return;
  const at = objects.findIndex(({ id }) => id === get().active);
  select(objects[at < 0 ? (by > 0 ? 0 : objects.length - 1) : (at + by + objects.length) % objects.length].id);
}

/** Accept proposals as objects of the class of their concept, or of the current class. */
export function accept(ids) {
  const { project, imageId, classId } = get();
  commit(acceptProposal(project, imageId, ids, classId), { active: null });
  const rest = proposals().length;
  setStatus(`${ids.length} accepted. ${rest ? `${rest} proposal${rest === 1 ? " is" : "s are"} left.` : "No proposal is left."}`);
}

const proposals = () => shownProposals().map(({ id }) => id);

export const acceptAll = () => proposals().length && accept(proposals());

/** Accept the active proposal, or select the first proposal. The next proposal becomes active. */
export function acceptNext() {
  const waiting = proposals();
  if (!waiting.length) return setStatus("There is no proposal. Press E to search for all objects.");
  const at = waiting.indexOf(get().active);
  if (at < 0) return select(waiting[0]);
  accept([waiting[at]]);
  const next = waiting[at + 1] ?? waiting[0];
  if (next !== waiting[at]) update({ active: next });
}

/** Show the proposals of the open image whose score is at least a threshold, and hide the others. */
export function setThreshold(threshold) {
  const { thresholds, imageId } = get();
  update({ thresholds: { ...thresholds, [imageId]: threshold } });
  if (get().active && !shownObjects().some(({ id }) => id === get().active)) update({ active: null });
}

/** Remove all proposals, also those below the threshold. */
export function discardProposals() {
  const { project, imageId } = get();
  const ids = objectsOf(project, imageId).filter(({ proposal }) => proposal).map(({ id }) => id);
  commit(removeObjects(project, imageId, ids), { active: null });
  setStatus("The proposals are removed.");
}

/** Delete objects: those given, or the active one. */
export function remove(ids = [get().active]) {
  const { project, imageId, active, marked } = get();
  const objects = shownObjects().filter(({ id }) => ids.includes(id));
  if (!objects.length) return;
  commit(removeObjects(project, imageId, ids), { active: ids.includes(active) ? null : active, marked: marked.filter((id) => !ids.includes(id)), corner: null, draft: null, hover: null });
  setStatus(`${objects.length === 1 ? "The object is" : `${objects.length} objects are`} deleted. Click on an object.`);
}

/** Cancel a box or a stroke that is not complete. If there is none, finish the active object. */
export function escape() {
  const { corner, draft, stroke } = get();
  if (corner || draft || stroke) update({ corner: null, draft: null, stroke: null });
  else finish();
}

/** Hide or show objects. Undo does not undo this change. */
export function setHidden(ids, hidden) {
  const { imageId } = get();
  commitEverywhere((project) => ids.reduce((result, id) => changeObject(result, imageId, id, { hidden }), project));
}

/** Hide all objects, or show them all if all are hidden. */
export function toggleAll() {
  const objects = shownObjects();
  setHidden(objects.map(({ id }) => id), objects.some(({ hidden }) => !hidden));
}

/** Move the active object up or down in the list. Objects further up are drawn over the others. */
export function move(steps) {
  const { project, imageId, active } = get();
  if (active) commit(moveObject(project, imageId, active, steps));
}

/** Mark an object in the list, or remove its mark. */
export const mark = (id, isMarked) => update({ marked: isMarked ? [...get().marked, id] : get().marked.filter((other) => other !== id) });

/** Join the marked objects and the active object to one. */
export function merge() {
  const { project, imageId, active, marked } = get();
  const ids = [...new Set([...(active ? [active] : []), ...marked])];
  const next = mergeObjects(project, imageId, ids);
  if (next === project) return setStatus("Mark two objects or more in the list of objects to merge them.");
  commit(next, { marked: [], active: ids.find((id) => objectWith(next, imageId, id)) });
  setStatus(`${ids.length} objects are merged.`);
}

/** Remove the specks of the active object, and fill its small holes. */
export function clean() {
  const { project, imageId } = get();
  const { id, mask, edits } = activeObject() ?? {};
  if (!mask) return;
  const { specks, holes } = divide(endsOf(mask), mask.size, Math.max(4, CLEAN * mask.area));
  const next = addStroke(addStroke(edits, specks, true, mask.size), holes, false, mask.size);
  const cleaned = maskOf(applyEdits(endsOf(mask), next), mask.size);
  if (cleaned.counts === mask.counts) return setStatus("The object has no specks or small holes.");
  commit(changeObject(project, imageId, id, { edits: next, mask: cleaned }));
  setStatus(`Cleaned: ${cleaned.area.toLocaleString()} pixels.`);
}

/** Apply the stroke that has been painted to the active object, or make it a new object. */
export function endStroke() {
  const { project, imageId, picture, stroke, classId } = get();
  update({ stroke: null });
  if (!stroke || !picture) return;
  const object = activeObject();
  if (!object && stroke.erases) return setStatus("Select an object first. Then erase what does not belong to it.");
  const changes = painted(object, stroke, [picture.height, picture.width]);
  const id = object?.id ?? newId();
  const next = object ? changeObject(acceptProposal(project, imageId, [id], object.classId), imageId, id, changes) : addObject(project, imageId, { id, classId, ...changes });
  commit(next, { active: id });
  setStatus(`${stroke.erases ? "Erased" : "Painted"}: ${changes.mask.area.toLocaleString()} pixels.`);
}

export const resizeBrush = (factor) => {
  const radius = Math.max(1, Math.min(200, get().radius * factor));
  update({ radius: factor > 1 ? Math.ceil(radius) : Math.floor(radius) });
};

/** Choose the class of new objects. The active object gets this class too. */
export function setClass(classId) {
  const { project, imageId, active } = get();
  const object = activeObject();
  if (object && object.classId !== classId) commit(changeObject(project, imageId, active, { classId }), { classId });
  else update({ classId });
  setStatus(`Class: ${project.classes.find(({ id }) => id === classId).name}.`);
}

/** Add a class, and choose it. */
export function newClass(name) {
  const { project, added } = addClass(get().project, name.trim());
  commit(project);
  setClass(added.id);
}

/** Rename a class. Two classes cannot have the same name. */
export function renameClass(id, name) {
  const { project } = get();
  const text = name.trim();
  if (!text || project.classes.some((other) => other.name === text && other.id !== id)) {
    setStatus(text ? `There is a class ${text} already.` : "A class needs a name.", true);
    return update({ project: { ...project } }); // display the old name again
  }
  commit(changeClass(project, id, { name: text }));
}

export const recolourClass = (id, colour) => commit(changeClass(get().project, id, { colour }));

/** Delete a class that no object has. */
export function deleteClass(id) {
  const { project, classId } = get();
  const count = countOfClass(project, id);
  if (count) return setStatus(`The class has ${count} object${count === 1 ? "" : "s"}. Give them another class first.`, true);
  const next = removeClass(project, id);
  if (next === project) return setStatus("The last class cannot be deleted. You can rename it.", true);
  commit(next, { classId: classId === id ? next.classes[0].id : classId });
}

/** Restore the project before the latest change, at the image where it was made. */
export const undo = () => travel(back, "Undone.");

/** Restore the project before the latest undo. */
export const redo = () => travel(forward, "Redone.");

async function travel(direction, message) {
  const { history, entry } = direction(get().history, entryNow());
  if (!entry) return setStatus(direction === back ? "There is nothing to undo." : "There is nothing to redo.");
  const { project, active, imageId } = entry;
  const classId = project.classes.some(({ id }) => id === get().classId) ? get().classId : project.classes[0].id;
  const marked = get().marked.filter((id) => objectWith(project, imageId, id));
  update({ project, history, classId, marked, corner: null, draft: null, hover: null, active: imageId === get().imageId ? active : null });
  if (imageId !== get().imageId && project.images.some(({ id }) => id === imageId)) await openStored(imageId);
  const object = activeObject();
  setStatus(object?.mask ? `${message} ${object.mask.area.toLocaleString()} pixels.` : message);
}
