// What the endpoint is asked, as a row and params of its contract. Pure.

const SHOWN = { mask_encoding: "rle", orientation: "upright" }; // coordinates and masks are those of the picture as it is shown
const EVERYTHING = { points_per_side: 16, pred_iou_thresh: 0.7, stability_score_thresh: 0.85 };

/** Return {row, params} for a prompt; the row lacks the image. `logits` are those of the mask that is refined, or nothing. */
export function requestFor({ points, labels, box, everything }, logits) {
  if (everything) return { row: {}, params: { ...SHOWN, ...EVERYTHING } };
  const row = { multimask_output: !logits };
  if (points.length) Object.assign(row, { input_points: [points], input_labels: [labels] });
  if (box) row.input_boxes = [box];
  if (logits) row.mask_input = logits;
  return { row, params: { ...SHOWN, return_logits: true } };
}

/** Return the index of the mask with the highest score. */
export const bestOf = (masks) => masks.reduce((best, mask, i) => (mask.iou_score > masks[best].iou_score ? i : best), 0);

/** Return why masks cannot be drawn over a picture of another size, in plain words, or null if they can be. */
export function sizeProblem(masks, { width, height }) {
  const misfit = masks.find(({ size }) => size[0] !== height || size[1] !== width);
  if (!misfit) return null;
  return (
    `The endpoint's mask has ${misfit.size[1]} x ${misfit.size[0]} pixels, and the picture on this page has ${width} x ${height}. ` +
    "They do not fit, so no mask is drawn. Save the picture anew, for example as a PNG, and open it again."
  );
}

/** Return the shell command that asks for the masks of a prompt as they are shown. `url` is that of the route, `name` the file's. */
export function curlFor(prompt, { url, name, keyed }) {
  const { row, params } = requestFor(prompt);
  delete params.return_logits;
  if (!prompt.everything) row.multimask_output = prompt.answer?.masks.length !== 1;
  const rows = JSON.stringify({ image: "@IMAGE@", ...row });
  const file = /^[\w.-]+$/.test(name) ? name : `"${name.replace(/["\\$`']/g, "?")}"`;
  const body = `{"input_data": [${rows}], "params": ${JSON.stringify(params)}}`.replace("@IMAGE@", () => `'$(base64 -w0 ${file})'`);
  const key = keyed ? ` -H "Authorization: Bearer $KEY"` : "";
  return `echo '${body}' |\n  curl -s --fail '${url}' -H 'Content-Type: application/json'${key} -d @-`;
}
