// The ways a picture comes to the page: a file that is chosen or dropped, or a sample.

import { open } from "./actions.js";
import { say } from "./state.js";

const file = document.getElementById("file");
file.addEventListener("change", () => {
  if (file.files[0]) open(file.files[0], file.files[0].name);
  file.value = ""; // so that choosing the same file again is a change
});

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.getElementById("stage").classList.toggle("over", kind === "dragover");
    const dropped = kind === "drop" && event.dataTransfer.files[0];
    if (dropped) open(dropped, dropped.name);
  });
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const name = button.dataset.sample;
    const response = await fetch(`page/samples/${name}`).catch(() => null);
    if (response?.ok) open(await response.blob(), name);
    else say(`The sample ${name} cannot be loaded from the endpoint.`, true);
  });
}
