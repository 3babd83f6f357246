// Convert masks to polygons and polygons to masks. Pure.

import { outlinesOf } from "./outline.js";
import { fromColumns } from "./runs.js";

/**
 * Return the polygons of a mask: a list of lists of corners [x, y], one for each connected part.
 *
 * Holes are joined to the outline by a line that runs there and back, so that one polygon describes a part with its holes.
 * With `single`, all parts are joined to one polygon in the same way. `tolerance` is the largest distance in pixels by
 * which the polygons may differ from the outline; with 0 they are exact.
 */
export function polygonsOf(runs, size, { tolerance = 0, single = false } = {}) {
  const polygons = outlinesOf(runs, size)
    .filter(({ outer }) => outer)
    .map(({ outer, holes }) => holes.map((hole) => simplify(hole, tolerance)).reduce(join, simplify(outer, tolerance)));
  return single && polygons.length ? [polygons.reduce(join)] : polygons;
}

/** Insert the closed line `inner` into the closed line `outer`, by a line from the nearest corner of `outer` and back. */
function join(outer, inner) {
  const start = inner.reduce((best, corner, i) => (corner[0] < inner[best][0] ? i : best), 0);
  const distance = ([x, y]) => (x - inner[start][0]) ** 2 + (y - inner[start][1]) ** 2;
  const at = outer.reduce((best, corner, i) => (distance(corner) < distance(outer[best]) ? i : best), 0);
  return [...outer.slice(0, at + 1), ...inner.slice(start), ...inner.slice(0, start + 1), ...outer.slice(at)];
}

/** Leave out corners of a closed line while it stays within `tolerance` pixels (the Douglas-Peucker algorithm). */
export function simplify(corners, tolerance) {
  if (!tolerance || corners.length < 5) return corners;
  const far = corners.reduce((best, corner, i) => (Math.hypot(corner[0] - corners[0][0], corner[1] - corners[0][1]) > Math.hypot(corners[best][0] - corners[0][0], corners[best][1] - corners[0][1]) ? i : best), 0);
  const closed = [...corners, corners[0]];
  const kept = new Set([0, far]);
  for (const pending = [[0, far], [far, corners.length]]; pending.length; ) {
    const [from, to] = pending.pop();
    let [most, at] = [tolerance, -1];
    for (let i = from + 1; i < to; i++) {
      const off = distanceToLine(closed[i], closed[from], closed[to]);
      if (off > most) [most, at] = [off, i];
    }
    if (at < 0) continue;
    kept.add(at);
    pending.push([from, at], [at, to]);
  }
  const rest = [...kept].sort((a, b) => a - b).map((i) => corners[i]);
  return rest.length > 2 ? rest : corners;
}

function distanceToLine([x, y], [ax, ay], [bx, by]) {
  const length = Math.hypot(bx - ax, by - ay);
  return length ? Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length : Math.hypot(x - ax, y - ay);
}

/**
 * Return the runs of the pixels whose centres are inside any of the polygons, each a list of corners [x, y].
 *
 * Within one polygon, areas that the line encloses twice are outside (the even-odd rule).
 */
export function polygonRuns(polygons, size) {
  const columns = new Map();
  for (const corners of polygons) {
    const crossings = new Map();
    corners.forEach((from, i) => addCrossings(crossings, from, corners[(i + 1) % corners.length], size[1]));
    for (const [x, ys] of crossings) {
      ys.sort((a, b) => a - b);
      if (!columns.has(x)) columns.set(x, []);
      for (let i = 0; i + 1 < ys.length; i += 2) columns.get(x).push([Math.ceil(ys[i] - 0.5), Math.ceil(ys[i + 1] - 0.5)]);
    }
  }
  return fromColumns(columns, size);
}

function addCrossings(crossings, from, to, width) {
  const [[x1, y1], [x2, y2]] = from[0] < to[0] ? [from, to] : [to, from];
  const last = Math.min(width, Math.ceil(x2 - 0.5));
  for (let x = Math.max(0, Math.ceil(x1 - 0.5)); x < last; x++) {
    if (!crossings.has(x)) crossings.set(x, []);
    crossings.get(x).push(y1 + ((x + 0.5 - x1) / (x2 - x1)) * (y2 - y1));
  }
}
