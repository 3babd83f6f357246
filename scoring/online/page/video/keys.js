// All keys of the page for videos: one table for the handler and for the sheet of keys.

import { $, element } from "../panel/dom.js";
import { step as arrowStep, within } from "../view/geometry.js";
import { addCorner, clearFrame, remove, select, undo } from "./edit.js";
import { actAt } from "./pointer.js";
import { goTo, goToPrompt, step, togglePlay } from "./player.js";
import { get, update } from "./state.js";
import { stop, track } from "./track.js";
import { promptedFrames } from "./tracks.js";

const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
const TYPED = "input:not([type=checkbox], [type=range]), select, textarea"; // elements that need the keys themselves
const trackOrStop = () => (get().running ? stop() : track());
const toPrompt = (by) => () => goToPrompt(promptedFrames(get()), by);

// Groups of rows [keys, text, {key: action}]. A key is as in KeyboardEvent.key, in lower case, with "shift+" or "ctrl+".
const KEYS = [
  ["Clicks", [
    ["click, Enter", "add a point on the object, or start a new object"],
    ["right-click, Shift click, Shift Enter", "add a point that is not on the object"],
    ["drag, B twice", "draw a box around the object"],
    ["tap, long press", "on a touch screen: add, subtract"],
    ["arrow keys", "move the crosshair (with Shift: farther)"],
    ["N, Esc", "the next click starts a new object", { n: () => select(null), escape: () => select(null) }],
    ["1 … 9", "select the object", Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((id) => [id, () => get().objects.some((object) => object.id === id) && select(id)]))],
    ["C", "clear the object on this frame", { c: clearFrame }],
    ["Del", "delete the object", { delete: () => remove(), backspace: () => remove() }],
    ["U, Ctrl Z", "undo", { u: undo, "ctrl+z": undo }],
  ]],
  ["Frames", [
    ["comma, full stop", "previous frame, next frame", { ",": () => step(-1), ".": () => step(1) }],
    ["Page Up, Page Down", "10 frames back, 10 frames on", { pageup: () => step(-10), pagedown: () => step(10) }],
    ["Home, End", "first frame, last frame", { home: () => goTo(0), end: () => goTo(Infinity) }],
    ["[ ]", "previous or next frame with clicks", { "[": toPrompt(-1), "]": toPrompt(1) }],
    ["Space", "play, pause", { " ": togglePlay }],
    ["T", "track from this frame, or stop", { t: trackOrStop }],
    ["?", "show this list", { "?": () => $("keys").showModal(), "shift+?": () => $("keys").showModal() }],
  ]],
];
const ACTIONS = new Map(KEYS.flatMap(([, rows]) => rows.flatMap(([, , actions]) => Object.entries(actions ?? {}))));

$("canvas").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !get().clip) return;
  const { clip, crosshair, corner } = get();
  const size = { width: clip.size[1], height: clip.size[0] };
  const key = event.key.toLowerCase();
  const arrow = ARROWS[key];
  if (arrow) {
    const length = arrowStep(size, event.shiftKey);
    const moved = within([crosshair[0] + arrow[0] * length, crosshair[1] + arrow[1] * length], size);
    update({ crosshair: moved, ...(corner ? { draft: [corner, moved] } : {}) });
  } else if (key === "enter") actAt(crosshair, event.shiftKey);
  else if (key === "b" && $("letters").checked) addCorner(crosshair);
  else return;
  update({ crosshairShown: true });
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.target.matches(TYPED) || document.querySelector("dialog[open]")) return;
  const control = event.ctrlKey || event.metaKey;
  const name = `${control ? "ctrl+" : ""}${event.shiftKey ? "shift+" : ""}${event.key.toLowerCase()}`;
  if (!control && event.key.length === 1 && !$("letters").checked) return;
  if (event.key === " " && event.target.matches("button, summary, input")) return; // Space presses the button
  if (/^(home|end|page)/i.test(event.key) && event.target.matches("input[type=range], ol")) return;
  const action = ACTIONS.get(name);
  if (!action || (!get().clip && event.key !== "?")) return;
  event.preventDefault();
  action();
});

for (const [title, rows] of KEYS) {
  const terms = rows.flatMap(([keys, text]) => [element("dt", {}, ...keys.split(/(, )/).map((part) => (part === ", " ? part : element("kbd", {}, part)))), element("dd", {}, text)]);
  $("keys-list").append(element("section", {}, element("h3", {}, title), element("dl", {}, ...terms)));
}
$("open-keys").addEventListener("click", () => $("keys").showModal());
