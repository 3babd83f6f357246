// Zoom and pan: the wheel and the buttons.

import { get, update } from "../state.js";
import { fit, room } from "./canvas.js";
import { panView, zoomView } from "./geometry.js";

const canvas = document.getElementById("canvas");
const STEP = 1.4; // factor of the buttons and keys
const LINE = 16; // CSS pixels of a line, for wheels that count lines

/** Zoom by a factor around a point of the canvas, by default around its middle. */
export function zoom(factor, point = [room().width / 2, room().height / 2]) {
  const { view, picture } = get();
  if (view) update({ view: zoomView(view, factor, point, picture, room()) });
}

export const zoomIn = () => zoom(STEP);
export const zoomOut = () => zoom(1 / STEP);

/** Move the image by CSS pixels. */
export function pan(dx, dy) {
  const { view, picture } = get();
  if (view) update({ view: panView(view, dx, dy, picture, room()) });
}

/** Move the image so that the view moves by a fifth of the canvas in a direction. */
export const panBy = (x, y) => pan((-x * room().width) / 5, (-y * room().height) / 5);

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const unit = event.deltaMode ? LINE : 1;
  if (event.shiftKey) return pan(-(event.deltaX || event.deltaY) * unit, 0);
  const { left, top } = canvas.getBoundingClientRect();
  const speed = event.ctrlKey ? 0.01 : 0.0015; // browsers report the pinch of a touchpad as a wheel with Ctrl
  zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * unit)) * speed), [event.clientX - left, event.clientY - top]);
}, { passive: false });

document.getElementById("zoom-in").addEventListener("click", zoomIn);
document.getElementById("zoom-out").addEventListener("click", zoomOut);
document.getElementById("zoom-fit").addEventListener("click", fit);
