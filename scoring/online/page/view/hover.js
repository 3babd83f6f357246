// Preview the mask that a click at the position of the mouse would select.

import { isUploaded, score } from "../endpoint/api.js";
import { bestOf, requestForPreview, sizeProblem } from "../endpoint/requests.js";
import { decodeRuns } from "../masks/rle.js";
import { contains, endsOf, maskOf } from "../masks/runs.js";
import { activeObject, get, shownObjects, update } from "../state.js";

const REST = 25; // ms that the mouse rests, before the endpoint is asked
const UPLOAD_REST = 350; // ms before an image is uploaded for a preview
let timer = 0;
let running = null; // AbortController of the request in progress
let latest = null; // the pixel of the latest preview or request

/** Forget the preview, and cancel its request. */
export function stopHover() {
  clearTimeout(timer);
  running?.abort();
  latest = null;
  if (get().hover) update({ hover: null });
}

/** Preview the mask at a pixel of the image, after the mouse has rested there. */
export function hoverAt(point) {
  const { picture, model, tool, each, hover } = get();
  if (String(point) === String(latest)) return;
  clearTimeout(timer);
  if (!picture || !model || tool !== "add" || (activeObject() && !each)) return stopHover();
  running?.abort();
  latest = point;
  const isLabelled = shownObjects().some(({ mask, hidden }) => mask && !hidden && contains(endsOf(mask), mask.size, point));
  if (hover && (isLabelled || !contains(endsOf(hover.mask), hover.mask.size, point))) update({ hover: null });
  if (!isLabelled) timer = setTimeout(() => preview(point), isUploaded(picture, model) ? REST : UPLOAD_REST);
}

async function preview(point) {
  const { picture, model, key } = get();
  const controller = (running = new AbortController());
  const start = performance.now();
  try {
    // An upload is not cancelled, because the first click needs it.
    const signal = isUploaded(picture, model) ? controller.signal : undefined;
    const { predictions } = await score(picture, model, key, requestForPreview(point), signal);
    if (controller.signal.aborted || picture !== get().picture) return;
    const masks = predictions[0].mask_per_prediction;
    if (sizeProblem(masks, picture)) return;
    const { encoded_binary_mask: counts, size } = masks[bestOf(masks)];
    update({ hover: { mask: maskOf(decodeRuns(counts, size), size) } });
    performance.measure("preview", { start, end: performance.now() });
  } catch {
    // A failed preview shows no message. If the user clicks, the click shows the error.
  }
}
