// Requests to the endpoint, by addresses relative to the page, and what goes wrong with them.

const sent = new WeakMap(); // of each picture: by model, a promise of the id under which the endpoint caches it, or null

export class EndpointError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(path, key, options = {}) {
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(path, { headers, ...options }).catch(() => {
    throw new EndpointError("The endpoint cannot be reached.");
  });
  const body = await response.json().catch(() => null);
  if (response.ok && body) return { body, model: response.headers.get("x-answered-by") };
  throw new EndpointError(body?.error?.message ?? body?.message ?? `The endpoint answered with HTTP status ${response.status}.`, response.status);
}

export const listModels = async (key) => (await request("models", key)).body;

/** Return whether the endpoint has received the picture for this model. */
export const isSent = (picture, model) => Boolean(sent.get(picture)?.has(model));

/**
 * Ask about one row of a picture. Return {predictions, model}, where `model` is the name of the model that answered.
 *
 * The picture is sent once for each model; afterwards its id is. If the endpoint no longer caches it (404), it is sent
 * again. Requests that begin during the upload wait for its id.
 */
export async function score(picture, model, key, { row, params }) {
  if (!sent.has(picture)) sent.set(picture, new Map());
  const ids = sent.get(picture);
  const ask = async (image) => {
    const answer = await request(`score?model=${encodeURIComponent(model)}`, key, {
      method: "POST",
      body: JSON.stringify({ input_data: [{ ...image, ...row }], params }),
    });
    const [{ predictions, image_id: id }] = answer.body;
    return { predictions, id, model: answer.model };
  };
  for (let known = ids.get(model); known; known = ids.get(model)) {
    const id = await known;
    try {
      if (id) return await ask({ image_id: id });
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    if (ids.get(model) === known) ids.delete(model);
  }
  const upload = base64(picture.blob).then((image) => ask({ image }));
  ids.set(model, upload.then(({ id }) => id, () => null));
  return upload;
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new EndpointError("The file can no longer be read. Open the image again."));
    reader.readAsDataURL(blob);
  });
}
