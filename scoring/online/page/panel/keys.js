// Handle the keyboard: the crosshair on the canvas, the shortcuts of the page, and the sheet of keys.

import { addCorner } from "../actions/segment.js";
import { get, update, watch } from "../state.js";
import { room } from "../view/canvas.js";
import { limitView, reveal, step, within } from "../view/geometry.js";
import { actAt, holdSpace } from "../view/pointer.js";
import { $, element, set } from "./dom.js";
import { actionFor, KEYS } from "./keymap.js";

const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
const TYPED = "input:not([type=radio], [type=checkbox], [type=range]), select, textarea"; // elements that need the keys themselves

$("canvas").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { picture, crosshair, corner, view } = get();
  if (!picture) return;
  const key = event.key.toLowerCase();
  const arrow = ARROWS[key];
  if (arrow) {
    const length = step(picture, event.shiftKey);
    const moved = within([crosshair[0] + arrow[0] * length, crosshair[1] + arrow[1] * length], picture);
    const shown = reveal(view, moved, room());
    update({ crosshair: moved, ...(shown === view ? {} : { view: limitView(shown, picture, room()) }), ...(corner ? { draft: [corner, moved] } : {}) });
  } else if (key === "enter") actAt(crosshair, event.shiftKey, "Move the crosshair to the opposite corner and press Enter.");
  else if (key === "b" && get().letters) addCorner(crosshair, "Move the crosshair to the opposite corner and press B again.");
  else if (key === " ") holdSpace(true);
  else return;
  update({ crosshairShown: true });
  event.preventDefault();
});
$("canvas").addEventListener("keyup", (event) => event.key === " " && holdSpace(false));
$("canvas").addEventListener("blur", () => holdSpace(false));

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.target.matches(TYPED) || document.querySelector("dialog[open]")) return;
  const action = actionFor(event);
  if (!action || (!get().picture && event.key !== "?" && !/^page/i.test(event.key))) return;
  event.preventDefault();
  action();
});

for (const [title, rows] of KEYS) {
  const terms = rows.flatMap(([keys, text]) => [element("dt", {}, ...keys.split(/(, )/).map((part) => (part === ", " ? part : element("kbd", {}, part)))), element("dd", {}, text)]);
  $("keys-list").append(element("section", {}, element("h3", {}, title), element("dl", {}, ...terms)));
}
$("open-keys").addEventListener("click", () => $("keys").showModal());
$("letters").addEventListener("change", () => update({ letters: $("letters").checked }));
watch(({ letters }) => set($("letters"), "checked", letters));
$("letters").checked = get().letters;
