// Draw the shown frame with the masks and the clicks. A frame and its masks are always drawn together.

import { PALETTE, rgb } from "../project/palette.js";
import { boxBetween, fitView, toCanvas, windowOf } from "../view/geometry.js";
import { drawBox, drawCrosshair, drawPoints } from "../view/markers.js";
import { paintLayer } from "../view/painter.js";
import { get, setStatus, watch } from "./state.js";
import { promptAt, trackAt } from "./tracks.js";

const EDGE = 1.5; // width of an outline in CSS pixels
const SPECK_AREA = 60; // CSS pixels on the screen; smaller parts of a mask get no outline
const WHITE = [255, 255, 255];
const DRAWN = ["clip", "frame", "objects", "prompts", "tracks", "active", "draft", "crosshair", "crosshairShown", "opacity"]; // parts of the state that are drawn
const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
let busy = false, again = false;
let decoded = null; // the latest frame: {blob, bitmap}

/** Return the colour of an object, such as "#0072b2". */
export const colourOf = (id) => PALETTE[(id - 1) % PALETTE.length];

/** Return the view that shows the whole frame on the canvas, as in view/geometry.js. */
export function viewOf({ size: [height, width] }) {
  return fitView({ width, height }, { width: canvas.clientWidth, height: canvas.clientHeight });
}

watch((state, before) => {
  if (state.clip?.id !== before.clip?.id) {
    document.getElementById("stage").classList.toggle("full", Boolean(state.clip));
    document.getElementById("drop").hidden = Boolean(state.clip);
    canvas.hidden = !state.clip;
  }
  if (DRAWN.some((name) => state[name] !== before[name])) draw();
});
new ResizeObserver(draw).observe(document.getElementById("stage"));
canvas.addEventListener("focus", draw);
canvas.addEventListener("blur", draw);

async function draw() {
  again = true;
  if (busy) return;
  busy = true;
  while (again) {
    again = false;
    if (get().clip) await drawState(get()).catch((error) => setStatus(error.message, true));
  }
  busy = false;
}

async function drawState(state) {
  const { clip, frame, draft, crosshair, crosshairShown, active } = state;
  const ratio = devicePixelRatio;
  const [columns, rows] = [canvas.clientWidth, canvas.clientHeight].map((length) => Math.max(1, Math.round(length * ratio)));
  const view = viewOf(clip);
  const masks = shownMasks(state);
  const options = { columns, rows, view: windowOf(view, ratio), edge: Math.round(EDGE * ratio), limit: 2 ** Math.round(Math.log2(SPECK_AREA / view.scale ** 2)) };
  const [bitmap, layer] = await Promise.all([bitmapOf(clip.frames[frame].blob), masks.length ? paintLayer(masks, options) : null]);
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  context.clearRect(0, 0, columns, rows);
  const [height, width] = clip.size;
  context.drawImage(bitmap, view.x * ratio, view.y * ratio, width * view.scale * ratio, height * view.scale * ratio);
  if (layer) context.drawImage(layer, 0, 0);
  layer?.close();
  const place = (point) => toCanvas(view, point).map((value) => value * ratio);
  const prompt = promptAt(state, frame, active);
  const box = draft ? boxBetween(...draft) : prompt?.points.length ? null : prompt?.box;
  if (box) drawBox(context, box, place, ratio);
  if (prompt) drawPoints(context, prompt, place, ratio);
  if (crosshairShown && document.activeElement === canvas) drawCrosshair(context, crosshair, place, ratio);
  Object.assign(canvas.dataset, { frame, masks: masks.length, scale: view.scale, x: view.x, y: view.y, width, height });
}

async function bitmapOf(blob) {
  if (decoded?.blob !== blob) {
    const bitmap = await createImageBitmap(blob);
    decoded?.bitmap.close();
    decoded = { blob, bitmap };
  }
  return decoded.bitmap;
}

function shownMasks(state) {
  return state.objects.flatMap(({ id, hidden }) => {
    const { mask } = trackAt(state, state.frame, id) ?? {};
    if (hidden || !mask?.area) return [];
    const colour = rgb(colourOf(id));
    return [{ mask, style: { fill: colour, line: id === state.active ? WHITE : colour, opacity: state.opacity, dashed: false } }];
  });
}
