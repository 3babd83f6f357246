// Save the state in the browser's database after each change, and restore it when the page is opened.

import * as storage from "../images/storage.js";
import { EMPTY } from "../project/project.js";
import { get, setStatus, update, watch } from "../state.js";
import { openStored } from "./images.js";

const SETTINGS = ["imageId", "classId", "tool", "thresholds", "each", "radius", "opacity", "colourBy", "letters", "model"];
const pick = (state) => Object.fromEntries(SETTINGS.map((name) => [name, state[name]]));
let saved = null; // the project that is in the database
let saving = null; // promise of the transaction in progress
let failed = false; // whether the user has been told that nothing is kept

/** Take the data set over from other tabs, restore it, then save each change. */
export async function restore() {
  try {
    await storage.takeOver(stop);
    const found = await storage.load();
    if (found?.project) {
      saved = found.project;
      update({ project: found.project });
      storage.sweep(found.project).catch(() => {});
    }
    const { imageId, ...settings } = found?.settings ?? {};
    const { classes, images } = get().project;
    update({ ...settings, classId: classes.some(({ id }) => id === settings.classId) ? settings.classId : classes[0].id });
    const open = images.find(({ id }) => id === imageId) ?? images[0];
    if (open && imageId) await openStored(open.id);
  } catch {
    tellOnce();
  }
  watch((state, before) => {
    if (state.project !== before.project) save();
    if (SETTINGS.some((name) => state[name] !== before[name])) storage.saveSettings(pick(state)).catch(report);
  });
}

// Changes that come while a transaction is in progress are saved together afterwards.
function save() {
  saving ??= Promise.resolve().then(async () => {
    try {
      while (saved !== get().project) {
        const { project } = get();
        await storage.saveProject(project, saved);
        saved = project;
      }
    } catch (error) {
      report(error);
    }
    saving = null;
  });
}

const stop = () => update({ takenOver: true });

const report = (error) => (error instanceof storage.TakenOver ? stop() : tellOnce());

function tellOnce() {
  if (failed) return;
  failed = true;
  setStatus("This browser keeps no data for this page. Export your labels before you close it.", true);
}

/** Delete the whole data set in the browser. */
export async function startAnew() {
  get().picture?.bitmap.close();
  update({ project: EMPTY, history: { past: [], future: [] }, picture: null, imageId: null, active: null, marked: [], classId: EMPTY.classes[0].id, view: null, hover: null });
  await storage.sweep(EMPTY).catch(() => {});
  setStatus("Open an image to begin.");
}
