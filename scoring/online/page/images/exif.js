// Read the EXIF orientation of WebP files. Chromium applies the orientation of JPEG, PNG and AVIF files, but not of WebP. Pure.

const ORIENTATION = 0x112; // number of the EXIF tag

/** Return the EXIF orientation (1 to 8) of the bytes of a WebP file, or 1 if the file has none or is not a WebP file. */
export function webpOrientation(buffer) {
  const view = new DataView(buffer);
  const text = (at) => (at + 4 <= view.byteLength ? String.fromCharCode(...new Uint8Array(buffer, at, 4)) : "");
  if (text(0) !== "RIFF" || text(8) !== "WEBP") return 1;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (text(at) === "EXIF") return tiffOrientation(new DataView(buffer, at + 8, Math.min(size, view.byteLength - at - 8)));
    at += 8 + size + (size % 2);
  }
  return 1;
}

function tiffOrientation(view) {
  try {
    const start = view.getUint32(0) === 0x45786966 ? 6 : 0; // some encoders write "Exif" and two zero bytes first
    const little = view.getUint16(start) === 0x4949;
    const directory = start + view.getUint32(start + 4, little);
    for (let i = 0; i < view.getUint16(directory, little); i++) {
      const entry = directory + 2 + 12 * i;
      if (view.getUint16(entry, little) !== ORIENTATION) continue;
      const orientation = view.getUint16(entry + 8, little);
      return orientation >= 1 && orientation <= 8 ? orientation : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the data are truncated
  }
  return 1;
}

/** Return {width, height} of the upright image, and the canvas transform [a, b, c, d, e, f] that turns the image upright. */
export function uprightTransform(orientation, { width: w, height: h }) {
  const transform = {
    1: [1, 0, 0, 1, 0, 0],
    2: [-1, 0, 0, 1, w, 0],
    3: [-1, 0, 0, -1, w, h],
    4: [1, 0, 0, -1, 0, h],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, h, 0],
    7: [0, -1, -1, 0, h, w],
    8: [0, -1, 1, 0, 0, w],
  }[orientation];
  return orientation < 5 ? { width: w, height: h, transform } : { width: h, height: w, transform };
}
