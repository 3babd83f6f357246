// Save the selected object: its mask as a PNG or as COCO run-length encoding, the image with its masks, the request as a command.

import { overlayPng } from "../view/canvas.js";
import { paintPng } from "../view/painter.js";
import { curlFor } from "../endpoint/requests.js";
import { stem } from "../formats/names.js";
import { activeObject, chosenObjects, get, setStatus, watch } from "../state.js";
import { $, set } from "./dom.js";
import { saveAs } from "./save.js";

const save = (blob, suffix) => saveAs(blob, `${stem(get().picture.name).replace(/[\\/]/g, "_")}-${suffix}`);

const toCoco = ({ mask: { size, counts, bbox, area }, candidates, chosen }) => ({ size, counts, score: candidates[chosen]?.score ?? null, bbox, area });

const DOWNLOADS = {
  "save-png": async ({ picture }) => save(await paintPng(chosenObjects().map(({ mask }) => mask), picture), "mask.png"),
  "save-rle": async () => {
    const masks = chosenObjects().map(toCoco);
    save(new Blob([JSON.stringify(activeObject() ? masks[0] : masks, null, 1)], { type: "application/json" }), "mask.json");
  },
  "save-overlay": async (state) => save(await overlayPng(state), "overlay.png"),
  "copy-curl": async ({ picture, model, key }) => {
    const url = new URL(`score?model=${encodeURIComponent(model)}`, document.baseURI);
    const text = curlFor(activeObject() ?? null, { url, name: picture.name, keyed: Boolean(key) });
    try {
      await navigator.clipboard.writeText(text);
      setStatus("The curl command is copied to the clipboard.");
    } catch {
      setStatus(text); // without HTTPS, browsers give pages no access to the clipboard
    }
  },
};

for (const [id, download] of Object.entries(DOWNLOADS)) {
  $(id).addEventListener("click", () => download(get()).catch((error) => setStatus(error.message, true)));
}

watch((state) => {
  const has = Boolean(state.picture && chosenObjects(state).length);
  for (const id of ["save-png", "save-rle", "save-overlay"]) set($(id), "disabled", !has);
  const active = activeObject(state);
  set($("copy-curl"), "disabled", !state.picture || Boolean(active && !active.prompt.points.length && !active.prompt.box));
});
