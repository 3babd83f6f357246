// The list of classes: choose, add, rename, recolour and delete a class.

import { deleteClass, newClass, recolourClass, renameClass, setClass } from "../actions/edit.js";
import { watch } from "../state.js";
import { $, element, iconButton, set, syncList } from "./dom.js";

watch((state, before) => {
  if (state.project === before.project && state.classId === before.classId) return;
  const counts = new Map();
  for (const { classId, proposal } of Object.values(state.project.objects).flat()) if (!proposal) counts.set(classId, (counts.get(classId) ?? 0) + 1);
  syncList($("classes"), state.project.classes, makeRow, (row, item, i) => fillRow(row, item, i, state, counts.get(item.id) ?? 0));
});

function makeRow({ id }) {
  const chosen = element("input", { type: "radio", name: "class", value: id, onchange: () => setClass(id) });
  const colour = element("input", { type: "color", onchange: () => recolourClass(id, colour.value) });
  const name = element("input", { className: "name", autocomplete: "off", onchange: () => renameClass(id, name.value) });
  name.addEventListener("keydown", (event) => event.key === "Enter" && name.blur());
  return element("li", {}, chosen, colour, name, element("span", { className: "facts" }), iconButton("delete", "", () => deleteClass(id)));
}

function fillRow(row, { id, name, colour }, i, { classId }, count) {
  const [chosen, picker, text, facts, bin] = row.children;
  set(chosen, "checked", id === classId);
  set(picker, "value", colour);
  if (document.activeElement !== text) set(text, "value", name);
  set(facts, "textContent", String(count));
  chosen.setAttribute("aria-label", `Class ${name}`);
  chosen.title = i < 9 ? `Choose this class (Shift+${i + 1})` : "Choose this class";
  picker.setAttribute("aria-label", `Colour of ${name}`);
  text.setAttribute("aria-label", `Name of class ${name}`);
  set(bin, "title", `Delete class ${name}`);
  bin.setAttribute("aria-label", `Delete class ${name}`);
}

$("class-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("class-name").value.trim()) newClass($("class-name").value);
  $("class-name").value = "";
});
