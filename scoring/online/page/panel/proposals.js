// The search by text, and the list of proposals with the threshold for their scores.

import { accept, acceptAll, discardProposals, remove, select, setThreshold } from "../actions/edit.js";
import { findTexts } from "../actions/search.js";
import { noTextNote } from "../endpoint/models.js";
import { objectsOf } from "../project/project.js";
import { scoreOf, thresholdRange } from "../project/proposals.js";
import { shownProposals, watch } from "../state.js";
import { colourOf } from "../view/styles.js";
import { $, element, iconButton, relabel, reveal, set, showText, syncList } from "./dom.js";

const DISPLAYED = ["project", "imageId", "active", "colourBy", "thresholds"]; // parts of the state that the list shows

watch((state, before) => {
  const note = state.picture ? noTextNote(state.models, state.model) : "";
  set($("text-form"), "hidden", !state.picture || !state.models.length || Boolean(note));
  showText("text-note", note);
  if (DISPLAYED.every((name) => state[name] === before[name])) return;
  const all = objectsOf(state.project, state.imageId).filter(({ proposal }) => proposal);
  const shown = shownProposals(state);
  set($("proposals"), "hidden", !all.length);
  set($("proposals-count"), "textContent", shown.length === all.length ? String(all.length) : `${shown.length} of ${all.length}`);
  set($("accept-all"), "disabled", !shown.length);
  showThreshold(state.thresholds[state.imageId] ?? 0, thresholdRange(all), shown.length, all.length);
  syncList($("proposal-list"), shown, makeRow, (row, object) => fillRow(row, object, state));
  if (state.active !== before.active && state.active) reveal($("proposal-list"), state.active);
});

function showThreshold(threshold, [low, high], shown, all) {
  const slider = $("threshold");
  const value = Math.max(low, Math.min(high, threshold)).toFixed(2);
  set(slider, "min", String(low));
  set(slider, "max", String(high));
  if (document.activeElement !== slider || Number(slider.value) !== threshold) set(slider, "value", value);
  set($("threshold-text"), "textContent", value);
  slider.setAttribute("aria-valuetext", `${value}: ${shown} of ${all} proposals`);
}

function makeRow({ id }) {
  const name = element("button", { type: "button", className: "name", onclick: () => select(id) }, element("span", { className: "swatch" }), element("span", { className: "title" }), element("span", { className: "facts" }));
  return element("li", { className: "proposal" }, name, iconButton("accept", "", () => accept([id])), iconButton("delete", "", () => remove([id])));
}

function fillRow(row, object, state) {
  const [name, yes, bin] = row.children;
  const title = object.concept?.name ?? "proposal";
  const score = scoreOf(object).toFixed(2);
  name.setAttribute("aria-pressed", String(object.id === state.active));
  row.classList.toggle("active", object.id === state.active);
  name.children[0].style.background = colourOf(object, state);
  set(name.children[1], "textContent", title);
  set(name.children[2], "textContent", `score ${score}`);
  relabel(yes, `Accept ${title}, score ${score}`);
  relabel(bin, `Reject ${title}, score ${score}`);
}

$("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  findTexts($("text").value);
});
$("threshold").addEventListener("input", () => setThreshold(Number($("threshold").value)));
$("accept-all").addEventListener("click", acceptAll);
$("discard").addEventListener("click", discardProposals);
