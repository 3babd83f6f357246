// Write and read PNG files whose pixels are numbers, such as class numbers. Pure.
//
// The canvas of a browser cannot be used for such files: it stores colours, and may change them.

import { crc32 } from "./zip.js";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // number of channels by PNG's colour type

async function through(bytes, transform) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}

function chunk(name, data) {
  const type = new TextEncoder().encode(name);
  const frame = new DataView(new ArrayBuffer(8));
  frame.setUint32(0, data.length);
  frame.setUint32(4, crc32(type, data));
  return [new Uint8Array(frame.buffer, 0, 4), type, data, new Uint8Array(frame.buffer, 4, 4)];
}

/** Return a promise of a greyscale PNG (a Blob) of `values`, `height` x `width` numbers row by row, of 8 or 16 bits. */
export async function encodePng(values, width, height, bits = 8) {
  const bytes = bits / 8;
  const lines = new Uint8Array(height * (1 + width * bytes)); // each row begins with the number of its filter; 0 is no filter
  const view = new DataView(lines.buffer);
  for (let y = 0, at = 0; y < height; y++) {
    const start = y * (1 + width * bytes) + 1;
    for (let x = 0; x < width; x++, at++) {
      if (bits === 8) lines[start + x] = values[at];
      else view.setUint16(start + 2 * x, values[at]);
    }
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, bits);
  const packed = await through(lines, new CompressionStream("deflate"));
  const parts = [Uint8Array.from(SIGNATURE), ...chunk("IHDR", new Uint8Array(header.buffer)), ...chunk("IDAT", packed), ...chunk("IEND", new Uint8Array())];
  return new Blob(parts, { type: "image/png" });
}

/**
 * Return a promise of {values, width, height} of a PNG file (a Blob). `values` are the numbers of a greyscale or palette
 * image. For a colour image, each colour becomes a number. Throws an Error for other files and for interlaced files.
 */
export async function decodePng(blob) {
  const view = new DataView(await blob.arrayBuffer());
  if (view.byteLength < 33 || SIGNATURE.some((byte, i) => view.getUint8(i) !== byte)) throw new Error("The file is not a PNG image.");
  const [width, height, depth, colours] = [view.getUint32(16), view.getUint32(20), view.getUint8(24), view.getUint8(25)];
  if (view.getUint8(28)) throw new Error("The PNG image is interlaced. Save it without interlacing.");
  const packed = [];
  for (let at = 8; at + 12 <= view.byteLength; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x49444154) packed.push(new Uint8Array(view.buffer, at + 8, view.getUint32(at)));
  }
  const lines = await through(new Blob(packed), new DecompressionStream("deflate"));
  const channels = CHANNELS[colours], line = Math.ceil((width * depth * channels) / 8), step = Math.max(1, (depth * channels) >> 3);
  unfilter(lines, line, height, step);
  const values = new Uint32Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    const start = y * (line + 1) + 1;
    for (let x = 0; x < width; x++, at++) {
      if (depth < 8) values[at] = (lines[start + ((x * depth) >> 3)] >> (8 - depth - ((x * depth) % 8))) & ((1 << depth) - 1);
      else if (channels > 2) values[at] = (lines[start + x * step] << 16) | (lines[start + x * step + (depth >> 3)] << 8) | lines[start + x * step + (depth >> 2)];
      else values[at] = depth === 16 ? (lines[start + x * step] << 8) | lines[start + x * step + 1] : lines[start + x * step];
    }
  }
  return { values, width, height };
}

function unfilter(lines, line, height, step) {
  for (let y = 0; y < height; y++) {
    const start = y * (line + 1), filter = lines[start];
    for (let i = start + 1; i <= start + line; i++) {
      const left = i - step > start ? lines[i - step] : 0;
      const up = y ? lines[i - line - 1] : 0;
      const corner = y && i - step > start ? lines[i - line - 1 - step] : 0;
      lines[i] += [0, left, up, (left + up) >> 1, predict(left, up, corner)][filter];
    }
  }
}

function predict(left, up, corner) {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
