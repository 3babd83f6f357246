// Send drawing jobs to the worker, and return promises of their results.

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
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

function run(kind, masks, { columns, rows, edge }) {
  const sent = masks.map((mask) => ({ counts: mask.encoded_binary_mask, size: mask.size }));
  return new Promise((resolve, reject) => {
    waiting.set(++jobs, { resolve, reject });
    worker.postMessage({ number: jobs, kind, job: { masks: sent, columns, rows, edge } });
  });
}

/**
 * Return a promise of an ImageBitmap of `columns` x `rows` pixels with the masks in colour. The outlines are `edge` pixels
 * wide. Small masks are drawn over large masks.
 */
export function paintLayer(masks, columns, rows, edge) {
  return run("layer", [...masks].sort((a, b) => b.area - a.area), { columns, rows, edge });
}

/** Return a promise of a black and white PNG (a Blob) of the image's {width, height}, white inside any of the masks. */
export const paintPng = (masks, { width, height }) => run("png", masks, { columns: width, rows: height });
