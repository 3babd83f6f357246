// Send drawing jobs to the worker, and return promises of their results.

const worker = new Worker(new URL("../worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // by job number: the functions {resolve, reject} of the job's promise
let jobs = 0;

worker.addEventListener("message", ({ data: { number, result, error } }) => {
  const { resolve, reject } = waiting.get(number);
  waiting.delete(number);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
});
worker.addEventListener("error", () => {
  for (const { reject } of waiting.values()) reject(new Error("This browser cannot run the worker script that draws the masks. Use a current version of the browser."));
  waiting.clear();
});

function run(kind, job) {
  return new Promise((resolve, reject) => {
    waiting.set(++jobs, { resolve, reject });
    worker.postMessage({ number: jobs, kind, job });
  });
}

/**
 * Return a promise of an ImageBitmap of `columns` x `rows` pixels with masks in colour, from the bottom to the top.
 *
 * `masks` is a list of {mask, style}, with styles as in masks/paint.js. `view` is the part of the image, as for
 * `rasterize`. The outlines are `edge` pixels wide. Parts of fewer than `limit` image pixels have no outline.
 */
export function paintLayer(masks, { columns, rows, view, edge, limit = 0 }) {
  return run("layer", { masks: masks.map(({ mask: { counts, size }, style }) => ({ counts, size, ...style })), columns, rows, view, edge, limit });
}

/** Return a promise of a black and white PNG (a Blob) of the image's {width, height}, white inside any of the masks. */
export const paintPng = (masks, { width, height }) => run("png", { masks: masks.map(({ counts, size }) => ({ counts, size })), columns: width, rows: height });
