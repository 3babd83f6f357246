// The main thread's side of the worker: jobs out, promises of their results back.

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // by number: how to settle the promise of a job
let jobs = 0;

worker.addEventListener("message", ({ data: { number, result, error } }) => {
  const { resolve, reject } = waiting.get(number);
  waiting.delete(number);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
});
worker.addEventListener("error", () => {
  for (const { reject } of waiting.values()) reject(new Error("This browser cannot run the page's worker, which draws the masks."));
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
 * Return a promise of an ImageBitmap of `columns` x `rows` with the masks in colour, outlined `edge` pixels wide. Small
 * masks lie on large ones.
 */
export function paintLayer(masks, columns, rows, edge) {
  return run("layer", [...masks].sort((a, b) => b.area - a.area), { columns, rows, edge });
}

/** Return a promise of a PNG, a Blob, of the picture's {width, height}: white where any of the masks is. */
export const paintPng = (masks, { width, height }) => run("png", masks, { columns: width, rows: height });
