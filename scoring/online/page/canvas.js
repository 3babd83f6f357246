// Draw the image, its masks and the prompt on the canvas, at most once per frame.
//
// The canvas has the resolution of the screen. The image is scaled to it when the image is opened or the window is resized,
// and the worker draws the masks at that size. After a click, the main thread therefore draws only two bitmaps of the
// canvas's size, however large the image is.

import { boxBetween, fitted } from "./geometry.js";
import { drawBox, drawCrosshair, drawPoints } from "./markers.js";
import { paintLayer } from "./painter.js";
import { get, setStatus, shownMasks, watch } from "./state.js";

const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
let view = null; // the image at the size of the canvas
let layer = null; // the masks at the size of the canvas
let masks = []; // the masks in `layer`, or in the layer that the worker is drawing
let frame = 0; // id of the requested animation frame, or 0

watch((state, before) => {
  if (state.picture !== before.picture) show(state.picture);
  else if (state.prompt !== before.prompt) refreshLayer();
  draw();
});
addEventListener("resize", () => get().picture && fit());
canvas.addEventListener("focus", draw);
canvas.addEventListener("blur", draw);

function show(picture) {
  canvas.hidden = !picture;
  document.getElementById("drop").hidden = Boolean(picture);
  stage.classList.toggle("full", Boolean(picture));
  replaceView(null);
  replaceLayer(null);
  masks = [];
  if (!picture) return;
  fit();
  canvas.focus();
}

function fit() {
  const { picture } = get();
  const height = Math.max(120, innerHeight * (innerWidth > 736 ? 1 : 0.6) - 90);
  const { width, columns, rows } = fitted(picture, { width: stage.clientWidth, height }, devicePixelRatio);
  canvas.style.width = `${width}px`;
  if (view && columns === canvas.width && rows === canvas.height) return;
  [canvas.width, canvas.height] = [columns, rows];
  draw();
  createImageBitmap(picture.bitmap, { resizeWidth: columns, resizeHeight: rows, resizeQuality: "high" }).then((bitmap) => {
    if (picture !== get().picture || columns !== canvas.width || rows !== canvas.height) return bitmap.close();
    replaceView(bitmap);
    draw();
  }, () => {}); // the image has been closed in the meantime
  masks = [];
  refreshLayer();
}

/** Let the worker draw the masks of the state. The previous masks stay visible until it has finished. */
function refreshLayer() {
  const shown = shownMasks(get().prompt);
  if (shown.length === masks.length && shown.every((mask, i) => mask === masks[i])) return;
  masks = shown;
  if (!shown.length) return replaceLayer(null);
  const start = performance.now();
  const { width, height } = canvas;
  paintLayer(shown, width, height, Math.max(1, Math.round(devicePixelRatio))).then(
    (bitmap) => {
      if (masks !== shown || width !== canvas.width || height !== canvas.height) return bitmap.close();
      replaceLayer(bitmap);
      draw(() => performance.measure("draw masks", { start, end: performance.now(), detail: { width, height, masks: shown.length } }));
    },
    (error) => {
      if (masks !== shown) return;
      replaceLayer(null);
      setStatus(error.message, true);
    },
  );
}

function replaceView(bitmap) {
  view?.close();
  view = bitmap;
}

function replaceLayer(bitmap) {
  layer?.close();
  layer = bitmap;
}

const afterwards = []; // functions to call after the next frame is drawn

function draw(then) {
  if (typeof then === "function") afterwards.push(then);
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const state = get();
    if (state.picture) drawState(state);
    afterwards.splice(0).forEach((call) => call());
  });
}

function drawState({ picture, prompt, draft, crosshair, crosshairShown }) {
  const { width, height } = canvas;
  const scale = width / picture.width;
  context.clearRect(0, 0, width, height);
  if (view) context.drawImage(view, 0, 0, width, height);
  if (layer) context.drawImage(layer, 0, 0, width, height);
  const box = draft ? boxBetween(...draft) : prompt.box;
  if (box) drawBox(context, box, scale, devicePixelRatio);
  drawPoints(context, prompt, scale, devicePixelRatio);
  if (crosshairShown && document.activeElement === canvas) drawCrosshair(context, crosshair, scale, devicePixelRatio);
}

/** Return a promise of a PNG (a Blob) of the image at its full size, with its masks and the prompt. */
export async function overlayPng({ picture, prompt }) {
  const { bitmap, width, height } = picture;
  const unit = width / canvas.clientWidth;
  const sheet = new OffscreenCanvas(width, height);
  const paint = sheet.getContext("2d");
  paint.drawImage(bitmap, 0, 0);
  paint.drawImage(await paintLayer(shownMasks(prompt), width, height, Math.max(1, Math.round(unit))), 0, 0);
  if (prompt.box) drawBox(paint, prompt.box, 1, unit);
  drawPoints(paint, prompt, 1, unit);
  return sheet.convertToBlob({ type: "image/png" });
}
