// Keep the data set in the browser's database, so that a reload loses nothing.

const NAME = `sam-endpoint ${new URL(".", document.baseURI).pathname}`; // several endpoints may share a host
const STORES = ["images", "objects", "meta"]; // image id -> file, image id -> objects, "project" and "settings"
const TAB = `${Date.now()}-${Math.random()}`; // the database names the tab that may write: the one opened last
let database = null; // promise of the database

/** Another tab has opened the data set since, so this tab may no longer write. */
export class TakenOver extends Error {}

function open() {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return database;
}

const completed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });

async function read(store, work) {
  const transaction = (await open()).transaction([store], "readonly");
  const request = work(transaction.objectStore(store));
  await completed(transaction);
  return request.result;
}

/** Write in one transaction, which first checks that no other tab has taken over: two tabs never write in turns. */
async function write(stores, work) {
  const transaction = (await open()).transaction(["meta", ...stores], "readwrite");
  let other = false;
  transaction.objectStore("meta").get("tab").onsuccess = ({ target }) => {
    other = target.result !== TAB;
    if (other) transaction.abort();
    else work(...["meta", ...stores].map((name) => transaction.objectStore(name)));
  };
  await completed(transaction).catch((error) => {
    throw other ? new TakenOver() : error;
  });
}

/** Take the data set over from other tabs. `onTakenOver` is called when another tab has done the same. */
export async function takeOver(onTakenOver) {
  const tabs = new BroadcastChannel(NAME);
  tabs.onmessage = async () => (await read("meta", (meta) => meta.get("tab"))) !== TAB && onTakenOver();
  const transaction = (await open()).transaction(["meta"], "readwrite");
  transaction.objectStore("meta").put(TAB, "tab");
  await completed(transaction);
  tabs.postMessage(TAB);
}

/** Return a promise of {project, settings} of the last visit, or null if there is none. */
export async function load() {
  const [meta, settings] = await Promise.all(["project", "settings"].map((key) => read("meta", (store) => store.get(key))));
  if (!meta) return settings ? { project: null, settings } : null;
  const [ids, lists] = await Promise.all([read("objects", (store) => store.getAllKeys()), read("objects", (store) => store.getAll())]);
  const known = new Set(meta.images.map(({ id }) => id));
  const objects = Object.fromEntries(ids.map((id, i) => [id, lists[i]]).filter(([id]) => known.has(id)));
  return { project: { ...meta, objects }, settings };
}

/** Store the difference between two projects. */
export function saveProject(project, before) {
  return write(["objects"], (meta, objects) => {
    if (project.classes !== before?.classes || project.images !== before?.images) meta.put({ classes: project.classes, images: project.images }, "project");
    for (const [id, list] of Object.entries(project.objects)) if (list !== before?.objects[id]) objects.put(list, id);
    for (const id of Object.keys(before?.objects ?? {})) if (!(id in project.objects)) objects.delete(id);
  });
}

export const saveSettings = (settings) => write([], (meta) => meta.put(settings, "settings"));

/** Store the files of images: a list of {id, blob}. */
export const saveImages = (images) => write(["images"], (_, store) => images.forEach(({ id, blob }) => store.put(blob, id)));

/** Return a promise of the file of an image, or undefined. */
export const loadImage = (id) => read("images", (store) => store.get(id));

export const deleteImages = (ids) => write(["images"], (_, store) => ids.forEach((id) => store.delete(id)));

/** Delete the files of images that no project knows any more. */
export async function sweep(project) {
  const known = new Set(project.images.map(({ id }) => id));
  const ids = await read("images", (store) => store.getAllKeys());
  const unknown = ids.filter((id) => !known.has(id));
  if (unknown.length) await deleteImages(unknown);
}
