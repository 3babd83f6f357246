// Open images: a file that the user chooses or drops on the page, or a sample.

import { openImage } from "./actions.js";
import { setStatus } from "./state.js";

const file = document.getElementById("file");
file.addEventListener("change", () => {
  if (file.files[0]) openImage(file.files[0], file.files[0].name);
  file.value = ""; // otherwise choosing the same file again would not trigger an event
});

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.getElementById("stage").classList.toggle("over", kind === "dragover");
    const dropped = kind === "drop" && event.dataTransfer.files[0];
    if (dropped) openImage(dropped, dropped.name);
  });
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const name = button.dataset.sample;
    const response = await fetch(`page/samples/${name}`).catch(() => null);
    if (response?.ok) openImage(await response.blob(), name);
    else setStatus(`The sample image ${name} cannot be loaded from the endpoint.`, true);
  });
}
