// The canvas, at the size of the screen's pixels: the picture, its masks, the prompt. It is drawn once a frame at most.
//
// The picture is scaled down when it is opened or the window changes, and the worker draws the masks. A click costs the
// main thread two bitmaps of the screen's size, however large the picture is.

import { boxBetween, fitted } from "./geometry.js";
import { drawBox, drawCross, drawPoints } from "./markers.js";
import { paintLayer } from "./painter.js";
import { get, say, shownMasks, watch } from "./state.js";

const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
let view = null; // the picture at the canvas's size
let layer = null; // the masks at the canvas's size
let masks = []; // those that `layer` shows, or will once the worker has drawn them
let frame = 0;

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
  }, () => {}); // the picture was put away meanwhile
  masks = [];
  refreshLayer();
}

/** Let the worker draw the masks of the state; until it has, the earlier ones stay. */
function refreshLayer() {
  const wanted = shownMasks(get().prompt);
  if (wanted.length === masks.length && wanted.every((mask, i) => mask === masks[i])) return;
  masks = wanted;
  if (!wanted.length) return replaceLayer(null);
  const start = performance.now();
  const { width, height } = canvas;
  paintLayer(wanted, width, height, Math.max(1, Math.round(devicePixelRatio))).then(
    (bitmap) => {
      if (masks !== wanted || width !== canvas.width || height !== canvas.height) return bitmap.close();
      replaceLayer(bitmap);
      draw(() => performance.measure("draw masks", { start, end: performance.now(), detail: { width, height, masks: wanted.length } }));
    },
    (error) => {
      if (masks !== wanted) return;
      replaceLayer(null);
      say(error.message, true);
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

const afterwards = []; // what is called after the next frame is drawn

function draw(then) {
  if (typeof then === "function") afterwards.push(then);
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const state = get();
    if (state.picture) drawState(state);
    afterwards.splice(0).forEach((call) => call());
  });
}

function drawState({ picture, prompt, draft, cross, crossShown }) {
  const { width, height } = canvas;
  const scale = width / picture.width;
  context.clearRect(0, 0, width, height);
  if (view) context.drawImage(view, 0, 0, width, height);
  if (layer) context.drawImage(layer, 0, 0, width, height);
  const box = draft ? boxBetween(...draft) : prompt.box;
  if (box) drawBox(context, box, scale, devicePixelRatio);
  drawPoints(context, prompt, scale, devicePixelRatio);
  if (crossShown && document.activeElement === canvas) drawCross(context, cross, scale, devicePixelRatio);
}

/** Return a promise of a PNG, a Blob, of the whole picture at its own size with its masks and the prompt. */
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
