// The header and the report: the models, the API key, messages and the candidates of the active object.

import { choose, segmentAgain } from "../actions/segment.js";
import { listModels } from "../endpoint/api.js";
import { answeredBy, choices, starterNote } from "../endpoint/models.js";
import { activeObject, get, setStatus, update, watch } from "../state.js";
import { $, element, showText } from "./dom.js";

let shown = []; // the candidates in the list

watch((state, before) => {
  const { models, model, status } = state;
  if (status !== before.status) {
    $("status").textContent = status.text;
    $("status").classList.toggle("wrong", status.isError);
    $("retry").hidden = !status.retry;
  }
  const active = activeObject(state);
  showCandidates(active);
  if (models !== before.models || model !== before.model) $("model").replaceChildren(...choices(models).map(({ name, text }) => new Option(text, name, name === model, name === model)));
  showText("starter", starterNote(models, model));
  showText("answered", active?.mask && active.model ? answeredBy(models, active.model) : "");
  $("key-label").hidden = !state.locked && !state.key;
});

/** Display a button for each candidate mask. The buttons stay while the candidates are the same, so they keep the focus. */
function showCandidates(active) {
  const candidates = active?.candidates.length > 1 ? active.candidates : [];
  if (candidates !== shown && (candidates.length || shown.length)) {
    shown = candidates;
    $("candidates").hidden = !candidates.length;
    $("candidates").replaceChildren(...candidates.map(({ score }, i) => element("label", { title: `Candidate ${i + 1}` }, element("input", { type: "radio", name: "candidate", value: String(i) }), element("span", {}, `${i + 1}: ${score.toFixed(2)}`))));
  }
  for (const input of $("candidates").querySelectorAll("input")) input.checked = Number(input.value) === active.chosen;
}

/** Load the list of models. Keep the selected model if it is still served; otherwise select the default model. */
export async function loadModels() {
  try {
    const models = await listModels(get().key);
    const names = choices(models);
    const selected = names.find(({ name }) => name === get().model) ?? names.find(({ chosen }) => chosen) ?? names[0];
    update({ models, model: selected?.name ?? "", locked: false });
    if (!get().status.isError || get().status.retry === loadModels) setStatus(get().picture ? "Click on an object, or drag a box around it." : "Open an image to begin.");
  } catch (error) {
    if (error.status === 401) update({ locked: true });
    if (error.status === 401) setStatus("This endpoint needs an API key. Enter it at the top of the page.", true);
    else setStatus(error.message, true, loadModels);
  }
}

$("retry").addEventListener("click", () => get().status.retry?.());
$("candidates").addEventListener("change", (event) => choose(Number(event.target.value)));
$("model").addEventListener("change", () => {
  update({ model: $("model").value });
  segmentAgain();
});
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value);
  update({ key: $("key").value });
  loadModels();
});
$("key").value = sessionStorage.getItem("key") ?? "";
update({ key: $("key").value });
