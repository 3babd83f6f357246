// Operations on masks against the same operations on pixels. CASES names a JSON file of masks that pycocotools encoded.
// The polygons go to the file named by POLYGONS, so that the Python test reads them with pycocotools.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";
import { components, divide } from "../../../../scoring/online/page/masks/components.js";
import { polygonRuns, polygonsOf, simplify } from "../../../../scoring/online/page/masks/polygons.js";
import { decodeRuns, encodeRuns, rasterize } from "../../../../scoring/online/page/masks/rle.js";
import * as runs from "../../../../scoring/online/page/masks/runs.js";
import { addStroke, applyEdits, strokeRuns } from "../../../../scoring/online/page/masks/stroke.js";

const CASES = Object.entries(JSON.parse(readFileSync(process.env.CASES, "utf8"))).map(([name, { size, counts, rows }]) => ({ name, size, counts, rows, ends: decodeRuns(counts, size) }));

function pixels(ends, [height, width]) {
  const labels = new Uint16Array(width * height);
  rasterize(ends, [height, width], labels, width, height, 1);
  return [...labels];
}

for (const { name, size, counts, ends } of CASES) {
  const [height, width] = size;
  const inside = pixels(ends, size);
  const count = inside.filter(Boolean).length;

  test(`${name}: encoded again, it is the same text`, () => assert.equal(encodeRuns(ends), counts));

  test(`${name}: area, box and single pixels`, () => {
    assert.equal(runs.area(ends), count);
    const xs = inside.flatMap((value, i) => (value ? [i % width] : [])), ys = inside.flatMap((value, i) => (value ? [Math.floor(i / width)] : []));
    const box = count ? [Math.min(...xs), Math.min(...ys), Math.max(...xs) - Math.min(...xs) + 1, Math.max(...ys) - Math.min(...ys) + 1] : [0, 0, 0, 0];
    assert.deepEqual(runs.bounds(ends, height), box);
    inside.forEach((value, i) => assert.equal(runs.contains(ends, size, [i % width, Math.floor(i / width)]), Boolean(value)));
  });

  test(`${name}: union, difference and intersection with a stroke`, () => {
    const other = strokeRuns([[2, 1], [width - 2, height - 1]], 2.5, size), drawn = pixels(other, size);
    assert.deepEqual(pixels(runs.union(ends, other), size), inside.map((value, i) => value | drawn[i]));
    assert.deepEqual(pixels(runs.subtract(ends, other), size), inside.map((value, i) => value & (1 - drawn[i])));
    assert.deepEqual(pixels(runs.intersect(ends, other), size), inside.map((value, i) => value & drawn[i]));
    assert.equal(runs.iou(ends, ends), count ? 1 : 0);
  });

  test(`${name}: its polygons are the mask again, one for each part or one for all`, () => {
    for (const single of [false, true]) {
      const polygons = polygonsOf(ends, size, { single });
      assert.deepEqual(pixels(polygonRuns(polygons, size), size), inside);
      assert.equal(polygons.length, single ? Math.min(1, count) : components(ends, size).areas.length);
    }
  });

  test(`${name}: divided into large parts, specks and holes, nothing is lost`, () => {
    const { large, specks, holes } = divide(ends, size, 12);
    assert.deepEqual(pixels(runs.union(large, specks), size), inside);
    assert.equal(runs.area(runs.intersect(ends, holes)), 0);
    assert.equal(components(large, size).areas.filter((area) => area < 12).length > 1, false);
  });
}

test("polygons for pycocotools", () => {
  const list = CASES.map(({ name, size, ends }) => ({ name, polygons: polygonsOf(ends, size), single: polygonsOf(ends, size, { single: true }) }));
  if (process.env.POLYGONS) writeFileSync(process.env.POLYGONS, JSON.stringify(list));
});

test("a brush covers the pixels whose centres are near its way", () => {
  const size = [40, 50];
  for (const [points, radius] of [[[[20, 20]], 5], [[[5.5, 7], [40, 33]], 3.2], [[[10, 30], [10, 5], [44, 5]], 4], [[[-3, 20], [3, 60]], 6]]) {
    const near = (x, y) => points.some((p, i) => {
      const q = points[Math.max(0, i - 1)], [dx, dy] = [q[0] - p[0], q[1] - p[1]];
      const t = Math.max(0, Math.min(1, ((x - p[0]) * dx + (y - p[1]) * dy) / (dx * dx + dy * dy || 1)));
      return Math.hypot(x - p[0] - t * dx, y - p[1] - t * dy) <= radius;
    });
    const expected = Array.from({ length: 2000 }, (_, i) => Number(near((i % 50) + 0.5, Math.floor(i / 50) + 0.5)));
    assert.deepEqual(pixels(strokeRuns(points, radius, size), size), expected);
  }
});

test("painted and erased pixels stay so when the model's mask changes", () => {
  const size = [20, 20];
  const [painted, erased] = [strokeRuns([[5, 5]], 2, size), strokeRuns([[15, 15]], 2, size)];
  const edits = addStroke(addStroke(null, painted, false, size), erased, true, size);
  const later = applyEdits(Int32Array.of(0, 400), edits);
  assert.equal(runs.area(later), 400 - runs.area(erased));
  assert.equal(runs.area(applyEdits(runs.emptyRuns(size), edits)), runs.area(painted));
  assert.equal(runs.area(applyEdits(runs.emptyRuns(size), addStroke(edits, painted, true, size))), 0);
});

test("a simplified line has fewer corners and stays close", () => {
  const size = [200, 200], disc = strokeRuns([[100, 100]], 60, size);
  const [exact] = polygonsOf(disc, size), [rough] = polygonsOf(disc, size, { tolerance: 1 });
  assert.ok(rough.length < exact.length / 4);
  assert.ok(runs.iou(polygonRuns([rough], size), disc) > 0.97);
  assert.deepEqual(simplify([[0, 0], [4, 0], [4, 4]], 2), [[0, 0], [4, 0], [4, 4]]);
});

test("a mask of 12 megapixels with thousands of runs is changed in milliseconds", () => {
  const size = [3000, 4000];
  let mask = strokeRuns([[500, 500], [3500, 2500]], 300, size);
  const start = performance.now();
  for (let i = 0; i < 10; i++) mask = runs.union(mask, strokeRuns([[200 + 300 * i, 2500], [300 + 300 * i, 400]], 80, size));
  assert.ok(performance.now() - start < 1000);
  assert.equal(runs.area(decodeRuns(encodeRuns(mask), size)), runs.area(mask));
});
