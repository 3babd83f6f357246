// Track the objects: send the video with the prompts, and take the masks while they arrive.

import { postVideo } from "../endpoint/api.js";
import { decodeRuns } from "../masks/rle.js";
import { maskOf } from "../masks/runs.js";
import { fail } from "./errors.js";
import { changeEverywhere, commit, get, setStatus, update } from "./state.js";
import { promptsFrom, withAnswer, withoutTracksAfter } from "./tracks.js";

let controller = null; // AbortController of the request in progress
let runs = 0; // number of the latest tracking
let follows = true; // whether the view follows the latest answer

/** Track all objects from the shown frame to the end, with the corrections on later frames. */
export async function track() {
  const { clip, frame: from, model, key } = get();
  if (!clip || get().running) return;
  const prompts = promptsFrom(get(), from);
  if (!prompts.length) return setStatus("Click on an object first.", true);
  const { signal } = (controller = new AbortController());
  follows = true;
  const begin = performance.now();
  const run = ++runs;
  commit({ tracks: withoutTracksAfter(get(), from), run }, { playing: false, running: { from, last: from, done: 0, begin } });
  setStatus("Tracking …");
  try {
    let end = null;
    for await (const line of postVideo("track", clip.file, { prompts: JSON.stringify(prompts), model }, key, signal)) {
      if (signal.aborted) break;
      if ("object" in line) take(run, from, line);
      else end = line;
    }
    if (signal.aborted) return stopped(clip);
    if (!end) throw new Error("The endpoint stopped before the last frame. The masks that arrived are kept.");
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    if (end.error) setStatus(`Tracking stopped. ${end.error} The masks before are kept.`, true);
    else setStatus(`Tracked to the last frame in ${seconds} s. Look through the clip. Correct an object on a frame where it is wrong, then track from there.`);
  } catch (error) {
    if (signal.aborted) return stopped(clip);
    fail(error);
  }
  update({ running: null });
}

function stopped(clip) {
  if (get().clip?.id !== clip.id) return; // another video has been opened
  setStatus(`Stopped after frame ${get().running.last}. The masks that arrived are kept.`);
  update({ running: null });
}

// The user can click during the tracking, so the versions of this tracking before those clicks take the answer, too.
function take(run, from, { frame, object, encoded_binary_mask: counts, size, score }) {
  const { running } = get();
  const answer = { frame, object, track: { mask: maskOf(decodeRuns(counts, size), size), score } };
  const isNew = frame > running.last;
  const next = { ...running, last: Math.max(running.last, frame), done: running.done + (isNew ? 1 : 0) };
  const change = (version) => (version.run === run ? { tracks: withAnswer(version, from, answer) } : {});
  changeEverywhere(change, { saved: false, running: next, ...(follows && isNew ? { frame } : {}) });
}

/** Stop tracking. The endpoint stops too, and the masks that have arrived are kept. */
export const stop = () => controller?.abort();

/** Stop following the latest answer, because the user looks at another frame. */
export const unfollow = () => (follows = false);
