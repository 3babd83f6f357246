// Convert prompts to requests: a row and params, as the endpoint's route /score accepts them. Pure.

const SHOWN = { mask_encoding: "rle", orientation: "upright" }; // coordinates and masks refer to the image as it is displayed
const EVERYTHING = { points_per_side: 16 };
const LESS_SIMILAR = 0.85, LESS_CERTAIN = 0.4; // factors of the endpoint's thresholds; a search asks for proposals down to there
const SAME_MASK = 0.8; // of two texts' masks with a larger IoU, the endpoint keeps the mask with the higher score

/** Return {row, params} that ask for all objects in the image. */
export const requestForEverything = () => ({ row: {}, params: { ...SHOWN, ...EVERYTHING } });

/**
 * Return {row, params} that ask for all objects that look like the one in a box [x1, y1, x2, y2], also for those that are
 * less similar than the endpoint's threshold: the page filters them by their scores.
 */
export const requestForSimilar = (box, threshold) => ({ row: { input_exemplars: [box] }, params: { ...SHOWN, exemplar_thresh: threshold * LESS_SIMILAR } });

/**
 * Return {row, params, pixels} that ask for all objects that fit one of the texts, also for those whose score is below the
 * endpoint's threshold: the page filters them by their scores. A detector reads the pixels, so the image is sent each time.
 */
export const requestForTexts = (texts, threshold) => ({
  row: { input_text: texts },
  params: { ...SHOWN, concept_thresh: threshold * LESS_CERTAIN, concept_nms_thresh: SAME_MASK },
  pixels: true,
});

/** Return {row, params} for a prompt, without the image. `logits` are those of the mask to refine, or undefined. */
export function requestFor({ points, labels, box }, logits) {
  const row = { multimask_output: !logits };
  if (points.length) Object.assign(row, { input_points: [points], input_labels: [labels] });
  if (box) row.input_boxes = [box];
  if (logits) row.mask_input = logits;
  return { row, params: { ...SHOWN, return_logits: true } };
}

/** Return {row, params} for a preview: the masks of one point, without logits. */
export const requestForPreview = (point) => ({ row: { multimask_output: true, input_points: [[point]], input_labels: [[1]] }, params: SHOWN });

/** Return the index of the mask with the highest score. */
export const bestOf = (masks) => masks.reduce((best, mask, i) => (mask.iou_score > masks[best].iou_score ? i : best), 0);

/** Return a message for the user if the masks and the image differ in size, or null if their sizes are equal. */
export function sizeProblem(masks, { width, height }) {
  const misfit = masks.find(({ size }) => size[0] !== height || size[1] !== width);
  if (!misfit) return null;
  return (
    `The endpoint's mask has ${misfit.size[1]} x ${misfit.size[0]} pixels, and the image on this page has ${width} x ${height}. ` +
    "The sizes differ, so no mask is drawn. Save the image again, for example as a PNG, and open the new file."
  );
}

/**
 * Return a shell command that requests the masks of an object. If `object` is null, the command requests the masks of all
 * objects. `url` is the URL of the route, and `name` is the name of the image file. `keyed` says whether the request needs
 * an API key, which the command reads from the variable KEY.
 */
export function curlFor(object, { url, name, keyed }) {
  const { row, params } = object ? requestFor(object.prompt) : requestForEverything();
  const { return_logits: _, ...sent } = params;
  if (object) row.multimask_output = object.candidates.length !== 1;
  const rows = JSON.stringify({ image: "@IMAGE@", ...row });
  const file = /^[\w.-]+$/.test(name) ? name : `"${name.replace(/["\\$`']/g, "?")}"`;
  const body = `{"input_data": [${rows}], "params": ${JSON.stringify(sent)}}`.replace("@IMAGE@", () => `'$(base64 -w0 ${file})'`);
  const key = keyed ? ` -H "Authorization: Bearer $KEY"` : "";
  return `echo '${body}' |\n  curl -s --fail '${url}' -H 'Content-Type: application/json'${key} -d @-`;
}
