import assert from "node:assert/strict";
import test from "node:test";
import {
  boxBetween, fitView, limitView, panView, pinchView, pixelAt, reveal, step, toCanvas, toImage, windowOf, zoomView,
} from "../../../../scoring/online/page/view/geometry.js";

const SIZE = { width: 4000, height: 3000 }, ROOM = { width: 800, height: 700 };
const near = (actual, expected) => actual.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-6, `${actual} is not ${expected}`));

test("a point of the canvas is a pixel of the picture, at any scale and within the picture", () => {
  const view = { scale: 0.1, x: 100, y: 50 };
  assert.deepEqual(pixelAt(view, [300, 200], SIZE), [2000, 1500]);
  assert.deepEqual(pixelAt(view, [100, 50], SIZE), [0, 0]);
  assert.deepEqual(pixelAt(view, [600, 20], SIZE), [3999, 0]);
  near(toCanvas(view, toImage(view, [123, 456])), [123, 456]);
});

test("a box starts at its upper left corner for every drag direction and is at least two pixels wide", () => {
  assert.deepEqual(boxBetween([30, 5], [10, 25]), [10, 5, 30, 25]);
  assert.equal(boxBetween([30, 5], [31, 25]), null);
});

test("a picture fills the room there is, in the middle", () => {
  assert.deepEqual(fitView(SIZE, { width: 800, height: 900 }), { scale: 0.2, x: 0, y: 150 });
  assert.deepEqual(fitView({ width: 3000, height: 4000 }, { width: 800, height: 400 }), { scale: 0.1, x: 250, y: 0 });
});

test("a small picture is enlarged four times at most", () => {
  assert.deepEqual(fitView({ width: 60, height: 40 }, { width: 800, height: 900 }), { scale: 4, x: 280, y: 370 });
});

test("zooming keeps the point under the mouse, and has limits", () => {
  const view = fitView(SIZE, ROOM), point = [250, 300];
  const zoomed = zoomView(view, 3, point, SIZE, ROOM);
  near(toImage(zoomed, point), toImage(view, point));
  assert.equal(zoomView(view, 1e6, point, SIZE, ROOM).scale, 40);
  assert.equal(zoomView(view, 1e-6, point, SIZE, ROOM).scale, view.scale / 2);
});

test("a part of the picture always stays on the canvas", () => {
  const view = { scale: 1, x: 0, y: 0 };
  assert.deepEqual(panView(view, 1e6, -1e6, SIZE, ROOM), { scale: 1, x: 740, y: -2940 });
  assert.deepEqual(limitView({ scale: 0.01, x: -900, y: 0 }, SIZE, ROOM), { scale: 0.01, x: 20, y: 30 });
});

test("two fingers move and enlarge the picture, each on its own point of the picture", () => {
  const view = fitView(SIZE, ROOM);
  const before = [[300, 300], [400, 300]], after = [[250, 350], [450, 350]];
  const pinched = pinchView(view, before, after, SIZE, ROOM);
  assert.equal(pinched.scale, view.scale * 2);
  before.forEach((finger, i) => near(toImage(pinched, after[i]), toImage(view, finger)));
});

test("the crosshair is moved onto the canvas", () => {
  const view = { scale: 1, x: 0, y: 0 };
  assert.equal(reveal(view, [400, 300], ROOM), view);
  assert.deepEqual(reveal(view, [1000, 300], ROOM), { scale: 1, x: -240, y: 0 });
});

test("the worker draws what the canvas shows", () => {
  const view = { scale: 0.5, x: -100, y: 20 };
  assert.deepEqual(windowOf(view, 2), { left: 200, top: -40, across: 1, down: 1 });
});

test("the crosshair moves in larger steps in larger images", () => {
  assert.equal(step({ width: 240 }, false), 5);
  assert.equal(step({ width: 4000 }, true), 100);
});
