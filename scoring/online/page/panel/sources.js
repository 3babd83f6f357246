// Open images: files and folders that the user chooses, drops or pastes, an address, or a sample.

import { addImages } from "../actions/images.js";
import { importFiles } from "../actions/transfer.js";
import { fetchImage } from "../endpoint/api.js";
import { get, setStatus } from "../state.js";
import { $ } from "./dom.js";

const IMAGE = /\.(?:avif|bmp|gif|jpe?g|png|webp)$/i;
const LABELS = /\.(?:json|zip|txt|ya?ml)$/i;

for (const button of document.querySelectorAll("[data-open]")) button.addEventListener("click", () => $(button.dataset.open).click());

$("file").addEventListener("change", () => take("file", (files) => addImages(files.map((blob) => ({ blob, name: blob.name })))));
$("folder").addEventListener("change", () => take("folder", openAll));
$("labels").addEventListener("change", () => take("labels", (files) => importFiles(files.map((blob) => ({ name: blob.name, data: blob })))));

function take(id, use) {
  const files = [...$(id).files];
  $(id).value = ""; // otherwise choosing the same file again would not trigger an event
  if (files.length) use(files);
}

const pathOf = (file) => (file.webkitRelativePath ? file.webkitRelativePath.replace(/^[^/]*\//, "") : file.name);

/** Add the images among files, then import the labels among them. */
async function openAll(files) {
  const sorted = files.map((blob) => ({ blob, name: pathOf(blob) })).sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const images = sorted.filter(({ blob, name }) => IMAGE.test(name) || blob.type.startsWith("image/"));
  const labels = sorted.filter(({ name }) => LABELS.test(name));
  if (files.some(({ type }) => type.startsWith("video/"))) return setStatus("This page labels images. To track objects in a video, open Video at the top of the page.", true);
  if (images.length) await addImages(images);
  if (labels.length) await importFiles(labels.map(({ blob, name }) => ({ name, data: blob })));
  if (!images.length && !labels.length && files.length === 1) await addImages(sorted);
  else if (!images.length && !labels.length) setStatus("There are no images or labels among these files.", true);
}

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && !get().takenOver) dropped(event.dataTransfer).then((files) => files.length && openAll(files));
  });
}

/** Return a promise of the files of a drop, with the files in dropped folders. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const files = [];
  for (let batch; (batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; ) files.push(...(await Promise.all(batch.map(filesOf))).flat());
  return files;
}

document.addEventListener("paste", (event) => {
  if (event.target.matches?.("input, textarea") || get().takenOver) return;
  const files = [...event.clipboardData.files];
  const text = event.clipboardData.getData("text/plain").trim();
  if (files.length) openAll(files);
  else if (/^(https?:|data:image\/)/i.test(text)) openAddress(text);
  else setStatus("The clipboard contains no image and no address of an image.", true);
});

$("url-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("url").value) openAddress($("url").value);
});

/** Open the image at an address. The endpoint fetches images from other hosts. */
async function openAddress(address) {
  const url = new URL(address, document.baseURI);
  const name = url.protocol === "data:" ? "pasted.png" : decodeURIComponent(url.pathname.split("/").at(-1)) || "image";
  setStatus(`Loading ${name} …`);
  try {
    await addImages([{ blob: await fileAt(url), name }]);
  } catch (error) {
    setStatus(`${name} cannot be loaded from ${url.host || "this address"}. Save the image on this computer, and drop the file here. (${error.message})`, true);
  }
}

async function fileAt(url) {
  if (url.protocol === "data:") return fromDataUrl(url.href);
  if (url.origin !== location.origin) return fetchImage(url.href, get().key);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`HTTP status ${response.status}`);
  return response.blob();
}

function fromDataUrl(address) {
  const [head, body] = address.split(/,(.*)/s);
  const text = head.endsWith(";base64") ? atob(body) : decodeURIComponent(body);
  return new Blob([Uint8Array.from(text, (character) => character.charCodeAt(0))], { type: head.slice(5).split(";")[0] });
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const name = button.dataset.sample;
    const response = await fetch(`page/samples/${name}`).catch(() => null);
    if (response?.ok) addImages([{ blob: await response.blob(), name }]);
    else setStatus(`The sample image ${name} cannot be loaded from the endpoint.`, true);
  });
}
