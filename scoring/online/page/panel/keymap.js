// All keys of the page: one table for the handler and for the sheet of keys.

import {
  acceptAll, acceptNext, clean, escape, finish, merge, move, redo, remove, resizeBrush, setClass, setHidden, step, toggleAll, undo,
} from "../actions/edit.js";
import { doneAndNext, goTo } from "../actions/images.js";
import { everything, similar } from "../actions/search.js";
import { choose, chooseNext, segmentAgain } from "../actions/segment.js";
import { activeObject, get, setStatus, update } from "../state.js";
import { fit } from "../view/canvas.js";
import { panBy, zoomIn, zoomOut } from "../view/zoom.js";
import { $ } from "./dom.js";

const typeText = () => ($("text-form").hidden ? setStatus($("text-note").textContent) : $("text").focus());
const hideActive = () => activeObject() && setHidden([get().active], !activeObject().hidden);
const tool = (name) => () => update({ tool: name });

/** Groups of rows [keys, text, {key: action}]. A key is as in KeyboardEvent.key, in lower case, with "shift+" or "ctrl+" before it. */
export const KEYS = [
  ["Clicks", [
    ["click, Enter", "add a point on the object, or start a new object"],
    ["right-click, Shift click, Shift Enter", "add a point that is not on the object"],
    ["drag, B twice", "draw a box around the object"],
    ["tap, long press", "on a touch screen: add, subtract"],
    ["arrow keys", "move the crosshair (with Shift: farther)"],
    ["1 2 3, C", "show candidate 1, 2 or 3, or the next candidate", { 1: () => choose(0), 2: () => choose(1), 3: () => choose(2), c: chooseNext }],
    ["N, Esc", "finish the object: the next click starts a new one", { n: finish, escape }],
    ["O", "every click is a new object", { o: () => update({ each: !get().each }) }],
    ["R", "send the object's points again", { r: () => segmentAgain() }],
  ]],
  ["Tools", [
    ["P, T, X", "points, subtracting points, box", { p: tool("add"), t: tool("subtract"), x: tool("box") }],
    ["J, K", "brush, eraser", { j: tool("brush"), k: tool("eraser") }],
    ["[ ]", "smaller brush, larger brush", { "[": () => resizeBrush(1 / 1.25), "]": () => resizeBrush(1.25) }],
    ["V", "select objects and move the image", { v: tool("move") }],
  ]],
  ["Objects", [
    ["comma, full stop", "previous object, next object", { ",": () => step(-1), ".": () => step(1) }],
    ["Del", "delete the object", { delete: () => remove(), backspace: () => remove() }],
    ["H, Shift H", "hide the object, hide or show all objects", { h: hideActive, "shift+h": toggleAll }],
    ["M", "merge the marked objects", { m: merge }],
    ["L", "clean the object: no specks, no small holes", { l: clean }],
    ["Shift comma, Shift full stop", "move the object down or up in the list", { "shift+,": () => move(-1), "shift+<": () => move(-1), "shift+.": () => move(1), "shift+>": () => move(1) }],
    ["Shift 1 … Shift 9", "choose the class"],
    ["U, Ctrl Z", "undo", { u: undo, "ctrl+z": undo }],
    ["Shift U, Ctrl Y", "redo", { "shift+u": redo, "ctrl+y": redo, "ctrl+shift+z": redo }],
    ["E", "find every object in the image", { e: everything }],
    ["G", "find the objects that look like the selected one", { g: similar }],
    ["Q", "type what to find", { q: typeText }],
    ["Y, Shift Y", "accept the next proposal, accept all proposals", { y: acceptNext, "shift+y": acceptAll }],
  ]],
  ["View and images", [
    ["wheel, pinch, +, -", "zoom", { "+": zoomIn, "=": zoomIn, "shift++": zoomIn, "shift+=": zoomIn, "-": zoomOut }],
    ["W A S D, Space and drag, two fingers", "move the image", { w: () => panBy(0, -1), a: () => panBy(-1, 0), s: () => panBy(0, 1), d: () => panBy(1, 0) }],
    ["0", "show the whole image", { 0: fit }],
    ["Page Down, Page Up", "next image, previous image", { pagedown: () => goTo(1), pageup: () => goTo(-1) }],
    ["F", "mark the image as done, and open the next", { f: doneAndNext }],
    ["Ctrl V", "open a copied image or address"],
    ["?", "show this list", { "?": () => $("keys").showModal(), "shift+?": () => $("keys").showModal() }],
  ]],
];

const ACTIONS = new Map(KEYS.flatMap(([, rows]) => rows.flatMap(([, , actions]) => Object.entries(actions ?? {}))));

/** Return the action of a keyboard event, or undefined. Single keys have none if the user has turned them off. */
export function actionFor(event) {
  const control = event.ctrlKey || event.metaKey;
  if (event.altKey) return undefined;
  const digit = event.shiftKey && !control && /^Digit([1-9])$/.exec(event.code);
  if (digit) {
    const chosen = get().project.classes[digit[1] - 1];
    return get().letters && chosen ? () => setClass(chosen.id) : undefined;
  }
  const name = `${control ? "ctrl+" : ""}${event.shiftKey ? "shift+" : ""}${event.key.toLowerCase()}`;
  const needsLetters = !control && event.key.length === 1;
  return needsLetters && !get().letters ? undefined : ACTIONS.get(name);
}
