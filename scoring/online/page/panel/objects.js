// The list of objects of the open image, and the proposals of "everything".

import { accept, acceptAll, clean, discardProposals, mark, merge, move, remove, select, setHidden, toggleAll } from "../actions/edit.js";
import { activeObject, shownObjects, watch } from "../state.js";
import { colourOf } from "../view/styles.js";
import { $, element, iconButton, set, showText, syncList } from "./dom.js";
import { icon } from "./icons.js";

const DISPLAYED = ["project", "imageId", "active", "marked", "colourBy"]; // parts of the state that the list shows

watch((state, before) => {
  if (DISPLAYED.every((name) => state[name] === before[name])) return;
  const objects = shownObjects(state);
  const proposals = objects.filter(({ proposal }) => proposal).length;
  const labelled = objects.length - proposals;
  syncList($("objects"), objects, makeRow, (row, object, i) => fillRow(row, object, i, state));
  set($("objects-count"), "textContent", String(labelled));
  $("proposals").hidden = !proposals;
  showText("proposals-text", proposals ? `${proposals} proposal${proposals === 1 ? "" : "s"}. Click on one in the image to accept it.` : "");
  const active = activeObject(state);
  set($("up"), "disabled", !active || objects.at(-1) === active);
  set($("down"), "disabled", !active || objects[0] === active);
  set($("clean"), "disabled", !active?.mask);
  set($("merge"), "disabled", new Set([...state.marked, ...(active ? [active.id] : [])]).size < 2);
  set($("hide-all"), "disabled", !objects.length);
  set($("hide-all"), "textContent", objects.length && objects.every(({ hidden }) => hidden) ? "Show all" : "Hide all");
  if (state.active !== before.active && state.active) reveal($("objects"), state.active);
});

/** Scroll the list, but not the page, so that the row of an object is visible. */
function reveal(list, id) {
  const row = list.querySelector(`[data-id="${id}"]`);
  if (!row) return;
  const [outer, inner] = [list.getBoundingClientRect(), row.getBoundingClientRect()];
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
}

function makeRow({ id }) {
  const box = element("input", { type: "checkbox", onchange: () => mark(id, box.checked) });
  const name = element("button", { type: "button", className: "name", onclick: () => select(id) }, element("span", { className: "swatch" }), element("span", { className: "title" }), element("span", { className: "facts" }));
  const eye = iconButton("shown", "", () => setHidden([id], !shownObjects().find((object) => object.id === id).hidden));
  const yes = iconButton("accept", "", () => accept([id]));
  const bin = iconButton("delete", "", () => remove([id]));
  eye.classList.add("eye");
  yes.classList.add("yes");
  return element("li", {}, box, name, yes, eye, bin);
}

function fillRow(row, object, i, state) {
  const [box, name, yes, eye, bin] = row.children;
  const title = `${i + 1} ${object.proposal ? "proposal" : state.project.classes.find(({ id }) => id === object.classId)?.name}`;
  set(box, "checked", state.marked.includes(object.id));
  box.setAttribute("aria-label", `Mark ${title}`);
  name.setAttribute("aria-pressed", String(object.id === state.active));
  row.classList.toggle("active", object.id === state.active);
  row.classList.toggle("proposal", object.proposal);
  name.children[0].style.background = colourOf(object, state);
  set(name.children[1], "textContent", title);
  set(name.children[2], "textContent", object.mask ? `${object.mask.area.toLocaleString()} px` : "no mask yet");
  set(yes, "hidden", !object.proposal);
  set(eye, "hidden", object.proposal);
  relabel(yes, `Accept ${title}`);
  relabel(bin, `Delete ${title}`);
  if (relabel(eye, `${object.hidden ? "Show" : "Hide"} ${title}`)) eye.replaceChildren(icon(object.hidden ? "hidden" : "shown"));
}

function relabel(button, label) {
  if (button.title === label) return false;
  button.title = label;
  button.setAttribute("aria-label", label);
  return true;
}

$("accept-all").addEventListener("click", acceptAll);
$("discard").addEventListener("click", discardProposals);
$("up").addEventListener("click", () => move(1));
$("down").addEventListener("click", () => move(-1));
$("merge").addEventListener("click", merge);
$("clean").addEventListener("click", clean);
$("hide-all").addEventListener("click", toggleAll);
