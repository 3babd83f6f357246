// Proposals: objects that a search has found, and that the user has not accepted yet. Pure.
//
// A proposal of a search by text has a `concept`, {name, colour}. When it is accepted, it gets the class with this name.

import { addClass, changeObject, objectsOf, objectWith } from "./project.js";
import { nextColour } from "./palette.js";

/** Return the score of an object's mask, or 1 if the mask has no score. */
export const scoreOf = ({ candidates, chosen }) => candidates[chosen]?.score ?? 1;

/** Return the objects of an image without the proposals whose score is below a threshold, from the bottom to the top. */
export const shownOf = (project, imageId, threshold = 0) => objectsOf(project, imageId).filter((object) => !object.proposal || scoreOf(object) >= threshold);

/** Return the proposals among objects, sorted by concept and then by falling score. */
export function sortedProposals(objects) {
  const proposals = objects.filter(({ proposal }) => proposal);
  return proposals.sort((a, b) => (a.concept?.name ?? "").localeCompare(b.concept?.name ?? "") || scoreOf(b) - scoreOf(a));
}

/** Return the lowest and the highest threshold of interest for proposals, [low, high], in hundredths. */
export function thresholdRange(proposals) {
  const scores = proposals.map(scoreOf);
  return scores.length ? [Math.floor(100 * Math.min(...scores)) / 100, Math.ceil(100 * Math.max(...scores)) / 100] : [0, 1];
}

/** Return the project with objects accepted: each gets the class of its concept, or else the class `classId`. */
export function acceptProposal(project, imageId, ids, classId) {
  return ids.reduce((result, id) => {
    const object = objectWith(result, imageId, id);
    if (!object?.proposal) return result;
    if (!object.concept) return changeObject(result, imageId, id, { proposal: false, classId });
    const { project: next, added } = addClass(result, object.concept.name, object.concept.colour);
    return changeObject(next, imageId, id, { proposal: false, classId: added.id });
  }, project);
}

/** Return a Map from each name to a concept {name, colour}. A name that a class has already gets the colour of the class. */
export function conceptsFor(project, names) {
  const concepts = new Map();
  const used = project.classes.map(({ colour }) => colour);
  for (const name of new Set(names)) {
    const colour = project.classes.find((other) => other.name === name)?.colour ?? nextColour(used);
    used.push(colour);
    concepts.set(name, Object.freeze({ name, colour }));
  }
  return concepts;
}

/** Return the texts in what the user has typed: "cup, spoon" is two texts. */
export const textsOf = (typed) => [...new Set(typed.split(/[,;\n]/).map((text) => text.trim()).filter(Boolean))];
