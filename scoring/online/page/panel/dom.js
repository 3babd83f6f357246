// Small helpers to build and change the elements of the panels.

import { icon } from "./icons.js";

export const $ = (id) => document.getElementById(id);

/** Return a new element with properties and children. */
export function element(name, properties = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
}

/** Return a button that shows only a picture. `label` is its name for screen readers and its tooltip. */
export function iconButton(picture, label, onclick) {
  const button = element("button", { type: "button", title: label, className: "small", onclick }, icon(picture));
  button.setAttribute("aria-label", label);
  return button;
}

/** Set a property of an element only if it differs, because each change may be read out or redrawn. */
export function set(target, name, value) {
  if (target[name] !== value) target[name] = value;
}

/** Show a text, or hide the element if the text is empty. */
export function showText(id, text) {
  set($(id), "textContent", text);
  set($(id), "hidden", !text);
}

/**
 * Make the children of a list match `items`. The row of an item stays the same element, so it keeps the keyboard focus.
 *
 * `make(item)` returns a new row, and `fill(row, item, i)` updates a row. Items have an `id`.
 */
export function syncList(list, items, make, fill) {
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  items.forEach((item, i) => {
    let row = rows.get(item.id);
    if (!row) {
      row = make(item);
      row.dataset.id = item.id;
    }
    rows.delete(item.id);
    if (list.children[i] !== row) list.insertBefore(row, list.children[i] ?? null);
    fill(row, item, i);
  });
  for (const row of rows.values()) row.remove();
}

/** Scroll a list, but not the page, so that the row of an item is visible. */
export function reveal(list, id) {
  const row = list.querySelector(`[data-id="${id}"]`);
  if (!row) return;
  const [outer, inner] = [list.getBoundingClientRect(), row.getBoundingClientRect()];
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
}

/** Change the label and the tooltip of a button. Return whether they differ from before. */
export function relabel(button, label) {
  if (button.title === label) return false;
  button.title = label;
  button.setAttribute("aria-label", label);
  return true;
}

/** Ask a question, and return a promise of whether the user agrees. */
export function confirmed(text) {
  const dialog = $("confirm");
  $("confirm-text").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
