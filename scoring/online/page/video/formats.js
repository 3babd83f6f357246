// Convert tracks to files: JSON lines, YouTube-VIS json, and the prompts. Pure.

import { promptedFrames, trackAt } from "./tracks.js";

function* recordsOf(state) {
  for (let frame = 0; frame < state.tracks.length; frame++) {
    for (const { id } of state.objects) {
      const track = trackAt(state, frame, id);
      if (track) yield { frame, object: id, encoded_binary_mask: track.mask.counts, size: track.mask.size, bbox: track.mask.bbox, area: track.mask.area, score: track.score };
    }
  }
}

/** Return the tracks as JSON lines, with the fields of the endpoint's lines: one line per frame and object. */
export const toLines = (state) => [...recordsOf(state)].map((record) => `${JSON.stringify(record)}\n`).join("");

/** Return the prompts as the endpoint and the command line accept them: the mask of each object on each prompted frame. */
export function toPrompts(state) {
  return state.objects.flatMap(({ id }) => promptedFrames(state, id).flatMap((frame) => {
    const { mask } = trackAt(state, frame, id) ?? {};
    return mask?.area ? [{ frame, object: id, mask: { size: mask.size, counts: mask.counts } }] : [];
  }));
}

/** Return the tracks as YouTube-VIS has them: COCO's json with `videos`, one annotation per object, one entry per frame. */
export function toYouTubeVis(state, { name, size: [height, width], frames: { length } }) {
  const stem = name.replace(/\.[^.]*$/, "");
  const videos = [{ id: 1, width, height, length, file_names: Array.from({ length }, (_, i) => `${stem}/${String(i).padStart(5, "0")}.jpg`) }];
  const annotations = new Map();
  for (const { frame, object, encoded_binary_mask: counts, size, bbox, area, score } of recordsOf(state)) {
    if (!annotations.has(object)) annotations.set(object, { id: object, video_id: 1, category_id: 1, iscrowd: 0, width, height, length, ...emptyLists(length) });
    const lists = annotations.get(object);
    lists.scores[frame] = score;
    if (!area) continue;
    lists.segmentations[frame] = { size, counts };
    lists.bboxes[frame] = bbox;
    lists.areas[frame] = area;
  }
  return { videos, categories: [{ id: 1, name: "object" }], annotations: [...annotations.values()] };
}

const emptyLists = (length) => Object.fromEntries(["segmentations", "bboxes", "areas", "scores"].map((list) => [list, Array(length).fill(null)]));
