// The header and the tools beside the canvas: display the state, and call the actions.

import { segmentAgain, choose, clear, closeImage, everything, undo } from "./actions.js";
import { listModels } from "./api.js";
import { answeredBy, choices, starterNote } from "./models.js";
import { get, isEmpty, setStatus, shownMasks, update, watch } from "./state.js";

const $ = (id) => document.getElementById(id);

watch((state, before) => {
  const { picture, prompt, history, models, model, status } = state;
  if (status !== before.status) {
    $("status").textContent = status.text;
    $("status").classList.toggle("wrong", status.isError);
  }
  $("undo").disabled = !history.length;
  $("clear").disabled = $("copy-curl").disabled = isEmpty(prompt);
  $("everything").disabled = $("another").disabled = !picture;
  for (const id of ["save-png", "save-rle", "save-overlay"]) $(id).disabled = !shownMasks(prompt).length;
  if (prompt.answer !== before.prompt.answer) showCandidates(prompt, before.prompt);
  if (models !== before.models) $("model").replaceChildren(...choices(models).map(({ name, text }) => new Option(text, name, name === model, name === model)));
  show("starter", starterNote(models, model));
  show("answered", shownMasks(prompt).length ? answeredBy(models, prompt.answer.model) : "");
  $("key-label").hidden = !state.locked && !state.key;
});

function show(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
  $(id).hidden = !text;
}

/** Display a button for each candidate mask. The buttons are replaced only with the masks, to preserve the keyboard focus. */
function showCandidates({ answer, everything }, before) {
  const masks = answer && !everything ? answer.masks : [];
  if (answer?.masks !== before.answer?.masks || everything !== before.everything) {
    $("candidates").replaceChildren(...(masks.length > 1 ? masks.map(candidate) : []));
  }
  for (const input of $("candidates").querySelectorAll("input")) input.checked = Number(input.value) === answer.chosen;
}

function candidate(mask, i) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "candidate", value: String(i) });
  const text = Object.assign(document.createElement("span"), { textContent: `${i + 1}: ${mask.iou_score.toFixed(2)}` });
  label.append(input, " ", text);
  return label;
}

/** Load the list of models. Keep the selected model if it is still served; otherwise select the default model. */
export async function loadModels() {
  try {
    const models = await listModels(get().key);
    const names = choices(models);
    const selected = names.find(({ name }) => name === get().model) ?? names.find(({ chosen }) => chosen) ?? names[0];
    update({ models, model: selected?.name ?? "", locked: false });
    setStatus(get().picture ? "Click on an object." : "Open an image to begin.");
  } catch (error) {
    if (error.status === 401) update({ locked: true });
    setStatus(error.status === 401 ? "This endpoint needs an API key. Enter it at the top of the page." : error.message, true);
  }
}

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);
$("everything").addEventListener("click", everything);
$("another").addEventListener("click", closeImage);
$("candidates").addEventListener("change", (event) => choose(Number(event.target.value)));
$("model").addEventListener("change", () => {
  update({ model: $("model").value });
  segmentAgain();
});
$("key").value = sessionStorage.getItem("key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value);
  update({ key: $("key").value });
  loadModels();
});
update({ key: $("key").value });
