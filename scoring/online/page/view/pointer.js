// Handle the mouse, the pen and the fingers on the canvas.

import { endStroke, select } from "../actions/edit.js";
import { addBox, addCorner, addPoint, objectAt } from "../actions/segment.js";
import { get, update } from "../state.js";
import { room } from "./canvas.js";
import { pinchView, pixelAt, toImage } from "./geometry.js";
import { hoverAt, stopHover } from "./hover.js";
import { pan } from "./zoom.js";

const DRAG = 6; // CSS pixels; a shorter movement of the pressed pointer is a click
const LONG = 500; // ms; a longer press of a finger subtracts
const canvas = document.getElementById("canvas");
const pointers = new Map(); // pointer id -> its point on the canvas
let press = null; // the press in progress: {id, start, at: pixel of the image, dragging, action, subtract, timer}
let spaceHeld = false; // whether the space bar is pressed: dragging moves the image

const onCanvas = (event) => {
  const { left, top } = canvas.getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
};
const pixel = (point) => pixelAt(get().view, point, get().picture);
const brushRadius = () => get().radius / get().view.scale; // in pixels of the image
const exact = (point) => toImage(get().view, point);

/** Add a point, a corner of a box or a dot of the brush at a pixel of the image, or select the object there. */
export function actAt(point, subtract, hint) {
  const { tool } = get();
  if (tool === "move") {
    const object = objectAt(point);
    if (object) select(object.id);
    else update({ active: null });
  } else if (tool === "brush" || tool === "eraser") {
    update({ stroke: { points: [point.map((value) => value + 0.5)], erases: (tool === "eraser") !== subtract, radius: brushRadius() } });
    endStroke();
  } else if (tool === "box" && !subtract) addCorner(point, hint);
  else addPoint(point, !(subtract || tool === "subtract"));
}

function actionOf(event) {
  if (event.button === 1 || spaceHeld) return "pan";
  const { tool } = get();
  if (tool === "move") return event.button === 2 ? "point" : "pan";
  return tool === "brush" || tool === "eraser" ? "stroke" : "point";
}

canvas.addEventListener("pointerdown", (event) => {
  if (!get().view || event.button > 2) return;
  if (event.button === 1) event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  const start = onCanvas(event);
  pointers.set(event.pointerId, start);
  if (pointers.size > 1) return cancel();
  const subtract = event.button === 2 || event.shiftKey || event.ctrlKey;
  press = { id: event.pointerId, start, last: start, at: pixel(start), dragging: false, action: actionOf(event), subtract, isClick: event.button !== 1 && !spaceHeld };
  update({ crosshairShown: false });
  if (press.action === "stroke") update({ stroke: { points: [exact(start)], erases: (get().tool === "eraser") !== subtract, radius: brushRadius() } });
  if (event.pointerType === "touch" && press.action === "point") press.timer = setTimeout(longPress, LONG);
});

function longPress() {
  navigator.vibrate?.(20);
  const { at } = press;
  cancel();
  addPoint(at, false);
}

canvas.addEventListener("pointermove", (event) => {
  if (!get().view) return;
  const point = onCanvas(event);
  if (pointers.size === 2 && pointers.has(event.pointerId)) return pinch(event.pointerId, point);
  pointers.set(event.pointerId, point);
  if (!event.buttons) pointers.delete(event.pointerId);
  if (event.pointerType !== "touch" && isBrush()) update({ pointer: exact(point) });
  if (!press) return event.pointerType === "touch" ? undefined : hoverAt(pixel(point));
  if (press.id !== event.pointerId) return;
  press.dragging ||= Math.hypot(point[0] - press.start[0], point[1] - press.start[1]) > DRAG;
  if (press.dragging) clearTimeout(press.timer);
  const { stroke } = get();
  if (press.action === "stroke" && stroke) update({ stroke: { ...stroke, points: [...stroke.points, ...event.getCoalescedEvents().map((part) => exact(onCanvas(part))), exact(point)] } });
  else if (press.action === "pan" && press.dragging) pan(point[0] - press.last[0], point[1] - press.last[1]);
  else if (press.action === "point" && press.dragging && !press.subtract) {
    stopHover();
    update({ draft: [press.at, pixel(point)] });
  }
  press.last = point;
});

const isBrush = () => ["brush", "eraser"].includes(get().tool);

canvas.addEventListener("pointerup", (event) => {
  pointers.delete(event.pointerId);
  if (!press || press.id !== event.pointerId) return;
  const { at, dragging, action, subtract, timer, isClick } = press;
  clearTimeout(timer);
  press = null;
  if (action === "stroke") endStroke();
  else if (dragging && action === "point" && !subtract) addBox(at, pixel(onCanvas(event)));
  else if (!dragging && isClick) actAt(at, subtract, "Click the opposite corner of the box.");
});
canvas.addEventListener("pointercancel", (event) => {
  pointers.delete(event.pointerId);
  cancel();
});
canvas.addEventListener("pointerleave", () => {
  if (press) return;
  pointers.clear();
  stopHover();
  if (get().pointer) update({ pointer: null });
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

/** Cancel the press in progress, for example because a second finger touches the canvas. */
function cancel() {
  clearTimeout(press?.timer);
  press = null;
  if (get().draft || get().stroke) update({ draft: null, stroke: null });
}

function pinch(id, point) {
  const before = [...pointers.values()];
  pointers.set(id, point);
  update({ view: pinchView(get().view, before, [...pointers.values()], get().picture, room()) });
}

/** Hold or release the space bar, which makes dragging move the image. */
export function holdSpace(held) {
  spaceHeld = held;
  canvas.classList.toggle("grab", held);
}
