import assert from "node:assert/strict";
import test from "node:test";
import { strokeRuns } from "../../../../scoring/online/page/masks/stroke.js";
import { maskOf } from "../../../../scoring/online/page/masks/runs.js";
import { back, forward, mapProjects, NO_HISTORY, record } from "../../../../scoring/online/page/project/history.js";
import { mergeLabels } from "../../../../scoring/online/page/project/merge.js";
import { nextColour, PALETTE, rgb } from "../../../../scoring/online/page/project/palette.js";
import * as projects from "../../../../scoring/online/page/project/project.js";
import { shownMasks } from "../../../../scoring/online/page/view/styles.js";

const SIZE = [60, 80];
const disc = (x, y, radius = 5) => maskOf(strokeRuns([[x, y]], radius, SIZE), SIZE);
const image = (id, name = `${id}.png`) => ({ id, name, width: 80, height: 60, done: false, missing: false });
const withDiscs = (...ids) => ids.reduce((project, id, i) => projects.addObject(project, "a", { id, classId: "class-1", mask: disc(10 + 15 * i, 20) }), { ...projects.EMPTY, images: [image("a"), image("b")] });

test("objects are added, moved, merged and removed in copies", () => {
  const project = withDiscs("1", "2", "3");
  const ids = (other) => projects.objectsOf(other, "a").map(({ id }) => id).join("");
  assert.equal(ids(project), "123");
  assert.equal(ids(projects.moveObject(project, "a", "1", 1)), "213");
  assert.equal(ids(projects.moveObject(project, "a", "1", -1)), "123");
  assert.equal(ids(projects.moveObject(project, "a", "3", -9)), "312");
  assert.equal(ids(projects.removeObjects(project, "a", ["2"])), "13");
  const merged = projects.mergeObjects(project, "a", ["3", "1"]);
  assert.equal(ids(merged), "23");
  assert.equal(projects.objectWith(merged, "a", "3").mask.area, 2 * disc(10, 20).area);
  assert.equal(projects.mergeObjects(project, "a", ["3"]), project);
  assert.equal(ids(project), "123");
});

test("an object without a mask and a proposal do not belong to the data set", () => {
  let project = withDiscs("1", "2", "3");
  project = projects.changeObject(project, "a", "1", { mask: null });
  project = projects.changeObject(project, "a", "2", { proposal: true });
  assert.deepEqual(projects.finished(project, "a").map(({ id }) => id), ["3"]);
  assert.deepEqual(projects.progressOf(project), { labelled: 1, total: 2 });
  assert.deepEqual(projects.progressOf(projects.changeImage(project, "b", { done: true })), { labelled: 2, total: 2 });
});

test("classes have different colours, and a class with objects is not deleted", () => {
  let { project, added } = projects.addClass(withDiscs("1"), "coin");
  assert.notEqual(added.colour, project.classes[0].colour);
  assert.equal(projects.addClass(project, "coin").added, added);
  assert.equal(projects.removeClass(project, "class-1"), project);
  assert.deepEqual(projects.removeClass(project, added.id).classes.map(({ name }) => name), ["object"]);
  assert.equal(projects.removeClass(projects.EMPTY, "class-1"), projects.EMPTY);
  assert.equal(nextColour(PALETTE), PALETTE[0]);
  assert.equal(new Set(PALETTE).size, PALETTE.length);
  assert.deepEqual(rgb("#0072b2"), [0, 114, 178]);
});

test("undo and redo go through all objects, and a new change ends redo", () => {
  const entry = (project) => ({ project, imageId: "a", active: null });
  let history = record(record(NO_HISTORY, entry("one")), entry("two"));
  let step = back(history, entry("three"));
  assert.equal(step.entry.project, "two");
  step = back(step.history, step.entry);
  assert.equal(step.entry.project, "one");
  assert.equal(back(step.history, step.entry).entry, null);
  step = forward(step.history, step.entry);
  assert.equal(step.entry.project, "two");
  step = forward(step.history, step.entry);
  assert.equal(step.entry.project, "three");
  assert.equal(forward(step.history, step.entry).entry, null);
  assert.deepEqual(record(back(history, entry("three")).history, entry("other")).future, []);
  assert.deepEqual(mapProjects(history, (name) => name.toUpperCase()).past.map(({ project }) => project), ["ONE", "TWO"]);
});

const LABELS = { classes: [{ name: "coin", colour: "#e69f00" }], images: [{ name: "a.png", width: 80, height: 60, objects: [{ label: "coin", mask: disc(40, 40) }] }] };

test("labels are imported once, with their classes", () => {
  const project = { ...projects.EMPTY, images: [image("a")] };
  const first = mergeLabels(project, LABELS);
  assert.deepEqual([first.added, first.repeated, first.missing, first.misfits], [1, 0, [], []]);
  assert.deepEqual(first.project.classes.map(({ name, colour }) => [name, colour]), [["coin", "#e69f00"]]);
  const again = mergeLabels(first.project, LABELS);
  assert.deepEqual([again.added, again.repeated], [0, 1]);
  assert.deepEqual(mergeLabels(withDiscs("1"), LABELS).project.classes.map(({ name }) => name), ["object", "coin"]);
});

test("labels of images that are not here wait for them, and labels of another size are left out", () => {
  const waiting = mergeLabels(projects.EMPTY, LABELS);
  assert.deepEqual(waiting.missing, ["a.png"]);
  assert.deepEqual(waiting.project.images.map(({ name, width, height, missing }) => [name, width, height, missing]), [["a.png", 80, 60, true]]);
  assert.equal(projects.finished(waiting.project, waiting.project.images[0].id).length, 1);
  const other = mergeLabels({ ...projects.EMPTY, images: [{ ...image("a"), width: 81 }] }, LABELS);
  assert.deepEqual([other.added, other.misfits], [0, ["a.png"]]);
});

test("hidden objects are not drawn, the active one is white, and a stroke is drawn at once", () => {
  const project = projects.changeObject(withDiscs("1", "2"), "a", "1", { hidden: true });
  const state = { project, imageId: "a", active: "2", opacity: 0.5, colourBy: "class", stroke: null, picture: { width: 80, height: 60 }, classId: "class-1", thresholds: {} };
  const shown = shownMasks(state);
  assert.deepEqual(shown.map(({ style }) => style.line), [[255, 255, 255]]);
  const painting = shownMasks({ ...state, stroke: { points: [[70, 50]], erases: false, radius: 3 } });
  assert.ok(painting[0].mask.area > shown[0].mask.area);
  assert.equal(shownMasks({ ...state, active: null, stroke: { points: [[70, 50]], erases: false, radius: 3 } }).length, 2);
});
