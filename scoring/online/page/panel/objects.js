// The list of objects of the open image. The proposals have a list of their own: see proposals.js.

import { clean, mark, merge, move, remove, select, setHidden, toggleAll } from "../actions/edit.js";
import { shownObjects, watch } from "../state.js";
import { colourOf } from "../view/styles.js";
import { $, element, iconButton, relabel, reveal, set, syncList } from "./dom.js";
import { icon } from "./icons.js";

const DISPLAYED = ["project", "imageId", "active", "marked", "colourBy"]; // parts of the state that the list shows

watch((state, before) => {
  if (DISPLAYED.every((name) => state[name] === before[name])) return;
  const objects = shownObjects(state).filter(({ proposal }) => !proposal);
  syncList($("objects"), objects, makeRow, (row, object, i) => fillRow(row, object, i, state));
  set($("objects-count"), "textContent", String(objects.length));
  const active = objects.find(({ id }) => id === state.active);
  set($("up"), "disabled", !active || objects.at(-1) === active);
  set($("down"), "disabled", !active || objects[0] === active);
  set($("clean"), "disabled", !active?.mask);
  set($("merge"), "disabled", new Set([...state.marked, ...(active ? [active.id] : [])]).size < 2);
  set($("hide-all"), "disabled", !objects.length);
  set($("hide-all"), "textContent", objects.length && objects.every(({ hidden }) => hidden) ? "Show all" : "Hide all");
  if (state.active !== before.active && state.active) reveal($("objects"), state.active);
});

function makeRow({ id }) {
  const box = element("input", { type: "checkbox", onchange: () => mark(id, box.checked) });
  const name = element("button", { type: "button", className: "name", onclick: () => select(id) }, element("span", { className: "swatch" }), element("span", { className: "title" }), element("span", { className: "facts" }));
  const eye = iconButton("shown", "", () => setHidden([id], !shownObjects().find((object) => object.id === id).hidden));
  const bin = iconButton("delete", "", () => remove([id]));
  eye.classList.add("eye");
  return element("li", {}, box, name, eye, bin);
}

function fillRow(row, object, i, state) {
  const [box, name, eye, bin] = row.children;
  const title = `${i + 1} ${state.project.classes.find(({ id }) => id === object.classId)?.name}`;
  set(box, "checked", state.marked.includes(object.id));
  box.setAttribute("aria-label", `Mark ${title}`);
  name.setAttribute("aria-pressed", String(object.id === state.active));
  row.classList.toggle("active", object.id === state.active);
  name.children[0].style.background = colourOf(object, state);
  set(name.children[1], "textContent", title);
  set(name.children[2], "textContent", object.mask ? `${object.mask.area.toLocaleString()} px` : "no mask yet");
  relabel(bin, `Delete ${title}`);
  if (relabel(eye, `${object.hidden ? "Show" : "Hide"} ${title}`)) eye.replaceChildren(icon(object.hidden ? "hidden" : "shown"));
}

$("up").addEventListener("click", () => move(1));
$("down").addEventListener("click", () => move(-1));
$("merge").addEventListener("click", merge);
$("clean").addEventListener("click", clean);
$("hide-all").addEventListener("click", toggleAll);
