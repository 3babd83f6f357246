// Draw run-length encoded masks in a worker thread: as a bitmap of the canvas's size, or as a PNG of the image's size.

import { colourLabels, whitenLabels } from "./paint.js";
import { decodeRuns, rasterize } from "./rle.js";

/** Return the label of each pixel: the number of its mask, counted from 1, or 0. Later masks cover earlier masks. */
function label({ masks, columns, rows }) {
  const labels = new Uint16Array(columns * rows);
  masks.forEach(({ counts, size }, i) => rasterize(decodeRuns(counts, size), size, labels, columns, rows, i + 1));
  return labels;
}

const JOBS = {
  layer(job) {
    const pixels = colourLabels(label(job), job.columns, job.rows, job.edge);
    return createImageBitmap(new ImageData(pixels, job.columns, job.rows));
  },
  png(job) {
    const sheet = new OffscreenCanvas(job.columns, job.rows);
    sheet.getContext("2d").putImageData(new ImageData(whitenLabels(label(job)), job.columns, job.rows), 0, 0);
    return sheet.convertToBlob({ type: "image/png" });
  },
};

addEventListener("message", async ({ data: { number, kind, job } }) => {
  try {
    const result = await JOBS[kind](job);
    postMessage({ number, result }, result instanceof ImageBitmap ? [result] : []);
  } catch (error) {
    postMessage({ number, error: error.message });
  }
});
