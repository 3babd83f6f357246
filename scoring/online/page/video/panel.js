// The panel: messages, the list of objects, tracking, downloads, and the slider of frames.

import { modelOf } from "../endpoint/models.js";
import { $, element, iconButton, relabel, set, showText, syncList } from "../panel/dom.js";
import { icon } from "../panel/icons.js";
import { saveAs } from "../panel/save.js";
import { colourOf } from "./canvas.js";
import { clearFrame, remove, select, setHidden, undo } from "./edit.js";
import { toLines, toPrompts, toYouTubeVis } from "./formats.js";
import { goTo, step, togglePlay } from "./player.js";
import { get, update, watch } from "./state.js";
import { stop, track } from "./track.js";
import { promptAt, promptedFrames, promptsFrom, trackAt } from "./tracks.js";

watch((state, before) => {
  if (state.status !== before.status) {
    set($("status"), "textContent", state.status.text);
    $("status").classList.toggle("wrong", state.status.isError);
  }
  showFrame(state);
  if (state.playing !== before.playing) showPlaying(state.playing);
  syncList($("objects"), state.objects, makeRow, (row, object) => fillRow(row, object, state));
  set($("objects-count"), "textContent", String(state.objects.length));
  showTracking(state);
  const has = (frame) => promptAt(state, frame, state.active) || trackAt(state, frame, state.active);
  set($("clear"), "disabled", !state.active || !has(state.frame) || Boolean(state.running));
  set($("undo"), "disabled", !state.past.length || Boolean(state.running));
  set($("new"), "disabled", !state.active);
  const isEmpty = !state.tracks.some((entries) => entries && Object.keys(entries).length);
  for (const id of ["save-lines", "save-vis", "save-prompts"]) set($(id), "disabled", isEmpty);
  set($("opacity"), "value", String(state.opacity));
  const { capabilities, name } = modelOf(state.models, state.model) ?? {};
  showText("tracker-note", capabilities?.video === false ? `${name} has no memory of earlier frames. It follows the box of each object's last mask, and can lose objects that are hidden or that cross.` : "");
  if (state.tracks !== before.tracks || state.prompts !== before.prompts || state.clip !== before.clip) drawTimeline(state);
});

function showFrame({ clip, frame }) {
  if (!clip) return;
  const { length } = clip.frames;
  set($("scrub"), "max", String(length - 1));
  set($("scrub"), "value", String(frame));
  const text = `Frame ${frame} of ${length - 1}, ${clip.frames[frame].seconds.toFixed(2)} s`;
  set($("position"), "textContent", clip.complete ? text : `${text} …`);
  $("scrub").setAttribute("aria-valuetext", text);
}

function showPlaying(playing) {
  $("play").replaceChildren(icon(playing ? "pause" : "play"));
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
}

function makeRow({ id }) {
  const name = element("button", { type: "button", className: "name", onclick: () => select(id) }, element("span", { className: "swatch" }), element("span", { className: "title" }, `Object ${id}`), element("span", { className: "facts" }));
  const eye = iconButton("shown", "", () => setHidden(id, !get().objects.find((object) => object.id === id).hidden));
  return element("li", {}, name, eye, iconButton("delete", `Delete object ${id}`, () => remove(id)));
}

function fillRow(row, { id, hidden }, state) {
  const [name, eye] = row.children;
  const track = trackAt(state, state.frame, id);
  const score = `${promptAt(state, state.frame, id) ? "clicked," : "score"} ${track?.score.toFixed(2)}`;
  name.setAttribute("aria-pressed", String(id === state.active));
  row.classList.toggle("active", id === state.active);
  name.children[0].style.background = colourOf(id);
  set(name.children[2], "textContent", track ? (track.mask.area ? score : "not visible") : "no mask here");
  if (relabel(eye, `${hidden ? "Show" : "Hide"} object ${id}`)) eye.replaceChildren(icon(hidden ? "hidden" : "shown"));
}

function showTracking(state) {
  const { clip, frame, running, objects } = state;
  set($("track"), "hidden", Boolean(running));
  set($("stop"), "hidden", !running);
  const last = (clip?.frames.length ?? 1) - 1;
  set($("track"), "textContent", `Track from frame ${frame}`);
  set($("track"), "disabled", !clip?.complete || frame >= last || !objects.length || !promptsFrom(state, frame).length);
  set($("progress"), "hidden", !running);
  if (!running) return showText("progress-text", "");
  set($("progress"), "max", Math.max(1, last - running.from));
  set($("progress"), "value", running.last - running.from);
  const rate = running.done / ((performance.now() - running.begin) / 1000);
  const left = rate ? `, ${rate.toFixed(1)} frames a second, ${Math.ceil((last - running.last) / rate)} s left` : "";
  showText("progress-text", `Frame ${running.last} of ${last}${left}`);
}

/** Draw a pixel for each frame: frames with clicks, frames with masks, and the others. */
function drawTimeline({ clip, tracks, prompts }) {
  if (!clip) return;
  const line = $("timeline");
  line.width = Math.max(1, clip.count);
  const context = line.getContext("2d");
  const paint = (frames, style) => {
    context.fillStyle = style;
    for (const frame of frames) context.fillRect(frame, 0, 1, 1);
  };
  paint(tracks.flatMap((entries, frame) => (entries && Object.keys(entries).length ? [frame] : [])), "#56b4e9");
  paint(promptedFrames({ prompts }), "#d55e00");
}

const stemOf = () => get().clip.name.replace(/\.[^.]*$/, "");
const text = (content, type) => new Blob([content], { type });

$("save-lines").addEventListener("click", () => {
  saveAs(text(toLines(get()), "application/x-ndjson"), `${stemOf()}-tracks.jsonl`);
  update({ saved: true });
});
$("save-vis").addEventListener("click", () => {
  saveAs(text(JSON.stringify(toYouTubeVis(get(), get().clip)), "application/json"), `${stemOf()}-youtube-vis.json`);
  update({ saved: true });
});
$("save-prompts").addEventListener("click", () => saveAs(text(JSON.stringify(toPrompts(get())), "application/json"), `${stemOf()}-prompts.json`));
$("track").addEventListener("click", track);
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", () => select(null));
$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clearFrame);
$("back").addEventListener("click", () => step(-1));
$("forward").addEventListener("click", () => step(1));
$("play").addEventListener("click", togglePlay);
$("scrub").addEventListener("input", () => goTo(Number($("scrub").value)));
$("opacity").addEventListener("input", () => update({ opacity: Number($("opacity").value) }));
for (const id of ["back", "forward"]) $(id).append(icon(id));
showPlaying(false);
