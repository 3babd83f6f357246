// The actions on images: add files to the data set, open one of them, go to the next, remove one.

import { freeName, matchByName } from "../formats/names.js";
import { decodeUpright, ImageError, sizeOf } from "../images/decode.js";
import { getFile, isSameFile, putFiles } from "../images/files.js";
import { changeImage, newId, removeImage, withFile } from "../project/project.js";
import { commit, commitEverywhere, get, setStatus, update } from "../state.js";
import { within } from "../view/geometry.js";

let latest = 0; // number of the latest image to open; images that were decoded too late are not displayed

const CLOSED = { picture: null, imageId: null, active: null, marked: [], hover: null, stroke: null, corner: null, draft: null, view: null, pointer: null };

/**
 * Add image files to the data set, a list of {blob, name}, and open the first of them.
 *
 * A file that the data set has already is not added again. A file whose labels were imported before gets these labels. Undo
 * does not remove a file that was added.
 */
export async function addImages(files) {
  const problems = [];
  const waiting = matchByName(waitingImages(), files.map(({ name }) => name));
  let first = null, kept = true, count = 0;
  for (const { blob, name } of files) {
    if (files.length > 20 && count++ % 10 === 0) setStatus(`Adding images: ${count} of ${files.length} …`);
    try {
      const added = await addImage(blob, name, waiting.get(name)?.id);
      kept &&= added.kept;
      first ??= added.id;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      problems.push(error.message);
    }
  }
  if (first) await openStored(first);
  if (problems.length) setStatus(problems.length === 1 ? problems[0] : `${problems.length} of ${files.length} files were not added. ${problems[0]}`, true);
  else if (!kept) setStatus("The browser has no room to keep the images. Your labels are kept. After a reload of the page, you must add the image files again. Export your work now and then.", true);
  return first;
}

// Images that wait for their file, also those of an import that was undone: redo brings their labels back.
function waitingImages() {
  const { project, history } = get();
  const waiting = [project, ...history.future.map((entry) => entry.project)].flatMap(({ images }) => images.filter(({ missing }) => missing));
  return [...new Map(waiting.map((image) => [image.id, image])).values()];
}

async function addImage(blob, name, waitingId) {
  const size = await sizeOf(blob, name);
  const { images } = get().project;
  const waiting = waitingImages().find(({ id }) => id === waitingId);
  if (waiting?.width === size.width && waiting.height === size.height) return keepFile(blob, waiting);
  for (const image of images.filter((other) => other.name === name && !other.missing)) {
    if (await isSameFile(await getFile(image.id), blob)) return { id: image.id, kept: true };
  }
  const image = Object.freeze({ id: newId(), name: freeName(name, new Set([...images, ...waitingImages()].map((other) => other.name))), ...size, done: false, missing: false });
  return keepFile(blob, image);
}

async function keepFile(blob, image) {
  const kept = await putFiles([{ id: image.id, blob }]);
  commitEverywhere((project) => withFile(project, image));
  return { id: image.id, kept };
}

/** Open an image of the data set: decode it once, turn it as its EXIF orientation says, and display it. */
export async function openStored(id) {
  const number = ++latest;
  const image = get().project.images.find((other) => other.id === id);
  if (!image) return;
  const blob = await getFile(id);
  if (number !== latest) return;
  if (!blob) {
    commitEverywhere((project) => changeImage(project, id, { missing: true }));
    get().picture?.bitmap.close();
    update({ ...CLOSED, imageId: id });
    return setStatus(`The file ${image.name} is not in this browser. Its labels are kept. Add the file again to go on.`, true);
  }
  let bitmap;
  try {
    bitmap = await decodeUpright(blob, image.name);
  } catch (error) {
    return setStatus(error.message, true);
  }
  if (number !== latest) return bitmap.close();
  const { width, height } = bitmap;
  get().picture?.bitmap.close();
  update({
    ...CLOSED,
    imageId: id,
    picture: { id, bitmap, blob, name: image.name, width, height },
    crosshair: within([Math.round(width / 2), Math.round(height / 2)], bitmap),
  });
  setStatus("Click on an object, or drag a box around it.");
}

/** Open the next or the previous image of the data set. */
export function goTo(by) {
  const { project, imageId } = get();
  const at = project.images.findIndex(({ id }) => id === imageId);
  const next = project.images[at + by];
  if (next) return openStored(next.id);
  setStatus(by > 0 ? "This is the last image." : "This is the first image.");
}

/** Mark the open image as done, or remove the mark. */
export function setDone(done) {
  const { project, imageId } = get();
  if (imageId) commit(changeImage(project, imageId, { done }));
}

/** Mark the open image as done, and open the next one. */
export function doneAndNext() {
  setDone(true);
  return goTo(1);
}

/** Close the image, so that the user can add others. Nothing is deleted. */
export function closeImage() {
  latest++;
  get().picture?.bitmap.close();
  update(CLOSED);
  setStatus("Add images, or open an image of the list.");
}

/** Remove an image and its objects from the data set, without undo. */
export async function removeFromSet(id) {
  const { project, imageId } = get();
  const at = project.images.findIndex((image) => image.id === id);
  const [{ name }] = project.images.slice(at);
  const next = project.images[at + 1] ?? project.images[at - 1];
  commitEverywhere((other) => removeImage(other, id));
  if (imageId === id) await (next ? openStored(next.id) : closeImage());
  setStatus(`${name} is removed from the data set.`);
}
