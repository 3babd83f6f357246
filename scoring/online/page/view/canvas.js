// Draw the image, its masks and the prompt on the canvas, at most once per frame.
//
// The canvas fills the area for it on the page, and has the resolution of the screen. backdrop.js scales the image to the
// size of the canvas. The worker draws the masks at the same size, so a click never processes all pixels of a large image.

import { activeObject, get, setStatus, update, watch } from "../state.js";
import { Backdrop } from "./backdrop.js";
import { boxBetween, fitView, limitView, toCanvas } from "./geometry.js";
import { Layer } from "./layers.js";
import { drawBox, drawBrush, drawCrosshair, drawPoints } from "./markers.js";
import { paintLayer } from "./painter.js";
import { previewMasks, shownMasks } from "./styles.js";

const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
const afterwards = []; // functions to call after the next frame is drawn
let frame = 0; // id of the requested animation frame, or 0
let fitted = null; // the view that shows the whole image, to keep showing it when the window changes

const fail = (error) => setStatus(error.message, true);
const backdrop = new Backdrop(() => {
  draw();
  if (get().view) backdrop.settle(get().view, room(), devicePixelRatio);
});
const objects = new Layer(shownMasks, { name: "draw masks", paint: paintLayer, redraw: draw, fail });
const preview = new Layer(previewMasks, { name: "draw preview", paint: paintLayer, redraw: draw, fail });
const DRAWN = ["project", "imageId", "active", "view", "opacity", "colourBy", "stroke", "thresholds"]; // parts of the state that the layer of objects shows

/** Return the size of the canvas in CSS pixels. */
export const room = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });

watch((state, before) => {
  if (state.picture !== before.picture) return show(state.picture);
  if (DRAWN.some((name) => state[name] !== before[name])) objects.refresh(state, canvas, devicePixelRatio);
  if (state.hover !== before.hover || (state.hover && state.view !== before.view)) preview.refresh(state, canvas, devicePixelRatio);
  if (state.view !== before.view && state.view) backdrop.settle(state.view, room(), devicePixelRatio);
  draw();
});
new ResizeObserver(() => get().picture && resize()).observe(stage);
canvas.addEventListener("focus", draw);
canvas.addEventListener("blur", draw);

function show(picture) {
  canvas.hidden = !picture;
  document.getElementById("drop").hidden = Boolean(picture);
  stage.classList.toggle("full", Boolean(picture));
  objects.clear();
  preview.clear();
  backdrop.open(null);
  if (!picture) return;
  resize();
  backdrop.open(picture, get().view.scale * devicePixelRatio);
  canvas.focus({ preventScroll: true });
}

function resize() {
  const { picture, view } = get();
  const size = room();
  const [width, height] = [size.width, size.height].map((length) => Math.max(1, Math.round(length * devicePixelRatio)));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  if (view && view !== fitted) update({ view: limitView(view, picture, size) });
  else fit();
  draw();
}

/** Show the whole image. */
export function fit() {
  const { picture } = get();
  if (!picture) return;
  fitted = fitView(picture, room());
  update({ view: fitted });
}

function draw(then) {
  if (typeof then === "function") afterwards.push(then);
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const state = get();
    if (state.picture && state.view) drawState(state);
    afterwards.splice(0).forEach((call) => call());
  });
}

function drawState(state) {
  const { picture, view, draft, crosshair, crosshairShown, tool, pointer, radius, stroke } = state;
  const ratio = devicePixelRatio;
  const place = (point) => toCanvas(view, point).map((value) => value * ratio);
  context.clearRect(0, 0, canvas.width, canvas.height);
  backdrop.draw(context, view, ratio);
  objects.draw(context, view, ratio);
  preview.draw(context, view, ratio);
  Object.assign(canvas.dataset, { scale: view.scale, x: view.x, y: view.y, width: picture.width, height: picture.height });
  const { prompt, candidates } = activeObject(state) ?? {};
  const box = draft ? boxBetween(...draft) : prompt?.points.length || candidates?.length ? prompt.box : null;
  if (box) drawBox(context, box, place, ratio);
  if (prompt) drawPoints(context, prompt, place, ratio);
  const brushes = tool === "brush" || tool === "eraser";
  const hasKeys = crosshairShown && document.activeElement === canvas;
  const tip = stroke?.points.at(-1) ?? (hasKeys ? crosshair : pointer);
  if (brushes && tip) drawBrush(context, tip, place, radius * ratio, ratio);
  if (hasKeys) drawCrosshair(context, crosshair, place, ratio);
}

/** Return a promise of a PNG (a Blob) of the image at its full size, with the masks of `state` and the prompt. */
export async function overlayPng(state) {
  const { picture: { bitmap, width, height } } = state;
  const unit = Math.max(1, width / canvas.clientWidth);
  const sheet = new OffscreenCanvas(width, height);
  const paint = sheet.getContext("2d");
  paint.drawImage(bitmap, 0, 0);
  const masks = shownMasks(state);
  if (masks.length) paint.drawImage(await paintLayer(masks, { columns: width, rows: height, edge: Math.max(1, Math.round(unit)) }), 0, 0);
  const { prompt } = activeObject(state) ?? {};
  const place = (point) => point;
  if (prompt?.box) drawBox(paint, prompt.box, place, unit);
  if (prompt) drawPoints(paint, prompt, place, unit);
  return sheet.convertToBlob({ type: "image/png" });
}
