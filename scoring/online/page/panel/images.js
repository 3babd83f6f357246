// The images of the data set: the list, the progress, and the buttons to go through it.

import { closeImage, doneAndNext, goTo, openStored, removeFromSet, setDone } from "../actions/images.js";
import { finished, progressOf } from "../project/project.js";
import { get, watch } from "../state.js";
import { $, confirmed, element, set, syncList } from "./dom.js";

watch((state, before) => {
  if (state.project === before.project && state.imageId === before.imageId && state.picture === before.picture) return;
  const { project, imageId } = state;
  const at = project.images.findIndex(({ id }) => id === imageId);
  const { labelled, total } = progressOf(project);
  set($("images-count"), "textContent", at < 0 ? String(total) : `${at + 1} of ${total}`);
  set($("progress"), "max", total || 1);
  set($("progress"), "value", labelled);
  set($("progress-text"), "textContent", at < 0 ? `${labelled} of ${total} labelled` : `${project.images[at].name}: ${labelled} of ${total} labelled`);
  set($("previous"), "disabled", at <= 0);
  set($("next"), "disabled", at < 0 || at >= total - 1);
  for (const id of ["done", "done-next", "remove-image"]) set($(id), "disabled", at < 0);
  set($("another"), "disabled", !state.picture);
  set($("done"), "checked", Boolean(project.images[at]?.done));
  syncList($("images"), project.images, makeRow, (row, image) => fillRow(row, image, state));
});

function makeRow({ id }) {
  return element("li", {}, element("button", { type: "button", className: "name", onclick: () => openStored(id) }, element("span", { className: "title" }), element("span", { className: "facts" })));
}

function fillRow(row, { id, name, done, missing }, { project, imageId }) {
  const [button] = row.children;
  const count = finished(project, id).length;
  row.classList.toggle("active", id === imageId);
  if (id === imageId) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  set(button.children[0], "textContent", name);
  set(button.children[1], "textContent", `${missing ? "file missing · " : ""}${count} object${count === 1 ? "" : "s"}${done ? " · done" : ""}`);
}

$("previous").addEventListener("click", () => goTo(-1));
$("next").addEventListener("click", () => goTo(1));
$("done").addEventListener("change", () => setDone($("done").checked));
$("done-next").addEventListener("click", doneAndNext);
$("another").addEventListener("click", closeImage);
$("remove-image").addEventListener("click", async () => {
  const { project, imageId } = get();
  const { name } = project.images.find(({ id }) => id === imageId);
  const count = finished(project, imageId).length;
  if (!count || (await confirmed(`Remove ${name} and its ${count} object${count === 1 ? "" : "s"} from the data set? This cannot be undone.`))) removeFromSet(imageId);
});
