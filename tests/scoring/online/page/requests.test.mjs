import assert from "node:assert/strict";
import test from "node:test";
import { answeredBy, choices, isStarter, modelOf, noTextNote, starterNote, thresholdsOf } from "../../../../scoring/online/page/endpoint/models.js";
import { bestOf, curlFor, requestFor, requestForEverything, requestForPreview, requestForSimilar, requestForTexts, sizeProblem } from "../../../../scoring/online/page/endpoint/requests.js";
import { NEW_OBJECT, NO_PROMPT } from "../../../../scoring/online/page/project/project.js";

const MODELS = [
  { name: "large", default: true, names: ["large", "sam/vit_l"], stands_in_for: ["sam/vit_h"], origin: { source: "models:/sam@champion" } },
  { name: "tiny", default: false, names: ["tiny"], stands_in_for: ["sam/vit_b"], origin: null, starter: true },
];

test("a search by example sends the box of the example", () => {
  assert.deepEqual(requestForSimilar([1, 2, 3, 4], 0.9).row, { input_exemplars: [[1, 2, 3, 4]] });
});

test("a search asks for proposals below the threshold, which the page filters", () => {
  assert.ok(Math.abs(requestForSimilar([1, 2, 3, 4], 0.9).params.exemplar_thresh - 0.765) < 1e-9);
  const { row, params, pixels } = requestForTexts(["cup", "spoon"], 0.25);
  assert.deepEqual(row, { input_text: ["cup", "spoon"] });
  assert.ok(Math.abs(params.concept_thresh - 0.1) < 1e-9 && params.concept_nms_thresh === 0.8 && params.orientation === "upright" && pixels);
});

test("a model that takes no text is named, and one that is not loaded may take text", () => {
  const models = [{ ...MODELS[0], capabilities: { text: false }, thresholds: { concept_thresh: 0.25, exemplar_thresh: 0.8 } }, { ...MODELS[1], capabilities: null, thresholds: null }];
  assert.match(noTextNote(models, "sam/vit_h"), /^The model large takes no text/);
  assert.equal(noTextNote(models, "tiny"), "");
  assert.equal(noTextNote([{ ...models[0], capabilities: { text: true } }], "large"), "");
  assert.equal(thresholdsOf(models, "large").concept_thresh, 0.25);
  assert.deepEqual(thresholdsOf(models, "tiny"), { concept_thresh: 0.5, exemplar_thresh: 0.9 });
});

test("every request asks for the upright picture", () => {
  const prompts = [{ ...NO_PROMPT, points: [[1, 2]], labels: [1] }, { ...NO_PROMPT, box: [1, 2, 3, 4] }];
  const requests = [...prompts.map((prompt) => requestFor(prompt)), requestForEverything(), requestForPreview([1, 2])];
  for (const { params } of requests) {
    assert.equal(params.orientation, "upright");
    assert.equal(params.mask_encoding, "rle");
  }
  for (const object of [...prompts.map((prompt) => ({ ...NEW_OBJECT, prompt })), null]) {
    assert.match(curlFor(object, { url: "http://x/score", name: "a.jpg" }), /"orientation":"upright"/);
  }
});

test("a preview asks for the masks of one point, without logits", () => {
  assert.deepEqual(requestForPreview([5, 6]).row, { multimask_output: true, input_points: [[[5, 6]]], input_labels: [[1]] });
  assert.equal(requestForPreview([5, 6]).params.return_logits, undefined);
});

test("points and a box are one prompt, and logits refine one mask", () => {
  const prompt = { ...NO_PROMPT, points: [[5, 6], [7, 8]], labels: [1, 0], box: [1, 2, 30, 40] };
  const { row } = requestFor(prompt, "LOGITS");
  assert.deepEqual(row, { multimask_output: false, input_points: [[[5, 6], [7, 8]]], input_labels: [[1, 0]], input_boxes: [[1, 2, 30, 40]], mask_input: "LOGITS" });
  assert.equal(requestFor(prompt).row.multimask_output, true);
});

test("the command asks for what the page shows, whatever the file is called", () => {
  const everything = curlFor(null, { url: "u", name: "my $(rm) picture's.jpg", keyed: true });
  assert.match(everything, /"points_per_side":16/);
  assert.ok(everything.includes(`base64 -w0 "my ?(rm) picture?s.jpg"`));
  assert.ok(everything.includes(`-H "Authorization: Bearer $KEY"`));
});

test("masks of another size return a message", () => {
  assert.equal(sizeProblem([{ size: [300, 400] }], { width: 400, height: 300 }), null);
  assert.match(sizeProblem([{ size: [400, 300] }], { width: 400, height: 300 }), /mask has 300 x 400 pixels.* has 400 x 300.*no mask is drawn/);
});

test("the best mask has the highest score", () => assert.equal(bestOf([{ iou_score: 0.2 }, { iou_score: 0.9 }, { iou_score: 0.5 }]), 1));

test("the names of starter models are marked, and those of other models are not", () => {
  assert.deepEqual(choices(MODELS), [
    { name: "large", text: "large", chosen: true },
    { name: "sam/vit_l", text: "sam/vit_l", chosen: false },
    { name: "tiny", text: "tiny (starter)", chosen: false },
    { name: "sam/vit_h", text: "sam/vit_h (answered by large)", chosen: false },
    { name: "sam/vit_b", text: "sam/vit_b (answered by tiny, starter)", chosen: false },
  ]);
  assert.match(starterNote(MODELS, "sam/vit_b"), /^tiny is a starter model/);
  assert.equal(starterNote(MODELS, "sam/vit_h"), "");
  assert.equal(answeredBy(MODELS, "tiny"), "Answered by tiny (starter).");
  assert.equal(answeredBy(MODELS, "large"), "Answered by large.");
  assert.equal(modelOf(MODELS, "unknown"), undefined);
  assert.equal(isStarter(undefined), false);
});
