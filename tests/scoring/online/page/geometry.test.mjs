import assert from "node:assert/strict";
import test from "node:test";
import { boxBetween, fitted, pixelAt, step } from "../../../../scoring/online/page/geometry.js";

test("a point of the window maps to a pixel inside the image, at any scale", () => {
  const frame = { left: 100, top: 50, width: 400, height: 300 };
  const size = { width: 4000, height: 3000 };
  assert.deepEqual(pixelAt(300, 200, frame, size), [2000, 1500]);
  assert.deepEqual(pixelAt(100, 50, frame, size), [0, 0]);
  assert.deepEqual(pixelAt(600, 20, frame, size), [3999, 0]);
});

test("a box starts at its upper left corner for every drag direction and is at least two pixels wide", () => {
  assert.deepEqual(boxBetween([30, 5], [10, 25]), [10, 5, 30, 25]);
  assert.equal(boxBetween([30, 5], [31, 25]), null);
});

test("an image fills the available space, in pixels of the screen", () => {
  assert.deepEqual(fitted({ width: 4000, height: 3000 }, { width: 800, height: 900 }, 1), { width: 800, columns: 800, rows: 600 });
  assert.deepEqual(fitted({ width: 3000, height: 4000 }, { width: 800, height: 400 }, 2), { width: 300, columns: 600, rows: 800 });
});

test("a small image is enlarged at most four times, and a thin image has at least one row", () => {
  assert.deepEqual(fitted({ width: 60, height: 40 }, { width: 800, height: 900 }, 1), { width: 240, columns: 240, rows: 160 });
  assert.equal(fitted({ width: 5000, height: 1 }, { width: 800, height: 900 }, 1).rows, 1);
});

test("the crosshair moves in larger steps in larger images", () => {
  assert.equal(step({ width: 240 }, false), 5);
  assert.equal(step({ width: 4000 }, true), 100);
});
