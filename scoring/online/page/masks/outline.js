// Trace the outlines of a mask along the edges of its pixels. Pure.

import { components } from "./components.js";

/**
 * Return the outlines of a mask: a list of parts, each {outer, holes}. An outline is a closed list of corners [x, y] on the
 * edges of pixels, without the corners on straight lines. Filling the outlines gives the mask exactly.
 */
export function outlinesOf(runs, size) {
  const segments = components(runs, size);
  const parts = segments.areas.map(() => ({ outer: null, holes: [] }));
  for (const { corners, pixel } of loops(segments, size[0])) {
    const part = parts[segments.parts[segmentAt(segments.begins, pixel)]];
    if (signedArea(corners) > 0) part.outer = corners;
    else part.holes.push(corners);
  }
  return parts;
}

/** Return twice the area of a closed line: positive if it runs clockwise on the screen. */
export function signedArea(corners) {
  let sum = 0;
  corners.forEach(([x, y], i) => {
    const [nextX, nextY] = corners[(i + 1) % corners.length];
    sum += x * nextY - nextX * y;
  });
  return sum;
}

function segmentAt(begins, pixel) {
  let low = 0, high = begins.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (begins[middle] <= pixel) low = middle;
    else high = middle - 1;
  }
  return low;
}

// Every edge between the inside and the outside is directed so that the inside is on its right. Edges are chained to loops.
function* loops({ begins, ends }, height) {
  const next = new Map(); // corner -> the edges that start there: [corner at the end, pixel on the right]
  const key = (x, y) => x * (height + 1) + y;
  const add = (x1, y1, x2, y2, pixel) => {
    const from = key(x1, y1);
    if (!next.has(from)) next.set(from, []);
    next.get(from).push([x2, y2, pixel]);
  };
  const columns = new Map();
  begins.forEach((begin, i) => {
    const x = Math.floor(begin / height), top = begin - x * height, bottom = ends[i] - x * height;
    if (!columns.has(x)) columns.set(x, []);
    columns.get(x).push([top, bottom]);
    add(x, top, x + 1, top, begin);
    add(x + 1, bottom, x, bottom, ends[i] - 1);
  });
  for (const [x, spans] of columns) {
    for (const [a, b] of minus(spans, columns.get(x - 1) ?? [])) add(x, b, x, a, x * height + a);
    for (const [a, b] of minus(spans, columns.get(x + 1) ?? [])) add(x + 1, a, x + 1, b, x * height + a);
  }
  for (const start of next.keys()) {
    while (next.get(start).length) {
      const corners = [];
      let [x, y, pixel] = [Math.floor(start / (height + 1)), start % (height + 1), -1];
      let direction = null;
      do {
        const edges = next.get(key(x, y));
        const edge = edges.splice(edges.length > 1 && direction ? rightmost(edges, x, y, direction) : 0, 1)[0];
        const step = [Math.sign(edge[0] - x), Math.sign(edge[1] - y)];
        if (!direction || step[0] !== direction[0] || step[1] !== direction[1]) corners.push([x, y]);
        [direction, pixel] = [step, edge[2]];
        [x, y] = edge;
      } while (key(x, y) !== start);
      if (isStraight(corners.at(-1), corners[0], corners[1])) corners.shift();
      yield { corners, pixel };
    }
  }
}

const isStraight = (a, b, c) => (a[0] === b[0] && b[0] === c[0]) || (a[1] === b[1] && b[1] === c[1]);

// Two pixels touch at this corner. Turning right stays with the same pixel.
const rightmost = (edges, x, y, [dx, dy]) => edges.findIndex(([endX, endY]) => Math.sign(endX - x) === -dy && Math.sign(endY - y) === dx);

function minus(spans, others) {
  const rest = [];
  for (let [begin, end] of spans) {
    for (const [from, to] of others) {
      if (to <= begin || from >= end) continue;
      if (from > begin) rest.push([begin, from]);
      begin = to;
      if (begin >= end) break;
    }
    if (begin < end) rest.push([begin, end]);
  }
  return rest;
}
