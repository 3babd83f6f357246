// Find the connected parts of a mask, and its specks and small holes. Pure.

import { fromIntervals } from "./runs.js";

/**
 * Return the parts of the pixels inside (or outside) a mask. Pixels that share an edge belong to the same part.
 *
 * A segment is the part of a run in one column. The result is {begins, ends, parts, areas, borders}. `begins`, `ends` and
 * `parts` have a value for each segment: its first pixel, the pixel after its last pixel, and the number of its part.
 * `areas` and `borders` have a value for each part: its area, and whether it touches the image's border.
 */
export function components(runs, [height, width], outside = false) {
  const begins = [], ends = [], parents = [];
  const find = (i) => {
    while (parents[i] !== i) i = parents[i] = parents[parents[i]];
    return i;
  };
  let [previous, current, column] = [0, 0, -1]; // first segment of the column before, and of this column
  for (let run = outside ? 0 : 1; run < runs.length; run += 2) {
    let begin = run ? runs[run - 1] : 0;
    while (begin < runs[run]) {
      const x = Math.floor(begin / height);
      const end = Math.min(runs[run], (x + 1) * height);
      if (x !== column) {
        previous = x === column + 1 ? current : begins.length;
        [current, column] = [begins.length, x];
      }
      const segment = begins.length;
      begins.push(begin);
      ends.push(end);
      parents.push(segment);
      while (previous < current && ends[previous] + height <= begin) previous++;
      for (let i = previous; i < current && begins[i] + height < end; i++) parents[find(i)] = find(segment);
      begin = end;
    }
  }
  const numbers = new Map(), areas = [], borders = [];
  const parts = begins.map((begin, i) => {
    const root = find(i);
    if (!numbers.has(root)) {
      numbers.set(root, areas.length);
      areas.push(0);
      borders.push(false);
    }
    const part = numbers.get(root), x = Math.floor(begin / height);
    areas[part] += ends[i] - begin;
    borders[part] ||= x === 0 || x === width - 1 || begin === x * height || ends[i] === (x + 1) * height;
    return part;
  });
  return { begins, ends, parts, areas, borders };
}

function pick({ begins, ends, parts }, size, wanted) {
  const flat = [];
  parts.forEach((part, i) => wanted(part) && flat.push(begins[i], ends[i]));
  return fromIntervals(flat, size);
}

/**
 * Divide a mask into {large, specks, holes}, each as runs. Specks are parts of fewer than `limit` pixels, but the largest
 * part is never a speck. `large` has the other parts. Holes are enclosed parts of the outside of fewer than `limit` pixels.
 */
export function divide(runs, size, limit) {
  const inside = components(runs, size), outside = components(runs, size, true);
  const largest = inside.areas.indexOf(inside.areas.reduce((most, area) => Math.max(most, area), 0));
  const isLarge = (part) => part === largest || inside.areas[part] >= limit;
  return {
    large: pick(inside, size, isLarge),
    specks: pick(inside, size, (part) => !isLarge(part)),
    holes: pick(outside, size, (part) => outside.areas[part] < limit && !outside.borders[part]),
  };
}
