import assert from "node:assert/strict";
import test from "node:test";
import { strokeRuns } from "../../../../scoring/online/page/masks/stroke.js";
import { maskOf } from "../../../../scoring/online/page/masks/runs.js";
import { addClass, addObject, EMPTY, objectsOf } from "../../../../scoring/online/page/project/project.js";
import { acceptProposal, conceptsFor, scoreOf, shownOf, sortedProposals, textsOf, thresholdRange } from "../../../../scoring/online/page/project/proposals.js";
import { colourOf, shownMasks } from "../../../../scoring/online/page/view/styles.js";

const SIZE = [60, 80];
const mask = maskOf(strokeRuns([[20, 20]], 5, SIZE), SIZE);
const CUP = { name: "cup", colour: "#112233" }, SPOON = { name: "spoon", colour: "#445566" };
const proposal = (id, score, concept = null) => ({ id, classId: "class-1", proposal: true, concept, mask, candidates: [{ mask, score }] });
const PROJECT = [proposal("1", 0.5, SPOON), proposal("2", 0.25, CUP), proposal("3", 0.9, CUP), { id: "4", classId: "class-1", mask }].reduce((project, object) => addObject(project, "a", object), EMPTY);
const idsOf = (objects) => objects.map(({ id }) => id).join("");

test("a threshold hides proposals with lower scores, and no objects", () => {
  assert.equal(idsOf(shownOf(PROJECT, "a", 0)), "1234");
  assert.equal(idsOf(shownOf(PROJECT, "a", 0.5)), "134");
  assert.equal(idsOf(shownOf(PROJECT, "a", 0.91)), "4");
  assert.equal(shownMasks({ project: PROJECT, imageId: "a", active: null, opacity: 0.5, stroke: null, thresholds: { a: 0.91 }, classId: "class-1", colourBy: "class" }).length, 1);
});

test("proposals are sorted by concept and by falling score", () => {
  assert.equal(idsOf(sortedProposals(objectsOf(PROJECT, "a"))), "321");
  assert.deepEqual(thresholdRange(sortedProposals(objectsOf(PROJECT, "a"))), [0.25, 0.9]);
  assert.deepEqual(thresholdRange([]), [0, 1]);
  assert.equal(scoreOf(objectsOf(PROJECT, "a")[3]), 1);
});

test("an accepted proposal gets the class of its concept, and others the current class", () => {
  const other = addObject(PROJECT, "a", proposal("5", 0.7));
  const accepted = acceptProposal(other, "a", ["1", "3", "5", "4"], "class-1");
  const classOf = (id) => accepted.classes.find((each) => each.id === objectsOf(accepted, "a").find((object) => object.id === id).classId);
  assert.deepEqual(accepted.classes.map(({ name }) => name), ["object", "spoon", "cup"]);
  assert.equal(classOf("1").name, "spoon");
  assert.equal(classOf("3").name, "cup");
  assert.equal(classOf("3").colour, CUP.colour);
  assert.equal(classOf("5").name, "object");
  assert.equal(idsOf(sortedProposals(objectsOf(accepted, "a"))), "2");
  const { project, added } = addClass(PROJECT, "cup");
  assert.equal(objectsOf(acceptProposal(project, "a", ["3"], "class-1"), "a")[2].classId, added.id);
});

test("concepts have the colours of classes with their names, or new ones", () => {
  const { project, added } = addClass(EMPTY, "cup", "#aabbcc");
  const concepts = conceptsFor(project, ["spoon", "cup", "spoon", "fork"]);
  assert.deepEqual([...concepts.keys()], ["spoon", "cup", "fork"]);
  assert.equal(concepts.get("cup").colour, added.colour);
  assert.equal(new Set([...concepts.values()].map(({ colour }) => colour)).size, 3);
  assert.equal(colourOf(proposal("1", 1, concepts.get("fork")), { project, colourBy: "class", imageId: "a" }), concepts.get("fork").colour);
});

test("a typed list is split into texts", () => {
  assert.deepEqual(textsOf(" cup, coffee spoon;cup ,, "), ["cup", "coffee spoon"]);
  assert.deepEqual(textsOf(" , "), []);
});
