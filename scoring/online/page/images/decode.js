// Decode an image file to a bitmap that is upright: turned as the EXIF orientation of the file says.

import { uprightTransform, webpOrientation } from "./exif.js";

const MAX_PIXELS = 100_000_000; // the endpoint accepts no larger images, unless it is configured otherwise

// A WebP image of 2 x 1 pixels with EXIF orientation 6. A browser that applies the orientation decodes it to 1 x 2 pixels.
const SIDEWAYS = "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0PRET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";

/** An image that this page cannot open. The message is shown to the user. */
export class ImageError extends Error {}

const unreadable = (name) => new ImageError(`${name} is not an image this browser can read. Choose another file.`);

/** Return a promise of the upright {width, height} of an image file, without decoding its pixels. */
export async function sizeOf(blob, name) {
  const url = URL.createObjectURL(blob);
  try {
    const { width, height } = await new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
      image.onerror = () => reject(unreadable(name));
      image.src = url;
    });
    if (!width || !height) throw unreadable(name);
    if (width * height > MAX_PIXELS) {
      throw new ImageError(`${name} has ${Math.round((width * height) / 1e6)} megapixels. The page opens images of at most ${MAX_PIXELS / 1e6} megapixels. Make the image smaller, or cut it into parts.`);
    }
    const sideways = (await orientationToApply(blob)) > 4;
    return sideways ? { width: height, height: width } : { width, height };
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Return a promise of the upright ImageBitmap of an image file. Throws an ImageError if the file is no image. */
export async function decodeUpright(blob, name) {
  const bitmap = await createImageBitmap(blob).catch(() => {
    throw unreadable(name);
  });
  const orientation = await orientationToApply(blob);
  return orientation === 1 ? bitmap : turn(bitmap, orientation);
}

/** Return the EXIF orientation that the page has to apply. It is 1 except for WebP files, if the browser ignores theirs. */
async function orientationToApply(blob) {
  if ((await blob.slice(8, 12).text()) !== "WEBP") return 1;
  const orientation = webpOrientation(await blob.arrayBuffer());
  return orientation === 1 || (await browserTurnsWebp()) ? 1 : orientation;
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
