// The tools beside the canvas: the tool for clicks, and buttons for the most frequent actions.

import { finish, redo, remove, resizeBrush, undo } from "../actions/edit.js";
import { everything, similar } from "../actions/search.js";
import { activeObject, get, update, watch } from "../state.js";
import { $, element, set } from "./dom.js";
import { icon } from "./icons.js";

const MODES = [
  ["add", "Add", "Add a point on the object (P)"],
  ["subtract", "Subtract", "Add a point that is not on the object (T)"],
  ["box", "Box", "Draw a box with two clicks (X)"],
  ["brush", "Brush", "Paint pixels of the object (J)"],
  ["eraser", "Eraser", "Erase pixels of the object (K)"],
  ["move", "Select", "Select objects, and drag the image (V)"],
];
const ACTIONS = [
  ["finish", "New", "Finish the object: the next click starts a new one (N)", finish, (state) => activeObject(state)],
  ["each", "Each click", "Every click is a new object (O)", () => update({ each: !get().each }), () => true],
  ["everything", "Everything", "Find every object in the image (E)", everything, (state) => state.picture],
  ["similar", "Similar", "Find the objects that look like the selected one (G)", similar, (state) => activeObject(state)?.mask?.area],
  ["undo", "Undo", "Undo (U)", undo, (state) => state.history.past.length],
  ["redo", "Redo", "Redo (Shift+U)", redo, (state) => state.history.future.length],
  ["delete", "Delete", "Delete the selected object (Del)", () => remove(), (state) => activeObject(state)],
  ["smaller", "Smaller", "Smaller brush ([)", () => resizeBrush(1 / 1.25), () => true],
  ["larger", "Larger", "Larger brush (])", () => resizeBrush(1.25), () => true],
];
const BRUSH = ["smaller", "larger"];

for (const [value, text, title] of MODES) {
  const input = element("input", { type: "radio", name: "mode", value, checked: value === get().tool });
  $("modes").append(element("label", { title }, input, icon(value), element("span", {}, text)));
}
for (const [id, text, title, onclick] of ACTIONS) $("actions").append(element("button", { id, title, onclick }, icon(id), element("span", {}, text)));
$("each").setAttribute("aria-pressed", "false");
for (const [id, picture] of [["zoom-out", "smaller"], ["zoom-fit", "fit"], ["zoom-in", "larger"]]) $(id).append(icon(picture));

$("modes").addEventListener("change", (event) => update({ tool: event.target.value, corner: null, draft: null, hover: null }));

watch((state, before) => {
  if (state.tool !== before.tool) for (const input of $("modes").querySelectorAll("input")) input.checked = input.value === state.tool;
  for (const [id, , , , enabled] of ACTIONS) set($(id), "disabled", !enabled(state));
  for (const id of BRUSH) set($(id), "hidden", state.tool !== "brush" && state.tool !== "eraser");
  if (state.each !== before.each) $("each").setAttribute("aria-pressed", String(state.each));
  $("canvas").dataset.tool = state.tool;
});
