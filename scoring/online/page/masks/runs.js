// Compute with masks as the ends of their runs (see rle.js): union, difference, area, bounding box. Pure.

import { decodeRuns, encodeRuns, rasterize } from "./rle.js";

const decoded = new WeakMap(); // the runs of each mask, once they are decoded

/** Return a mask as the page keeps it: {size: [height, width], counts: COCO's compressed text, area, bbox: [x, y, w, h]}. */
export function maskOf(ends, size) {
  const mask = Object.freeze({ size, counts: encodeRuns(ends), area: area(ends), bbox: bounds(ends, size[0]) });
  decoded.set(mask, ends);
  return mask;
}

/** Return the ends of a mask's runs. The mask must not be changed afterwards. */
export function endsOf(mask) {
  if (!decoded.has(mask)) decoded.set(mask, decodeRuns(mask.counts, mask.size));
  return decoded.get(mask);
}

/** Return the runs of an empty mask. */
export const emptyRuns = ([height, width]) => Int32Array.of(height * width);

/** Return the runs of the pixels in sorted intervals [start, end, start, end, ...]. Intervals that touch are joined. */
export function fromIntervals(intervals, [height, width]) {
  const total = height * width;
  const ends = [];
  let last = -1;
  for (let i = 0; i < intervals.length; i += 2) {
    const [start, end] = [intervals[i], intervals[i + 1]];
    if (end <= start) continue;
    if (start <= last) ends[ends.length - 1] = last = Math.max(last, end);
    else ends.push(start, (last = end));
  }
  if (last < total) ends.push(total);
  return Int32Array.from(ends);
}

/**
 * Return the runs of the pixels that are inside the mask, from columns of intervals: `columns` maps x to a list of
 * [first row, row after the last]. The intervals of a column may overlap.
 */
export function fromColumns(columns, [height, width]) {
  const flat = [];
  for (const x of [...columns.keys()].sort((a, b) => a - b)) {
    if (x < 0 || x >= width) continue;
    const spans = columns.get(x).map(([begin, end]) => [Math.max(0, begin), Math.min(height, end)]);
    spans.sort((a, b) => a[0] - b[0]);
    for (const [begin, end] of spans) if (end > begin) flat.push(x * height + begin, x * height + end);
  }
  return fromIntervals(flat, [height, width]);
}

function combine(a, b, inside) {
  const ends = [];
  let i = 0, j = 0, value = false, position = 0;
  const total = a[a.length - 1];
  while (position < total) {
    const next = inside(i % 2 === 1, j % 2 === 1);
    if (next !== value) {
      ends.push(position);
      value = next;
    }
    position = Math.min(a[i], b[j]);
    while (i < a.length && a[i] <= position) i++;
    while (j < b.length && b[j] <= position) j++;
  }
  ends.push(total);
  return Int32Array.from(ends);
}

/** Return the runs of the pixels in either mask. */
export const union = (a, b) => combine(a, b, (x, y) => x || y);

/** Return the runs of the pixels in `a` that are not in `b`. */
export const subtract = (a, b) => combine(a, b, (x, y) => x && !y);

/** Return the runs of the pixels in both masks. */
export const intersect = (a, b) => combine(a, b, (x, y) => x && y);

/** Return the number of pixels inside the mask. */
export function area(ends) {
  let sum = 0;
  for (let run = 1; run < ends.length; run += 2) sum += ends[run] - ends[run - 1];
  return sum;
}

/** Return the bounding box [x, y, width, height] of a mask of an image with `height` rows. An empty mask has 0, 0, 0, 0. */
export function bounds(ends, height) {
  let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
  for (let run = 1; run < ends.length; run += 2) {
    const [start, end] = [ends[run - 1], ends[run] - 1];
    if (end < start) continue;
    const [first, last] = [Math.floor(start / height), Math.floor(end / height)];
    left = Math.min(left, first);
    right = Math.max(right, last);
    top = Math.min(top, first === last ? start % height : 0);
    bottom = Math.max(bottom, first === last ? end % height : height - 1);
  }
  return right < 0 ? [0, 0, 0, 0] : [left, top, right - left + 1, bottom - top + 1];
}

/** Return whether the pixel [x, y] is inside the mask. */
export function contains(ends, [height, width], [x, y]) {
  if (x < 0 || y < 0 || x >= width || y >= height) return false;
  const position = Math.floor(x) * height + Math.floor(y);
  let low = 0, high = ends.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > position) high = middle;
    else low = middle + 1;
  }
  return low % 2 === 1;
}

/** Return the runs of a mask scaled from a size [height, width] to another. Each pixel takes the value at its centre. */
export function resizeRuns(ends, from, [height, width]) {
  if (from[0] === height && from[1] === width) return ends;
  const inside = new Uint8Array(height * width);
  rasterize(ends, from, inside, width, height, 1);
  const intervals = [];
  for (let x = 0, position = 0; x < width; x++) {
    for (let y = 0; y < height; y++, position++) if (inside[y * width + x]) intervals.push(position, position + 1);
  }
  return fromIntervals(intervals, [height, width]);
}

/** Return the intersection over union of two masks of the same size. */
export function iou(a, b) {
  const both = area(intersect(a, b));
  return both / (area(a) + area(b) - both || 1);
}
