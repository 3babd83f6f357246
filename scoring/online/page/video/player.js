// Go through the frames: play, pause, step, scrub.

import { get, setStatus, update } from "./state.js";
import { unfollow } from "./track.js";
import { frameAt } from "./tracks.js";

/** Show a frame. */
export function goTo(frame) {
  const { clip } = get();
  if (!clip) return;
  unfollow();
  update({ frame: Math.max(0, Math.min(clip.frames.length - 1, frame)), playing: false, draft: null, corner: null });
}

/** Show the frame that is `by` frames later. */
export const step = (by) => goTo(get().frame + by);

/** Play the clip at its own speed, frame times included, or pause. At the end, it starts again at the first frame. */
export function togglePlay() {
  const { clip, playing, frame } = get();
  if (!clip) return;
  unfollow();
  if (playing) return update({ playing: false });
  const start = frame >= clip.frames.length - 1 ? 0 : frame;
  update({ playing: true, frame: start, draft: null, corner: null });
  const offset = clip.frames[start].seconds * 1000 - performance.now();
  requestAnimationFrame(function advance() {
    const { clip: now, playing: on, frame: shown } = get();
    if (!on || now?.id !== clip.id) return;
    const next = frameAt(now.frames, (performance.now() + offset) / 1000);
    if (next !== shown) update({ frame: next });
    if (next >= now.frames.length - 1) return update({ playing: false });
    requestAnimationFrame(advance);
  });
}

/** Show the next or the previous frame on which an object has clicks. */
export function goToPrompt(frames, by) {
  const { frame } = get();
  const next = by > 0 ? frames.find((other) => other > frame) : frames.findLast((other) => other < frame);
  if (next === undefined) setStatus(by > 0 ? "No later frame has clicks." : "No earlier frame has clicks.");
  else goTo(next);
}
