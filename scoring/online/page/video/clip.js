// Open a video: the endpoint decodes it, so that the frames and their numbers are exactly those of the tracker.

import { postVideo } from "../endpoint/api.js";
import { fail } from "./errors.js";
import { get, NO_TRACKS, setStatus, update } from "./state.js";
import { stop } from "./track.js";

let opening = null; // AbortController of the request in progress
let clips = 0;

/** Open a video file, and show its frames while they arrive. */
export async function openClip(file) {
  opening?.abort();
  stop();
  const { signal } = (opening = new AbortController());
  const clip = { id: `clip-${++clips}`, name: file.name, file, size: null, count: 0, frames: [], complete: false };
  update({ clip: null, frame: 0, playing: false, ...NO_TRACKS, past: [], active: null, draft: null, corner: null, crosshair: null, running: null, saved: true });
  setStatus(`Opening ${file.name} …`);
  try {
    for await (const line of postVideo("frames", file, {}, get().key, signal)) {
      if (signal.aborted) return;
      if ("jpeg" in line) add(clip, line);
      else return finish(clip, line);
    }
    throw new Error("The endpoint stopped before the last frame. Open the video again.");
  } catch (error) {
    if (signal.aborted) return;
    fail(error);
  }
}

function add(clip, { seconds, count, size, jpeg }) {
  const blob = new Blob([Uint8Array.from(atob(jpeg), (character) => character.charCodeAt(0))], { type: "image/jpeg" });
  Object.assign(clip, { size, count });
  clip.frames.push({ seconds, blob });
  const isFirst = clip.frames.length === 1;
  update({ clip: { ...clip }, ...(isFirst ? { crosshair: [Math.round(size[1] / 2), Math.round(size[0] / 2)] } : {}) });
  if (isFirst) setStatus("Click on an object, or drag a box around it. The other frames are still arriving.");
}

function finish(clip, { error }) {
  if (!clip.frames.length) return setStatus(error ?? "The video has no frames.", true);
  update({ clip: { ...clip, complete: true, count: clip.frames.length } });
  if (error) setStatus(`Only the first ${clip.frames.length} frames can be used. ${error}`, true);
  else if (!get().objects.length) setStatus("Click on an object, or drag a box around it, on any frame.");
}
