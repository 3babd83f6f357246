// Decode an image file to a bitmap that is upright: turned as the EXIF orientation of the file says.

import { uprightTransform, webpOrientation } from "./exif.js";

// A WebP image of 2 x 1 pixels with EXIF orientation 6. A browser that applies the orientation decodes it to 1 x 2 pixels.
const SIDEWAYS = "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0PRET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";

/** Return a promise of the upright ImageBitmap of an image file. The promise is rejected if the file is not an image. */
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
