// The objects of a video, their prompts and their masks, and functions that return a changed copy. Pure.
//
// An object is {id, hidden}; its id is its number, from 1.
//   prompts: frame -> object -> {points, labels, box}, what the user has clicked
//   tracks: a list with one entry per frame, or none: object -> {mask, score}. On a frame with a prompt, the mask is the one
//   that the user has seen after the clicks. On other frames it is the tracker's.
//   run: number of the tracking whose masks the tracks have, or 0

/** Return the prompt of an object on a frame, or undefined. */
export const promptAt = ({ prompts }, frame, id) => prompts[frame]?.[id];

/** Return {mask, score} of an object on a frame, or undefined. */
export const trackAt = ({ tracks }, frame, id) => tracks[frame]?.[id];

/** Return the objects with an additional one, and its id. */
export function addObject({ objects }) {
  const id = Math.max(0, ...objects.map((object) => object.id)) + 1;
  return { objects: [...objects, Object.freeze({ id, hidden: false })], id };
}

/** Return {prompts, tracks} with the prompt and the mask of an object on a frame. null removes either. */
export const withPrompt = ({ prompts, tracks }, frame, id, prompt, track) => ({
  prompts: { ...prompts, [frame]: withEntry(prompts[frame], id, prompt) },
  tracks: withTrack(tracks, frame, id, track),
});

/** Return the tracks with the answer to a prompt, unless the object has another prompt on the frame. */
export const withClickAnswer = (state, frame, id, prompt, track) => (promptAt(state, frame, id) === prompt ? withTrack(state.tracks, frame, id, track) : state.tracks);

function withTrack(tracks, frame, id, track) {
  const copy = [...tracks];
  copy[frame] = withEntry(tracks[frame], id, track);
  return copy;
}

function withEntry(entries = {}, id, value) {
  const { [id]: _, ...others } = entries;
  return value ? { ...others, [id]: value } : others;
}

/** Return {objects, prompts, tracks} without an object. */
export const withoutObject = ({ objects, prompts, tracks }, id) => ({
  objects: objects.filter((object) => object.id !== id),
  prompts: Object.fromEntries(Object.entries(prompts).map(([frame, entries]) => [frame, withEntry(entries, id, null)])),
  tracks: tracks.map((entries) => withEntry(entries, id, null)),
});

/** Return the frames on which an object has a prompt, in order; without `id`, those on which any object has one. */
export const promptedFrames = ({ prompts }, id) =>
  Object.keys(prompts).map(Number).filter((frame) => (id === undefined ? Object.keys(prompts[frame]).length : prompts[frame][id])).sort((a, b) => a - b);

/**
 * Return the prompts for the endpoint, to track all objects from a frame on.
 *
 * Each object starts with its mask on this frame. An object that is hidden there starts with its mask on the last frame
 * before, on which it is visible. The masks of prompts on later frames correct the object there.
 */
export function promptsFrom(state, from) {
  const prompt = (frame, object) => {
    const { size, counts } = trackAt(state, frame, object).mask;
    return { frame, object, mask: { size, counts } };
  };
  return state.objects.flatMap(({ id }) => {
    const visible = (frame) => trackAt(state, frame, id)?.mask.area > 0;
    let start = Math.min(from, state.tracks.length - 1);
    while (start >= 0 && !visible(start)) start--;
    const later = promptedFrames(state, id).filter((frame) => frame > from && visible(frame));
    return [...(start >= 0 ? [start] : []), ...later].map((frame) => prompt(frame, id));
  });
}

/** Return the tracks without the tracker's masks behind a frame, because they are tracked again. */
export const withoutTracksAfter = (state, from) =>
  state.tracks.map((entries, frame) => (frame > from ? Object.fromEntries(Object.entries(entries ?? {}).filter(([id]) => promptAt(state, frame, id))) : entries));

/** Return the tracks with an answer of the tracker, unless it is older than what is there: see `promptsFrom`. */
export function withAnswer(state, from, { frame, object, track }) {
  if (promptAt(state, frame, object) || (frame <= from && trackAt(state, frame, object))) return state.tracks;
  if (!state.objects.some(({ id }) => id === object)) return state.tracks; // deleted meanwhile
  return withTrack(state.tracks, frame, object, track);
}

/** Return the number of the frame that is shown at a time, in seconds. `frames` have rising `seconds`. */
export function frameAt(frames, seconds) {
  let low = 0, high = frames.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (frames[middle].seconds <= seconds) low = middle;
    else high = middle - 1;
  }
  return Math.max(0, low);
}
