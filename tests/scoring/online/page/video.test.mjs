import assert from "node:assert/strict";
import test from "node:test";
import { linesOf } from "../../../../scoring/online/page/endpoint/lines.js";
import { strokeRuns } from "../../../../scoring/online/page/masks/stroke.js";
import { area, bounds, emptyRuns, maskOf, resizeRuns } from "../../../../scoring/online/page/masks/runs.js";
import { createStore } from "../../../../scoring/online/page/store.js";
import { toLines, toPrompts, toYouTubeVis } from "../../../../scoring/online/page/video/formats.js";
import { addObject, frameAt, promptedFrames, promptsFrom, trackAt, withAnswer, withoutObject, withoutTracksAfter, withPrompt } from "../../../../scoring/online/page/video/tracks.js";

const SIZE = [60, 80];
const disc = (x, score = 0.9) => ({ mask: maskOf(strokeRuns([[x, 30]], 6, SIZE), SIZE), score });
const HIDDEN = { mask: maskOf(emptyRuns(SIZE), SIZE), score: 0 };
const CLICK = { points: [[10, 30]], labels: [1], box: null };
const OBJECTS = [{ id: 1, hidden: false }, { id: 2, hidden: false }];
const START = { objects: OBJECTS, prompts: {}, tracks: [] };

// Object 1 is clicked on frame 0 and tracked to frame 4, object 2 is clicked on frame 1 and hidden from frame 3 on.
const tracked = () => {
  let state = { ...START, ...withPrompt(START, 0, 1, CLICK, disc(10)) };
  state = { ...state, ...withPrompt(state, 1, 2, CLICK, disc(50)) };
  for (let frame = 1; frame < 5; frame++) {
    state = { ...state, tracks: withAnswer(state, 0, { frame, object: 1, track: disc(10 + frame) }) };
    if (frame > 1) state = { ...state, tracks: withAnswer(state, 0, { frame, object: 2, track: frame < 3 ? disc(50 + frame) : HIDDEN }) };
  }
  return state;
};
const brief = (prompts) => prompts.map(({ frame, object }) => `${object}@${frame}`).join(" ");

test("objects are numbered from 1, and a number is not used for two objects", () => {
  const first = addObject({ objects: [] });
  assert.equal(first.id, 1);
  assert.equal(addObject({ objects: [{ id: 4 }, { id: 2 }] }).id, 5);
});

test("tracking starts with the masks of the frame, or with the last visible mask before", () => {
  const state = tracked();
  assert.equal(brief(promptsFrom(state, 0)), "1@0 2@1");
  assert.equal(brief(promptsFrom(state, 2)), "1@2 2@2");
  assert.equal(brief(promptsFrom(state, 4)), "1@4 2@2");
  assert.equal(brief(promptsFrom(state, 99)), "1@4 2@2");
  assert.deepEqual(promptsFrom(state, 2)[0].mask, { size: SIZE, counts: trackAt(state, 2, 1).mask.counts });
  assert.deepEqual(promptsFrom(START, 3), []);
});

test("a correction on a later frame stays, and the tracker's masks behind the frame go", () => {
  const state = tracked();
  const corrected = { ...state, ...withPrompt(state, 3, 1, CLICK, disc(30)) };
  assert.equal(brief(promptsFrom(corrected, 1)), "1@1 1@3 2@1");
  assert.deepEqual(promptedFrames(corrected), [0, 1, 3]);
  assert.deepEqual(promptedFrames(corrected, 2), [1]);
  const rest = { ...corrected, tracks: withoutTracksAfter(corrected, 1) };
  assert.deepEqual(rest.tracks.map((entries) => Object.keys(entries ?? {}).join("")), ["1", "12", "", "1", ""]);
});

test("an answer does not replace what the user has clicked, or what was there before the start", () => {
  const state = tracked();
  const answer = (frame, object, from) => withAnswer(state, from, { frame, object, track: disc(70) });
  assert.equal(answer(0, 1, 2), state.tracks);
  assert.equal(answer(2, 1, 2), state.tracks);
  assert.equal(answer(2, 7, 0), state.tracks);
  assert.equal(trackAt({ tracks: answer(3, 2, 2) }, 3, 2).mask.bbox[0], 64);
  assert.equal(trackAt({ tracks: answer(0, 2, 2) }, 0, 2).mask.bbox[0], 64);
});

test("an object is removed from all frames", () => {
  const state = withoutObject(tracked(), 1);
  assert.deepEqual(state.objects.map(({ id }) => id), [2]);
  assert.deepEqual(promptedFrames(state), [1]);
  assert.equal(trackAt(state, 2, 1), undefined);
  assert.ok(trackAt(state, 2, 2));
});

test("the frame at a time is the last one that has begun, whatever the frames last", () => {
  const frames = [0, 0.04, 0.5, 0.54].map((seconds) => ({ seconds }));
  assert.deepEqual([-1, 0, 0.039, 0.04, 0.3, 0.5, 9].map((time) => frameAt(frames, time)), [0, 0, 0, 1, 1, 2, 3]);
});

test("tracks are written as lines and as YouTube-VIS", () => {
  const state = tracked();
  const lines = toLines(state).trim().split("\n").map((line) => JSON.parse(line));
  assert.equal(lines.length, 9);
  assert.deepEqual(Object.keys(lines[0]), ["frame", "object", "encoded_binary_mask", "size", "bbox", "area", "score"]);
  const clip = { name: "a.clip.mp4", size: SIZE, frames: Array(5).fill({}) };
  const { videos, annotations } = toYouTubeVis(state, clip);
  assert.deepEqual(videos[0], { id: 1, width: 80, height: 60, length: 5, file_names: [0, 1, 2, 3, 4].map((i) => `a.clip/0000${i}.jpg`) });
  assert.deepEqual(annotations.map(({ id, areas }) => [id, areas.map((value) => value > 0)]), [[1, [true, true, true, true, true]], [2, [false, true, true, false, false]]]);
  assert.deepEqual(annotations[1].scores, [null, 0.9, 0.9, 0, 0]);
  assert.equal(annotations[1].segmentations[3], null);
  assert.equal(brief(toPrompts(state)), "1@0 2@1");
});

test("a mask is scaled to another size", () => {
  const ends = strokeRuns([[20, 30]], 10, SIZE);
  assert.equal(resizeRuns(ends, SIZE, SIZE), ends);
  const large = resizeRuns(ends, SIZE, [120, 160]);
  assert.equal(area(large), 4 * area(ends));
  assert.deepEqual(bounds(large, 120), bounds(ends, 60).map((value) => 2 * value));
  assert.ok(Math.abs(area(resizeRuns(ends, SIZE, [30, 40])) - area(ends) / 4) < 12);
});

test("lines are read wherever the parts of the stream end", async () => {
  const bytes = new TextEncoder().encode('{"a": "é"}\n{"b": 2}\n\n{"c": 3}');
  for (const size of [1, 7, 100]) {
    const stream = new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    const values = [];
    for await (const value of linesOf(stream)) values.push(value);
    assert.deepEqual(values, [{ a: "é" }, { b: 2 }, { c: 3 }]);
  }
});

test("a reader that stops early cancels the stream", async () => {
  let cancelled = false;
  const stream = new ReadableStream({ pull: (controller) => controller.enqueue(new TextEncoder().encode("1\n")), cancel: () => (cancelled = true) });
  for await (const value of linesOf(stream)) if (value === 1) break;
  assert.ok(cancelled);
});

test("a store calls watchers with the state after and before a change", () => {
  const { get, update, watch } = createStore({ a: 1, b: 2 });
  const seen = [];
  watch((state, before) => seen.push([state.a, before.a]));
  update({ a: 3 });
  assert.deepEqual([get(), seen], [{ a: 3, b: 2 }, [[3, 1]]]);
  assert.ok(Object.isFrozen(get()));
});
