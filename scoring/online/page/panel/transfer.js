// The dialog to export the data set, and the button to delete it.

import { startAnew } from "../actions/keep.js";
import { exportFile, exportSize } from "../actions/transfer.js";
import { get, setStatus, update, watch } from "../state.js";
import { $, confirmed, set } from "./dom.js";
import { saveAs } from "./save.js";

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

$("open-export").addEventListener("click", () => {
  const { images, objects } = exportSize();
  $("export-summary").textContent = `${plural(objects, "object")} in ${plural(images, "image")}. Hidden objects are exported too, proposals are not.`;
  $("export").returnValue = "cancel";
  $("export").showModal();
});

$("export").addEventListener("close", async () => {
  if ($("export").returnValue !== "export") return;
  setStatus("Exporting …");
  try {
    const format = new FormData($("export-form")).get("format");
    const { name, blob } = await exportFile(format, { tolerance: Number($("tolerance").value), withImages: $("with-images").checked });
    saveAs(blob, name);
    const { images, objects } = exportSize();
    setStatus(`Exported: ${plural(objects, "object")} in ${plural(images, "image")}, as ${name}.`);
  } catch (error) {
    setStatus(`The labels cannot be exported. ${error.message}`, true);
  }
});

$("anew").addEventListener("click", async () => {
  const { images, objects } = exportSize();
  if (await confirmed(`Delete ${plural(images, "image")} and ${plural(objects, "object")} in this browser? Export them first if you need them. This cannot be undone.`)) startAnew();
});

$("opacity").addEventListener("input", () => update({ opacity: Number($("opacity").value) }));
$("by-object").addEventListener("change", () => update({ colourBy: $("by-object").checked ? "object" : "class" }));

watch((state) => {
  set($("open-export"), "disabled", !state.project.images.length);
  set($("anew"), "disabled", !state.project.images.length);
  set($("opacity"), "value", String(state.opacity));
  set($("by-object"), "checked", state.colourBy === "object");
});
set($("opacity"), "value", String(get().opacity));
