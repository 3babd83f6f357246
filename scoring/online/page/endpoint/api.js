// Send requests to the endpoint, at URLs relative to the page, and convert its errors to messages for the user.

import { linesOf } from "./lines.js";

// A map from the id of an image on this page to another map. The second map has a promise for each model name: the image's
// id in the endpoint's cache, or null if the upload failed.
const uploads = new Map();

/** An error whose message is shown to the user. `status` is the HTTP status, if there is a response. */
export class EndpointError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(path, key, options = {}) {
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(path, { headers, ...options }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new EndpointError("The endpoint cannot be reached. Check that it is running, and try again.");
  });
  const body = await response.json().catch(() => null);
  if (response.ok && body) return { body, model: response.headers.get("x-answered-by") };
  throw new EndpointError(messageFor(response.status, body), response.status);
}

function messageFor(status, body, noun = "image") {
  if (status === 401) return "The endpoint needs a valid API key. Enter it at the top of the page, and try again.";
  if (status === 429 || status === 503) return "The endpoint has too many requests at the moment. Your labels are kept. Try again in a few seconds.";
  const text = body?.error?.message ?? body?.message ?? body?.error ?? `The endpoint answered with HTTP status ${status}.`;
  return status === 413 ? `The ${noun} is too large for the endpoint. ${text}` : text;
}

/** Return a promise of the list of models that the endpoint serves. */
export const listModels = async (key) => (await request("models", key)).body;

/** Return a promise of the image file (a Blob) at an address. The endpoint fetches it, because the page may not. */
export async function fetchImage(url, key) {
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch("image", { method: "POST", headers, body: JSON.stringify({ url }) }).catch(() => {
    throw new EndpointError("The endpoint cannot be reached. Check that it is running, and try again.");
  });
  if (response.ok) return response.blob();
  throw new EndpointError(messageFor(response.status, await response.json().catch(() => null)), response.status);
}

/**
 * Send a video with form fields, and yield the lines of the response while they arrive. An AbortSignal as `signal` stops
 * the endpoint's work.
 */
export async function* postVideo(path, file, fields, key, signal) {
  const body = new FormData();
  body.append("video", file, file.name);
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { method: "POST", headers, body, signal }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new EndpointError("The endpoint cannot be reached. Check that it is running, and try again.");
  });
  if (!response.ok) throw new EndpointError(messageFor(response.status, await response.json().catch(() => null), "video"), response.status);
  try {
    yield* linesOf(response.body);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new EndpointError("The connection to the endpoint broke off. What has arrived is kept. Try again.");
  }
}

/** Return whether the image has been sent, or is being sent, for this model. */
export const isUploaded = (picture, model) => Boolean(uploads.get(picture.id)?.has(model));

/**
 * Send one row of prompts. Return a promise of {predictions, model}, where `model` is the name of the model that answered.
 *
 * The first request for a model contains the image. Later requests contain only the image's id. If the endpoint has evicted
 * the image from its cache (404), the image is sent again. With `pixels`, a request always contains the image. Requests that start during the upload wait for the id. An
 * AbortSignal as `signal` cancels the request; the promise is then rejected with an AbortError.
 */
export async function score(picture, model, key, { row, params, pixels = false }, signal) {
  if (!uploads.has(picture.id)) uploads.set(picture.id, new Map());
  const ids = uploads.get(picture.id);
  const post = async (image) => {
    const answer = await request(`score?model=${encodeURIComponent(model)}`, key, {
      method: "POST",
      signal,
      body: JSON.stringify({ input_data: [{ ...image, ...row }], params }),
    });
    const [{ predictions, image_id: id }] = answer.body;
    return { predictions, id, model: answer.model };
  };
  for (let known = !pixels && ids.get(model); known; known = ids.get(model)) {
    const id = await known;
    signal?.throwIfAborted();
    try {
      if (id) return await post({ image_id: id });
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    if (ids.get(model) === known) ids.delete(model);
  }
  const upload = base64(picture.blob).then((image) => post({ image }));
  if (!pixels || !ids.has(model)) ids.set(model, upload.then(({ id }) => id, () => null));
  return upload;
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new EndpointError("The browser can no longer read the image file. Open the image again."));
    reader.readAsDataURL(blob);
  });
}
