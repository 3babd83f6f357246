// A file becomes an upright bitmap, decoded once.

import { uprightTransform, webpOrientation } from "./exif.js";

// A WebP of 2 x 1 pixels with EXIF orientation 6: browsers that apply it make a bitmap of 1 x 2.
const SIDEWAYS = "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0PRET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";

/** Return a promise of a file's picture as an ImageBitmap, upright as its EXIF orientation says. Rejects what is no picture. */
export async function decodeUpright(blob) {
  const bitmap = await createImageBitmap(blob);
  if ((await blob.slice(8, 12).text()) !== "WEBP") return bitmap;
  const orientation = webpOrientation(await blob.arrayBuffer());
  return orientation === 1 || (await browserTurnsWebp()) ? bitmap : turn(bitmap, orientation);
}

async function browserTurnsWebp() {
  const bytes = Uint8Array.from(atob(SIDEWAYS), (character) => character.charCodeAt(0));
  return (await createImageBitmap(new Blob([bytes], { type: "image/webp" }))).width === 1;
}

function turn(bitmap, orientation) {
  const { width, height, transform } = uprightTransform(orientation, bitmap);
  const sheet = new OffscreenCanvas(width, height);
  const context = sheet.getContext("2d");
  context.setTransform(...transform);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return sheet.transferToImageBitmap();
}
