// Handle the mouse, the pen and fingers on the frame.

import { pixelAt } from "../view/geometry.js";
import { viewOf } from "./canvas.js";
import { addBox, addPoint, objectAt, select } from "./edit.js";
import { get, update } from "./state.js";

const DRAG = 6; // CSS pixels; a shorter movement of the pressed pointer is a click
const LONG = 500; // ms; a longer press of a finger subtracts
const canvas = document.getElementById("canvas");
let press = null; // the press in progress: {id, start, at: pixel of the frame, subtract, dragging, timer}

function pixelOf({ clientX, clientY }) {
  const { left, top } = canvas.getBoundingClientRect();
  const { clip } = get();
  return pixelAt(viewOf(clip), [clientX - left, clientY - top], { width: clip.size[1], height: clip.size[0] });
}

/** Add a point at a pixel of the frame to the active object. If no object is active, a click on a mask selects its object. */
export function actAt(point, subtract) {
  const hit = !subtract && !get().active && objectAt(point);
  if (hit) select(hit.id);
  else addPoint(point, !subtract);
}

canvas.addEventListener("pointerdown", (event) => {
  if (!get().clip || event.button === 1 || event.button > 2 || press) return cancel();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  update({ crosshairShown: false });
  press = { id: event.pointerId, start: [event.clientX, event.clientY], at: pixelOf(event), subtract: event.button === 2 || event.shiftKey || event.ctrlKey, dragging: false };
  if (event.pointerType === "touch") press.timer = setTimeout(longPress, LONG);
});

function longPress() {
  navigator.vibrate?.(20);
  const { at } = press;
  cancel();
  actAt(at, true);
}

canvas.addEventListener("pointermove", (event) => {
  if (press?.id !== event.pointerId) return;
  press.dragging ||= Math.hypot(event.clientX - press.start[0], event.clientY - press.start[1]) > DRAG;
  if (!press.dragging) return;
  clearTimeout(press.timer);
  if (!press.subtract) update({ draft: [press.at, pixelOf(event)] });
});

canvas.addEventListener("pointerup", (event) => {
  if (press?.id !== event.pointerId) return;
  const { at, dragging, subtract } = press;
  cancel();
  if (dragging && !subtract) addBox(at, pixelOf(event));
  else if (!dragging) actAt(at, subtract);
});
canvas.addEventListener("pointercancel", cancel);
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

function cancel() {
  clearTimeout(press?.timer);
  press = null;
  if (get().draft) update({ draft: null });
}
