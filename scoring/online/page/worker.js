// Draw masks in a worker thread: as a bitmap of the screen's size, or as a PNG of the image's size.

import { encodePng } from "./formats/png.js";
import { divide } from "./masks/components.js";
import { colourLabels, HOLE, SPECK } from "./masks/paint.js";
import { decodeRuns, rasterize } from "./masks/rle.js";

const KEPT = 400; // maximum size of `parts`
const parts = new Map(); // text of a mask and limit -> parts of the mask: a cache to draw the same masks again quickly

function partsOf({ counts, size }, limit) {
  const key = `${limit} ${size} ${counts}`;
  if (!parts.has(key)) {
    const runs = decodeRuns(counts, size);
    parts.set(key, limit > 1 ? divide(runs, size, limit) : { large: runs });
    if (parts.size > KEPT) parts.delete(parts.keys().next().value);
  }
  return parts.get(key);
}

const JOBS = {
  /** Return a bitmap of the masks in colour, from the bottom to the top. Parts smaller than `limit` have no outline. */
  layer({ masks, columns, rows, view, edge, limit }) {
    const labels = new Uint16Array(columns * rows);
    masks.forEach((mask, i) => {
      const { large, specks, holes } = partsOf(mask, limit);
      const draw = (runs, label) => rasterize(runs, mask.size, labels, columns, rows, label, view);
      draw(large, i + 1);
      if (specks?.length > 1) draw(specks, (i + 1) | SPECK);
      if (holes?.length > 1) rasterizeHoles(holes, mask.size, labels, columns, rows, i + 1, view);
    });
    const pixels = colourLabels(labels, columns, rows, edge, masks);
    return createImageBitmap(new ImageData(pixels, columns, rows));
  },

  /** Return a PNG (a Blob) that is white inside any of the masks and black elsewhere. */
  png({ masks, columns, rows }) {
    const values = new Uint8Array(columns * rows);
    for (const { counts, size } of masks) rasterize(decodeRuns(counts, size), size, values, columns, rows, 255);
    return encodePng(values, columns, rows);
  },
};

// A hole shows the masks below it. If there is no mask below, the pixels get the flag HOLE, so that they get no outline.
function rasterizeHoles(holes, size, labels, columns, rows, label, view) {
  const flags = new Uint8Array(columns * rows);
  rasterize(holes, size, flags, columns, rows, 1, view);
  for (let i = 0; i < flags.length; i++) if (flags[i] && !labels[i]) labels[i] = label | HOLE;
}

addEventListener("message", async ({ data: { number, kind, job } }) => {
  try {
    const result = await JOBS[kind](job);
    postMessage({ number, result }, result instanceof ImageBitmap ? [result] : []);
  } catch (error) {
    postMessage({ number, error: error.message });
  }
});
