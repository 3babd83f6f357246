// Open videos that the user chooses or drops, choose the model, and enter the API key.

import { listModels } from "../endpoint/api.js";
import { choices, modelOf } from "../endpoint/models.js";
import { $, confirmed } from "../panel/dom.js";
import { openClip } from "./clip.js";
import { fail } from "./errors.js";
import { get, setStatus, update, watch } from "./state.js";

async function open(file) {
  if (!file) return;
  if (!get().saved && !(await confirmed(`Open ${file.name}? The tracks of ${get().clip.name} are not saved, and will be lost.`))) return;
  await openClip(file);
}

for (const button of document.querySelectorAll("[data-open]")) button.addEventListener("click", () => $(button.dataset.open).click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = ""; // otherwise choosing the same file again would not trigger an event
  open(file);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind === "drop") open(event.dataTransfer.files[0]);
  });
}
addEventListener("beforeunload", (event) => get().saved || event.preventDefault());

watch((state, before) => {
  const { models, model } = state;
  if (models !== before.models || model !== before.model) $("model").replaceChildren(...choices(models).map(({ name, text }) => new Option(text, name, name === model, name === model)));
  $("key-label").hidden = !state.locked && !state.key;
});

/** Load the list of models, and select the default model, or the first model with a memory if the default has none. */
export async function loadModels() {
  try {
    const models = await listModels(get().key);
    const names = choices(models);
    const usual = names.filter(({ chosen }) => chosen);
    const hasMemory = ({ name }) => modelOf(models, name)?.capabilities?.video;
    const selected = names.find(({ name }) => name === get().model) ?? [...usual, ...names].find(hasMemory) ?? usual[0] ?? names[0];
    update({ models, model: selected?.name ?? "", locked: false });
    if (get().status.isError) setStatus("Open a video to begin.");
  } catch (error) {
    fail(error);
  }
}

$("model").addEventListener("change", () => update({ model: $("model").value }));
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value);
  update({ key: $("key").value });
  loadModels();
});
$("key").value = sessionStorage.getItem("key") ?? "";
update({ key: $("key").value });
