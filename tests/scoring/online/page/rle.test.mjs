// Run lengths, compared with masks that pycocotools has encoded. The variable CASES names a JSON file of these masks.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { colourLabels, HOLE, SPECK } from "../../../../scoring/online/page/masks/paint.js";
import { decodeRuns, rasterize } from "../../../../scoring/online/page/masks/rle.js";

const CASES = JSON.parse(readFileSync(process.env.CASES, "utf8")); // name: {size, counts, rows}: rows of the mask as text

function draw({ size, counts }, columns, rows, label = 1) {
  const labels = new Uint16Array(columns * rows);
  rasterize(decodeRuns(counts, size), size, labels, columns, rows, label);
  return Array.from({ length: rows }, (_, row) => labels.subarray(row * columns, (row + 1) * columns).join(""));
}

for (const [name, mask] of Object.entries(CASES)) {
  const [height, width] = mask.size;

  test(`${name}: at the size of the image, the pixels are those of the mask`, () => {
    assert.deepEqual(draw(mask, width, height), mask.rows);
  });

  for (const [columns, rows] of [[3 * width, 3 * height], [5, 4], [width, 2], [2 * width + 1, height]]) {
    test(`${name}: at ${columns} x ${rows} each pixel has the value of the mask at its center`, () => {
      const sample = (row, column) => mask.rows[Math.floor(((row + 0.5) * height) / rows)][Math.floor(((column + 0.5) * width) / columns)];
      const expected = Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, column) => sample(row, column)).join(""));
      assert.deepEqual(draw(mask, columns, rows), expected);
    });
  }
}

test("decodes runs written by hand: one pixel out, two in, three out, of two rows and three columns", () => {
  assert.deepEqual(Array.from(decodeRuns("123", [2, 3])), [1, 3, 6]);
  assert.deepEqual(draw({ size: [2, 3], counts: "123" }, 3, 2), ["010", "100"]);
});

test("rejects runs that do not cover the image", () => {
  assert.throws(() => decodeRuns("123", [2, 4]), /cover 6 pixels; a mask of 4 x 2 has 8/);
});

test("draws 12 megapixels at the screen's size without an array of the image's size", () => {
  const labels = new Uint16Array(800 * 600);
  rasterize(Int32Array.of(6_000_000, 12_000_000), [3000, 4000], labels, 800, 600, 1);
  assert.equal(labels.reduce((sum, label) => sum + label), 400 * 600);
  assert.equal(labels[399], 0);
  assert.equal(labels[400], 1);
});

const STYLE = { fill: [230, 159, 0], opacity: 0.55, line: [255, 255, 255] };

test("a label is filled, outlined in white, and transparent elsewhere", () => {
  const labels = Uint16Array.from([..."00000" + "02220" + "02220" + "02220" + "00000"], Number);
  const pixels = colourLabels(labels, 5, 5, 1, [STYLE, STYLE]);
  const at = (row, column) => [...pixels.subarray(4 * (5 * row + column), 4 * (5 * row + column) + 4)];
  assert.deepEqual(at(2, 2), [230, 159, 0, 140]);
  assert.deepEqual(at(1, 2), [255, 255, 255, 255]);
  assert.deepEqual(at(2, 3), [255, 255, 255, 255]);
  assert.deepEqual(at(0, 0), [0, 0, 0, 0]);
});

test("specks are filled without an outline, and small holes make none", () => {
  const labels = new Uint16Array(49).fill(1);
  labels[24] |= HOLE;
  const alone = new Uint16Array(9);
  alone[4] = 1 | SPECK;
  const pixels = colourLabels(labels, 7, 7, 1, [STYLE]);
  assert.deepEqual([...pixels.subarray(4 * 24, 4 * 24 + 4)], [0, 0, 0, 0]);
  assert.deepEqual([...pixels.subarray(4 * 25, 4 * 25 + 4)], [230, 159, 0, 140]);
  assert.deepEqual([...colourLabels(alone, 3, 3, 1, [STYLE]).subarray(16, 20)], [230, 159, 0, 140]);
});

test("a mask that leaves the picture on the screen has no outline there", () => {
  const pixels = colourLabels(new Uint16Array(25).fill(1), 5, 5, 1, [STYLE]);
  assert.ok([0, 2, 12, 24].every((i) => pixels[4 * i + 3] === 140));
});

test("a part of the picture is drawn at any scale", () => {
  const mask = CASES.noise, [height, width] = mask.size;
  const view = { left: 4.5, top: -3, across: 0.5, down: 0.5 };
  const labels = new Uint16Array(40 * 50);
  rasterize(decodeRuns(mask.counts, mask.size), mask.size, labels, 40, 50, 1, view);
  for (let row = 0; row < 50; row++) {
    for (let column = 0; column < 40; column++) {
      const x = Math.floor(view.left + (column + 0.5) / 2), y = Math.floor(view.top + (row + 0.5) / 2);
      const expected = x >= 0 && y >= 0 && x < width && y < height ? Number(mask.rows[y][x]) : 0;
      assert.equal(labels[row * 40 + column], expected, `row ${row}, column ${column}`);
    }
  }
});
