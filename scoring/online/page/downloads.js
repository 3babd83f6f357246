// Save the results: masks as a PNG or as COCO run-length encoding, the image with its masks, the request as a command.

import { overlayPng } from "./canvas.js";
import { paintPng } from "./painter.js";
import { curlFor } from "./requests.js";
import { get, setStatus, shownMasks } from "./state.js";

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${get().picture.name.replace(/\.[^.]*$/, "")}-${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const toCoco = ({ size, encoded_binary_mask: counts, iou_score: score, bbox, area }) => ({ size, counts, score, bbox, area });

const DOWNLOADS = {
  "save-png": async ({ prompt, picture }) => save(await paintPng(shownMasks(prompt), picture), "mask.png"),
  "save-rle": async ({ prompt }) => {
    const masks = shownMasks(prompt).map(toCoco);
    const text = JSON.stringify(prompt.everything ? masks : masks[0], null, 1);
    save(new Blob([text], { type: "application/json" }), "mask.json");
  },
  "save-overlay": async (state) => save(await overlayPng(state), "overlay.png"),
  "copy-curl": async ({ prompt, picture, model, key }) => {
    const url = new URL(`score?model=${encodeURIComponent(model)}`, document.baseURI);
    const text = curlFor(prompt, { url, name: picture.name, keyed: Boolean(key) });
    try {
      await navigator.clipboard.writeText(text);
      setStatus("The curl command is copied to the clipboard.");
    } catch {
      setStatus(text); // without HTTPS, browsers give pages no access to the clipboard
    }
  },
};

for (const [id, download] of Object.entries(DOWNLOADS)) {
  document.getElementById(id).addEventListener("click", () => download(get()).catch((error) => setStatus(error.message, true)));
}
