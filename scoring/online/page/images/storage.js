// Keep the data set in the browser's database, so that a reload loses nothing.

const NAME = `sam-endpoint ${new URL(".", document.baseURI).pathname}`; // several endpoints may share a host
const STORES = ["images", "objects", "meta"]; // image id -> file, image id -> objects, "project" and "settings"
let database = null; // promise of the database

function open() {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return database;
}

async function run(stores, mode, work) {
  const transaction = (await open()).transaction(stores, mode);
  const request = work(...stores.map((name) => transaction.objectStore(name)));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

/** Return a promise of {project, settings} of the last visit, or null if there is none. */
export async function load() {
  const [meta, settings] = await Promise.all([run(["meta"], "readonly", (store) => store.get("project")), run(["meta"], "readonly", (store) => store.get("settings"))]);
  if (!meta) return settings ? { project: null, settings } : null;
  const [ids, lists] = await Promise.all([run(["objects"], "readonly", (store) => store.getAllKeys()), run(["objects"], "readonly", (store) => store.getAll())]);
  const known = new Set(meta.images.map(({ id }) => id));
  const objects = Object.fromEntries(ids.map((id, i) => [id, lists[i]]).filter(([id]) => known.has(id)));
  return { project: { ...meta, objects }, settings };
}

/** Store the difference between two projects. */
export function saveProject(project, before) {
  return run(["meta", "objects"], "readwrite", (meta, objects) => {
    if (project.classes !== before?.classes || project.images !== before?.images) meta.put({ classes: project.classes, images: project.images }, "project");
    for (const [id, list] of Object.entries(project.objects)) if (list !== before?.objects[id]) objects.put(list, id);
    for (const id of Object.keys(before?.objects ?? {})) if (!(id in project.objects)) objects.delete(id);
  });
}

export const saveSettings = (settings) => run(["meta"], "readwrite", (store) => void store.put(settings, "settings"));

/** Store the files of images: a list of {id, blob}. */
export const saveImages = (images) => run(["images"], "readwrite", (store) => images.forEach(({ id, blob }) => store.put(blob, id)));

/** Return a promise of the file of an image, or undefined. */
export const loadImage = (id) => run(["images"], "readonly", (store) => store.get(id));

export const deleteImages = (ids) => run(["images"], "readwrite", (store) => ids.forEach((id) => store.delete(id)));

/** Delete the files of images that no project knows any more. */
export async function sweep(project) {
  const known = new Set(project.images.map(({ id }) => id));
  const ids = await run(["images"], "readonly", (store) => store.getAllKeys());
  const unknown = ids.filter((id) => !known.has(id));
  if (unknown.length) await deleteImages(unknown);
}
