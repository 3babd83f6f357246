// The files of the images of the data set: in the browser's database, or in memory if the browser has none.

import * as storage from "./storage.js";

const memory = new Map(); // image id -> file, for browsers that keep nothing

/** Store image files, a list of {id, blob}. Return a promise of whether a reload of the page will find them. */
export async function putFiles(images) {
  try {
    await storage.saveImages(images);
    return true;
  } catch {
    for (const { id, blob } of images) memory.set(id, blob);
    return false;
  }
}

/** Return a promise of the file of an image, or undefined if there is none. */
export async function getFile(id) {
  return memory.get(id) ?? (await storage.loadImage(id).catch(() => undefined));
}

/** Return a promise of whether two files have the same contents. */
export async function isSameFile(a, b) {
  if (!a || !b || a.size !== b.size) return false;
  const [first, second] = await Promise.all([a, b].map(async (blob) => new Uint8Array(await blob.arrayBuffer())));
  return first.every((byte, i) => byte === second[i]);
}
