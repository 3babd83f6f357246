// Handle the pointer and the keyboard on the canvas, and the keyboard shortcuts of the page.

import { addCorner, addBox, addPoint, choose, chooseNext, clear, everything, undo } from "./actions.js";
import { pixelAt, step, within } from "./geometry.js";
import { get, update } from "./state.js";

const DRAG = 6; // CSS pixels; a shorter movement of the pressed pointer is a click
const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
const canvas = document.getElementById("canvas");
const mode = () => document.querySelector("input[name=mode]:checked").value;
const place = (event) => pixelAt(event.clientX, event.clientY, canvas.getBoundingClientRect(), get().picture);
let pressed = null; // start of a press: {at: pixel of the image, x, y: in the window, dragging}

/** Add a point or, in the mode "Box", a corner of a box. */
function mark(point, subtract, hint) {
  if (mode() === "box") addCorner(point, hint);
  else addPoint(point, !(subtract || mode() === "subtract"));
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button || !get().picture) return;
  update({ crosshairShown: false });
  canvas.setPointerCapture(event.pointerId);
  pressed = { at: place(event), x: event.clientX, y: event.clientY, dragging: false };
});
canvas.addEventListener("pointermove", (event) => {
  if (!pressed) return;
  pressed.dragging ||= Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > DRAG;
  if (pressed.dragging) update({ draft: [pressed.at, place(event)] });
});
canvas.addEventListener("pointerup", (event) => {
  if (!pressed) return;
  const { at, dragging } = pressed;
  pressed = null;
  if (dragging) addBox(at, place(event));
  else mark(at, event.shiftKey, "Click the opposite corner of the box.");
});
canvas.addEventListener("pointercancel", () => {
  pressed = null;
  update({ draft: null });
});

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { picture, crosshair, corner } = get();
  const key = event.key.toLowerCase();
  const arrow = ARROWS[key];
  if (arrow) {
    const length = step(picture, event.shiftKey);
    const moved = within([crosshair[0] + arrow[0] * length, crosshair[1] + arrow[1] * length], picture);
    update({ crosshair: moved, ...(corner ? { draft: [corner, moved] } : {}) });
  } else if (key === "enter" || key === " ") mark(crosshair, event.shiftKey, "Move the crosshair to the opposite corner and press Enter.");
  else if (key === "b") addCorner(crosshair, "Move the crosshair to the opposite corner and press B again.");
  else return;
  update({ crosshairShown: true });
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=radio]), select") || event.ctrlKey || event.metaKey || event.altKey || !get().picture) return;
  const key = event.key.toLowerCase();
  if (key === "u") undo();
  else if (key === "escape") clear();
  else if (key === "e") everything();
  else if (key === "n") chooseNext();
  else if (/^[1-3]$/.test(key)) choose(Number(key) - 1);
});
