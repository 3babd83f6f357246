import assert from "node:assert/strict";
import test from "node:test";
import { uprightTransform, webpOrientation } from "../../../../scoring/online/page/images/exif.js";

const ascii = (text) => Array.from(text, (character) => character.charCodeAt(0));
const little = (value, bytes) => Array.from({ length: bytes }, (_, i) => (value >> (8 * i)) & 255);
const big = (value, bytes) => little(value, bytes).reverse();
const chunk = (name, data) => [...ascii(name), ...little(data.length, 4), ...data, ...(data.length % 2 ? [0] : [])];
const webp = (...chunks) => Uint8Array.from([...ascii("RIFF"), ...little(0, 4), ...ascii("WEBP"), ...chunks.flat()]).buffer;
const tiff = (order, number, orientation) => [
  ...ascii(order), ...number(42, 2), ...number(8, 4), ...number(2, 2),
  ...number(0x10f, 2), ...number(2, 2), ...number(4, 4), ...ascii("abc\0"),
  ...number(0x112, 2), ...number(3, 2), ...number(1, 4), ...number(orientation, 2), 0, 0,
];

test("finds the orientation after other chunks, in either byte order, with or without a prefix", () => {
  const data = chunk("VP8 ", [1, 2, 3]);
  assert.equal(webpOrientation(webp(data, chunk("EXIF", tiff("II", little, 6)))), 6);
  assert.equal(webpOrientation(webp(data, chunk("EXIF", tiff("MM", big, 3)))), 3);
  assert.equal(webpOrientation(webp(data, chunk("EXIF", [...ascii("Exif\0\0"), ...tiff("MM", big, 8)]))), 8);
});

test("files without a valid orientation have orientation 1", () => {
  assert.equal(webpOrientation(webp(chunk("VP8 ", [1, 2]))), 1);
  assert.equal(webpOrientation(webp(chunk("EXIF", tiff("II", little, 9)))), 1);
  for (let length = 0; length < 30; length++) assert.equal(webpOrientation(webp(chunk("EXIF", tiff("II", little, 6).slice(0, length)))), 1);
  assert.equal(webpOrientation(Uint8Array.from(ascii("GIF89a, a few bytes")).buffer), 1);
  assert.equal(webpOrientation(new ArrayBuffer(0)), 1);
});

test("each orientation moves the first stored pixel to the corner where viewers show it", () => {
  const corner = (orientation) => {
    const { width, height, transform: [a, b, c, d, e, f] } = uprightTransform(orientation, { width: 30, height: 20 });
    const [x, y] = [a * 0.5 + c * 0.5 + e, b * 0.5 + d * 0.5 + f];
    return `${y < 1 ? "top" : "bottom"} ${x < 1 ? "left" : "right"} of ${width} x ${height}`;
  };
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 8].map(corner), [
    "top left of 30 x 20", "top right of 30 x 20", "bottom right of 30 x 20", "bottom left of 30 x 20",
    "top left of 20 x 30", "top right of 20 x 30", "bottom right of 20 x 30", "bottom left of 20 x 30",
  ]);
});
