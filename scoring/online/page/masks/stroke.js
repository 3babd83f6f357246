// Convert strokes of the brush and the eraser to runs, and apply them to masks. Pure.

import { emptyRuns, endsOf, fromColumns, maskOf, subtract, union } from "./runs.js";

/**
 * Return the runs of the pixels whose centres are covered by a round brush that moves along `points`.
 *
 * `points` are [x, y] in pixels of the image, where 0 is the edge of the first pixel. A single point paints a disc.
 */
export function strokeRuns(points, radius, size) {
  const columns = new Map();
  for (let i = 0; i < points.length; i++) addCapsule(columns, points[Math.max(0, i - 1)], points[i], radius, size[1]);
  return fromColumns(columns, size);
}

// A capsule is the area that a disc covers while it moves from p to q. It is convex, so each column has one interval.
function addCapsule(columns, p, q, radius, width) {
  const [dx, dy] = [q[0] - p[0], q[1] - p[1]];
  const distance = Math.hypot(dx, dy);
  const first = Math.max(0, Math.ceil(Math.min(p[0], q[0]) - radius - 0.5));
  const last = Math.min(width - 1, Math.floor(Math.max(p[0], q[0]) + radius - 0.5));
  for (let x = first; x <= last; x++) {
    const centre = x + 0.5;
    let [low, high] = [Infinity, -Infinity];
    const include = (y) => ([low, high] = [Math.min(low, y), Math.max(high, y)]);
    for (const [cx, cy] of [p, q]) {
      const square = radius ** 2 - (centre - cx) ** 2;
      if (square < 0) continue;
      include(cy - Math.sqrt(square));
      include(cy + Math.sqrt(square));
    }
    for (const side of distance && dx ? [-1, 1] : []) {
      const along = (centre - p[0] - (side * -dy * radius) / distance) / dx; // on the straight edge of the capsule, which is parallel to the line from p to q
      if (along >= 0 && along <= 1) include(p[1] + along * dy + (side * dx * radius) / distance);
    }
    const [begin, end] = [Math.ceil(low - 0.5), Math.floor(high - 0.5) + 1];
    if (!(end > begin)) continue;
    if (!columns.has(x)) columns.set(x, []);
    columns.get(x).push([begin, end]);
  }
}

/**
 * Return the corrections of an object after a stroke. `edits` is {plus, minus}: the runs that the user has painted and
 * erased, or null. Corrections survive later clicks, because they are applied to each new mask of the model.
 */
export function addStroke(edits, stroke, erases, size) {
  const { plus, minus } = edits ?? { plus: emptyRuns(size), minus: emptyRuns(size) };
  return erases ? { plus: subtract(plus, stroke), minus: union(minus, stroke) } : { plus: union(plus, stroke), minus: subtract(minus, stroke) };
}

/** Return the runs of a mask with the corrections applied. */
export const applyEdits = (ends, edits) => (edits ? subtract(union(ends, edits.plus), edits.minus) : ends);

/** Return the mask and the corrections of an object with a stroke {points, erases, radius}. Without an object: a new mask. */
export function painted(object, { points, erases, radius }, size) {
  const stroke = strokeRuns(points, radius, size);
  const edits = addStroke(object?.edits, stroke, erases, size);
  const base = object?.mask ? endsOf(object.mask) : emptyRuns(size);
  return { edits, mask: maskOf(applyEdits(base, edits), size) };
}
