import assert from "node:assert/strict";
import test from "node:test";

import { Layer } from "../../../../scoring/online/page/view/layers.js";

const STATE = { view: { scale: 1, x: 0, y: 0 } };
const MASK = { mask: { counts: [0, 4], size: [2, 2] }, style: {} };

/** Return a layer, and the list of the bitmaps that it asked for: each has a function `finish`. */
function slowLayer() {
  const bitmaps = [];
  const paint = () => new Promise((done) => {
    const bitmap = { closed: false, close: () => (bitmap.closed = true), finish: () => done(bitmap) };
    bitmaps.push(bitmap);
  });
  const layer = new Layer(() => [MASK], { name: "draw", paint, redraw: () => {}, fail: (error) => { throw error; } });
  return { layer, bitmaps };
}

const settled = () => new Promise((done) => setTimeout(done));

test("a layer shows the bitmap that the worker drew", async () => {
  const { layer, bitmaps } = slowLayer();
  layer.refresh(STATE, { width: 2, height: 2 }, 1);
  bitmaps[0].finish();
  await settled();
  assert.equal(layer.bitmap, bitmaps[0]);
});

test("a bitmap that is ready after the layer was cleared is not shown", async () => {
  const { layer, bitmaps } = slowLayer();
  layer.refresh(STATE, { width: 2, height: 2 }, 1);
  layer.clear();
  bitmaps[0].finish();
  await settled();
  assert.equal(layer.bitmap, null);
  assert.equal(bitmaps[0].closed, true);
});

test("a layer that is cleared and refreshed while the worker draws shows only the later bitmap", async () => {
  const { layer, bitmaps } = slowLayer();
  layer.refresh(STATE, { width: 2, height: 2 }, 1);
  layer.clear();
  layer.refresh(STATE, { width: 2, height: 2 }, 1);
  bitmaps[0].finish();
  await settled();
  assert.equal(layer.bitmap, null);
  bitmaps[1].finish();
  await settled();
  assert.equal(layer.bitmap, bitmaps[1]);
});
