// Choose the masks to draw, and their colours. Pure.

import { painted } from "../masks/stroke.js";
import { PALETTE, rgb } from "../project/palette.js";
import { objectsOf, objectWith } from "../project/project.js";
import { shownOf } from "../project/proposals.js";

const WHITE = [255, 255, 255];
const NEW = "new"; // id of the object that a stroke makes

/** Return the colour of an object, such as "#0072b2": of its class or its concept, or a separate colour for each object. */
export function colourOf({ classId, id, proposal, concept }, { project, colourBy, imageId }) {
  if (colourBy === "class" && proposal && concept) return concept.colour;
  if (colourBy === "class") return project.classes.find((other) => other.id === classId)?.colour ?? PALETTE[0];
  return PALETTE[Math.max(0, objectsOf(project, imageId).findIndex((object) => object.id === id)) % PALETTE.length];
}

/**
 * Return the masks that the canvas shows, a list of {mask, style} from the bottom to the top.
 *
 * The active object has a white outline, and proposals a dashed one. A stroke that is being painted is part of its object.
 */
export function shownMasks(state) {
  const { project, imageId, active, opacity, stroke, picture, classId, thresholds } = state;
  const size = picture && [picture.height, picture.width];
  const objects = shownOf(project, imageId, thresholds[imageId]);
  if (stroke && !stroke.erases && !objectWith(project, imageId, active)) objects.push({ id: NEW, classId, mask: null });
  return objects.flatMap((object) => {
    const isActive = object.id === active || object.id === NEW;
    const mask = stroke && isActive ? painted(object, stroke, size).mask : object.mask;
    if (!mask?.area || (object.hidden && !isActive)) return [];
    const colour = rgb(colourOf(object, state));
    const style = { fill: colour, line: isActive ? WHITE : colour, opacity: object.proposal && !isActive ? opacity / 2 : opacity, dashed: Boolean(object.proposal) };
    return [{ mask, style }];
  });
}

/** Return the preview of the mask under the pointer, as a list of at most one {mask, style}. */
export function previewMasks({ hover, opacity, project, classId }) {
  if (!hover) return [];
  const colour = rgb(project.classes.find(({ id }) => id === classId)?.colour ?? PALETTE[0]);
  return [{ mask: hover.mask, style: { fill: colour, line: WHITE, opacity: opacity * 0.6, dashed: true } }];
}
