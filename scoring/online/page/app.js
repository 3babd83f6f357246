// Clicks on an image become prompts, answers become masks over it. The endpoint's /score does the rest.

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const context = canvas.getContext("2d");
const COLOURS = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66]];
const PARAMS = { mask_encoding: "rle", return_logits: true };

let image = null; // { bitmap, base64, name, id }: id once the endpoint keeps it
let prompt = empty();
let history = [];
let cross = null; // where the keyboard points, in the image's pixels
let keyed = false; // whether the keyboard was the last to point
let corner = null; // where a box began
let dragged = null;
let asking = 0;

function empty() {
  return { points: [], labels: [], box: null, candidates: [], chosen: 0, objects: null };
}

// The endpoint

function headers() {
  const key = $("key").value;
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function ask(row, params) {
  const model = $("model").value;
  const rows = image.id ? [{ image_id: image.id, ...row }] : [{ image: image.base64, ...row }];
  const answer = await fetch(`score?model=${encodeURIComponent(model)}`, {
    method: "POST",
    headers: headers(),
    body: JSON.stringify({ input_data: rows, params }),
  });
  if (answer.status === 404 && image.id) {
    image.id = null; // no longer kept: send it again
    return ask(row, params);
  }
  const body = await answer.json();
  if (answer.status === 401) $("key-label").hidden = false;
  if (!answer.ok) throw new Error(body.error?.message ?? `HTTP status ${answer.status}`);
  image.id = body[0].image_id;
  return { predictions: body[0].predictions, by: answer.headers.get("x-answered-by") };
}

function currentRow() {
  const row = {};
  if (prompt.points.length) Object.assign(row, { input_points: [prompt.points], input_labels: [prompt.labels] });
  if (prompt.box) row.input_boxes = [prompt.box];
  return row;
}

// Asks about the prompt as it now stands; `logits` of the mask so far, if it is being refined.
async function segment(logits) {
  const mine = ++asking;
  const row = { ...currentRow(), multimask_output: !logits };
  if (logits) row.mask_input = logits;
  say(image.id ? "Segmenting …" : "Encoding the image …");
  draw();
  const began = performance.now();
  try {
    const { predictions, by } = await ask(row, PARAMS);
    if (mine !== asking) return; // a later question is on its way
    prompt.candidates = predictions[0].mask_per_prediction.map((mask) => ({ ...mask, pixels: decode(mask) }));
    prompt.chosen = prompt.candidates.reduce((best, one, i, all) => (one.iou_score > all[best].iou_score ? i : best), 0);
    report(by, began);
  } catch (error) {
    if (mine === asking) say(error.message, true);
  }
  refresh();
}

async function everything() {
  const mine = ++asking;
  remember();
  prompt = empty();
  say("Looking for everything …");
  refresh();
  const began = performance.now();
  try {
    const { predictions, by } = await ask({}, { mask_encoding: "rle", points_per_side: 16, pred_iou_thresh: 0.7, stability_score_thresh: 0.85 });
    if (mine !== asking) return;
    prompt.objects = predictions.map((one) => one.mask_per_prediction[0]).map((mask) => ({ ...mask, pixels: decode(mask) }));
    const count = prompt.objects.length;
    say(`${count} object${count === 1 ? "" : "s"}, ${seconds(began)}, by ${by}.`);
  } catch (error) {
    if (mine === asking) say(error.message, true);
  }
  refresh();
}

// COCO's compressed run lengths to one byte a pixel, column by column as they are.
function decode(mask) {
  const [height, width] = mask.size;
  const pixels = new Uint8Array(height * width);
  const counts = [];
  const text = mask.encoded_binary_mask;
  for (let i = 0; i < text.length; ) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(i++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  let at = 0;
  counts.forEach((count, i) => {
    if (i % 2) pixels.fill(1, at, at + count);
    at += count;
  });
  return pixels;
}

// What is seen

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

const seconds = (began) => `${((performance.now() - began) / 1000).toFixed(2)} s`;

function report(by, began) {
  const mask = prompt.candidates[prompt.chosen];
  say(`${mask.area.toLocaleString()} pixels, score ${mask.iou_score.toFixed(2)}, ${seconds(began)}, by ${by}.`);
}

function layer(masks) {
  const sheet = new OffscreenCanvas(canvas.width, canvas.height);
  const paint = sheet.getContext("2d");
  const data = paint.createImageData(canvas.width, canvas.height);
  const { width, height } = canvas;
  masks.forEach((mask, i) => {
    const [red, green, blue] = COLOURS[i % COLOURS.length];
    for (let x = 0; x < width; x++) {
      for (let y = 0; y < height; y++) {
        const at = x * height + y;
        if (!mask.pixels[at]) continue;
        const edge = !(mask.pixels[at - 1] && mask.pixels[at + 1] && mask.pixels[at - height] && mask.pixels[at + height]);
        const to = 4 * (y * width + x);
        data.data.set(edge ? [255, 255, 255, 255] : [red, green, blue, 140], to);
      }
    }
  });
  paint.putImageData(data, 0, 0);
  return sheet;
}

let shown = null; // the masks of the last `layer`, and the sheet it made
function masksLayer() {
  const masks = prompt.objects ?? prompt.candidates.slice(prompt.chosen, prompt.chosen + 1);
  if (shown?.masks.length !== masks.length || masks.some((mask, i) => mask !== shown.masks[i])) {
    shown = { masks, sheet: masks.length ? layer(masks) : null };
  }
  return shown.sheet;
}

function draw() {
  if (!image) return;
  context.drawImage(image.bitmap, 0, 0);
  const sheet = masksLayer();
  if (sheet) context.drawImage(sheet, 0, 0);
  const unit = canvas.width / (canvas.clientWidth || canvas.width);
  context.lineWidth = 2 * unit;
  const box = dragged ?? prompt.box;
  if (box) outline(() => context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]));
  prompt.points.forEach(([x, y], i) => {
    context.beginPath();
    context.arc(x, y, 6 * unit, 0, 7);
    context.fillStyle = prompt.labels[i] ? "#009e73" : "#d55e00";
    context.fill();
    context.strokeStyle = "#fff";
    context.stroke();
    context.beginPath();
    context.moveTo(x - 3 * unit, y);
    context.lineTo(x + 3 * unit, y);
    if (prompt.labels[i]) {
      context.moveTo(x, y - 3 * unit);
      context.lineTo(x, y + 3 * unit);
    }
    context.stroke();
  });
  if (keyed && document.activeElement === canvas) {
    outline(() => {
      context.beginPath();
      context.moveTo(cross[0] - 12 * unit, cross[1]);
      context.lineTo(cross[0] + 12 * unit, cross[1]);
      context.moveTo(cross[0], cross[1] - 12 * unit);
      context.lineTo(cross[0], cross[1] + 12 * unit);
      context.stroke();
    });
  }
}

function outline(stroke) {
  const width = context.lineWidth;
  context.lineWidth = 2 * width;
  context.strokeStyle = "#000";
  stroke();
  context.lineWidth = width;
  context.strokeStyle = "#f0e442";
  stroke();
}

function refresh() {
  const asked = prompt.points.length || prompt.box;
  $("undo").disabled = !history.length;
  $("clear").disabled = !asked && !prompt.objects;
  $("everything").disabled = $("another").disabled = !image;
  for (const id of ["save-png", "save-rle", "save-overlay"]) $(id).disabled = !prompt.candidates.length && !prompt.objects?.length;
  $("copy-curl").disabled = !asked && !prompt.objects;
  const one = (mask, i) => `<label><input type="radio" name="candidate" value="${i}" ${i === prompt.chosen ? "checked" : ""}>
    <span>${i + 1}: ${mask.iou_score.toFixed(2)}</span></label>`;
  $("candidates").innerHTML = prompt.candidates.length > 1 ? prompt.candidates.map(one).join("") : "";
  draw();
}

// What is done

function remember() {
  history.push(structuredClone(prompt));
}

function undo() {
  if (!history.length) return;
  asking++;
  prompt = history.pop();
  say(prompt.candidates.length ? "One step back." : "Nothing is marked.");
  refresh();
}

function clear() {
  asking++;
  if (prompt.points.length || prompt.box || prompt.objects) remember();
  prompt = empty();
  corner = null;
  say("Click on something.");
  refresh();
}

function add(point, positive) {
  remember();
  if (prompt.objects) prompt = empty();
  const logits = prompt.candidates[prompt.chosen]?.low_res_logits;
  prompt.points.push(point);
  prompt.labels.push(positive ? 1 : 0);
  segment(logits);
}

function addBox([x1, y1, x2, y2]) {
  const box = [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
  if (box[2] - box[0] < 2 || box[3] - box[1] < 2) return;
  remember();
  prompt = { ...empty(), box };
  segment();
}

function choose(i) {
  if (i >= prompt.candidates.length) return;
  prompt.chosen = i;
  const mask = prompt.candidates[i];
  say(`Candidate ${i + 1}: ${mask.area.toLocaleString()} pixels, score ${mask.iou_score.toFixed(2)}.`);
  refresh();
}

async function open(blob, name) {
  try {
    // As stored: the endpoint's coordinates know no EXIF orientation.
    const bitmap = await createImageBitmap(blob, { imageOrientation: "none" });
    const bytes = new Uint8Array(await blob.arrayBuffer());
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    image = { bitmap, base64: btoa(text), name, id: null };
  } catch {
    say(`${name} is not an image this browser can read.`, true);
    return;
  }
  asking++;
  [prompt, history, corner, shown] = [empty(), [], null, null];
  cross = [Math.round(image.bitmap.width / 2), Math.round(image.bitmap.height / 2)];
  [canvas.width, canvas.height] = [image.bitmap.width, image.bitmap.height];
  $("drop").hidden = true;
  canvas.hidden = false;
  $("stage").classList.add("full");
  fit();
  say("Click on something, or drag a box around it.");
  refresh();
  canvas.focus();
}

// As large as there is room for, small images up to four times their size.
function fit() {
  if (!image) return;
  const { width, height } = image.bitmap;
  const tall = innerHeight * (innerWidth > 736 ? 1 : 0.6) - 90;
  canvas.style.width = `${Math.min($("stage").clientWidth, (tall * width) / height, 4 * width)}px`;
  draw();
}
addEventListener("resize", fit);

function another() {
  image = null;
  [prompt, history] = [empty(), []];
  canvas.hidden = true;
  $("drop").hidden = false;
  $("stage").classList.remove("full");
  say("No image yet.");
  refresh();
}

// Pointer and keyboard

function place(event) {
  const frame = canvas.getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * canvas.width;
  const y = ((event.clientY - frame.top) / frame.height) * canvas.height;
  return [Math.max(0, Math.min(canvas.width - 1, Math.round(x))), Math.max(0, Math.min(canvas.height - 1, Math.round(y)))];
}

const mode = () => document.querySelector("input[name=mode]:checked").value;
let pressed = null;

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  keyed = false;
  canvas.setPointerCapture(event.pointerId);
  pressed = { at: place(event), x: event.clientX, y: event.clientY };
});
canvas.addEventListener("pointermove", (event) => {
  if (!pressed) return;
  const far = Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > 6;
  dragged = dragged || far ? [...pressed.at, ...place(event)] : null;
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  if (!pressed) return;
  const box = dragged;
  const at = pressed.at;
  pressed = dragged = null;
  if (box) addBox(box);
  else if (mode() !== "box") add(at, !(event.shiftKey || mode() === "subtract"));
  else if (corner) [corner] = [null, addBox([...corner, ...at])];
  else {
    corner = at;
    say("Now the opposite corner.");
  }
});
canvas.addEventListener("pointercancel", () => ([pressed, dragged] = [null, null]));
canvas.addEventListener("focus", draw);
canvas.addEventListener("blur", draw);

canvas.addEventListener("keydown", (event) => {
  keyed = keyed || /^(Arrow|Enter$| $|b$)/i.test(event.key);
  const step = (event.shiftKey ? 25 : 5) * Math.max(1, Math.round(canvas.width / 1000));
  const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (move) {
    cross = [
      Math.max(0, Math.min(canvas.width - 1, cross[0] + move[0])),
      Math.max(0, Math.min(canvas.height - 1, cross[1] + move[1])),
    ];
    if (corner) dragged = [...corner, ...cross];
    draw();
  } else if (event.key === "Enter" || event.key === " ") add([...cross], !(event.shiftKey || mode() === "subtract"));
  else if (event.key === "b" || event.key === "B") {
    if (corner) {
      addBox([...corner, ...cross]);
      corner = dragged = null;
    } else {
      corner = [...cross];
      say("Move the cross to the opposite corner and press B again.");
    }
  } else return;
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=radio]), select") || event.ctrlKey || event.metaKey || event.altKey || !image) return;
  const key = event.key.toLowerCase();
  if (key === "u") undo();
  else if (key === "escape") clear();
  else if (key === "e") everything();
  else if (key === "n" && prompt.candidates.length) choose((prompt.chosen + 1) % prompt.candidates.length);
  else if (/^[1-3]$/.test(key)) choose(Number(key) - 1);
});

$("undo").onclick = undo;
$("clear").onclick = clear;
$("everything").onclick = everything;
$("another").onclick = another;
$("candidates").addEventListener("change", (event) => choose(Number(event.target.value)));
$("file").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0], event.target.files[0].name));
for (const button of document.querySelectorAll("[data-sample]")) {
  button.onclick = async () => open(await (await fetch(`page/samples/${button.dataset.sample}`)).blob(), button.dataset.sample);
}
$("model").addEventListener("change", () => {
  if (!image) return;
  image.id = null; // each model has embeddings of its own
  if (prompt.points.length || prompt.box) segment();
});
$("key").addEventListener("change", () => (sessionStorage.setItem("key", $("key").value), models()));

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file) open(file, file.name);
  });
}

// What is taken away

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${image.name.replace(/\.[^.]*$/, "")}-${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const current = () => prompt.objects ?? [prompt.candidates[prompt.chosen]];

$("save-png").onclick = async () => {
  const sheet = new OffscreenCanvas(canvas.width, canvas.height);
  const paint = sheet.getContext("2d");
  const data = paint.createImageData(canvas.width, canvas.height);
  for (let x = 0; x < canvas.width; x++) {
    for (let y = 0; y < canvas.height; y++) {
      const white = current().some((mask) => mask.pixels[x * canvas.height + y]) ? 255 : 0;
      data.data.set([white, white, white, 255], 4 * (y * canvas.width + x));
    }
  }
  paint.putImageData(data, 0, 0);
  save(await sheet.convertToBlob({ type: "image/png" }), "mask.png");
};
$("save-rle").onclick = () => {
  const rles = current().map((mask) => ({ size: mask.size, counts: mask.encoded_binary_mask, score: mask.iou_score, bbox: mask.bbox, area: mask.area }));
  save(new Blob([JSON.stringify(prompt.objects ? rles : rles[0], null, 1)], { type: "application/json" }), "mask.json");
};
$("save-overlay").onclick = () => canvas.toBlob((blob) => save(blob, "overlay.png"), "image/png");
$("copy-curl").onclick = async () => {
  const row = JSON.stringify({ image: "@IMAGE@", ...currentRow(), ...(prompt.objects ? {} : { multimask_output: prompt.candidates.length !== 1 }) });
  const body = `{"input_data": [${row}], "params": {"mask_encoding": "rle"}}`.replace("@IMAGE@", `'$(base64 -w0 ${quoted(image.name)})'`);
  const key = $("key").value ? ` -H "Authorization: Bearer $KEY"` : "";
  const url = new URL(`score?model=${encodeURIComponent($("model").value)}`, document.baseURI);
  const text = `echo '${body}' |\n  curl -s --fail '${url}' -H 'Content-Type: application/json'${key} -d @-`;
  try {
    await navigator.clipboard.writeText(text);
    say("The curl command is in the clipboard.");
  } catch {
    say(text); // no clipboard without https
  }
};
const quoted = (name) => (/^[\w.-]+$/.test(name) ? name : `"${name.replace(/["\\$`']/g, "?")}"`);

async function models() {
  const answer = await fetch("models", { headers: headers() });
  $("key-label").hidden = answer.status !== 401 && !$("key").value;
  if (!answer.ok) return say("This endpoint asks for a key.", true);
  const found = await answer.json();
  const option = (name, text, chosen) => new Option(text, name, chosen, chosen);
  $("model").replaceChildren(
    ...found.flatMap((one) => one.names.map((name) => option(name, name, one.default && name === one.name))),
    ...found.flatMap((one) => one.stands_in_for.map((name) => option(name, `${name} (answered by ${one.name})`, false))),
  );
  say(image ? "Click on something." : "No image yet.");
}

$("key").value = sessionStorage.getItem("key") ?? "";
models().catch(() => say("The endpoint cannot be reached.", true));
