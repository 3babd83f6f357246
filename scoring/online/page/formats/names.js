// Compare and build the names of files. Pure.

/** Return a file's name without its folders. */
export const baseName = (name) => name.replace(/^.*[\\/]/, "");

/** Return a name without its ending, such as ".jpg". */
export const stem = (name) => name.replace(/\.[^./\\]*$/, "");

/**
 * Return a Map from each of `names`, which stand in files of labels, to the image to which it belongs. Names without an image
 * are left out. `key` gives the part of a name to compare.
 *
 * The whole path is compared first, then the end of the path, and at last the name without folders. A name that fits several
 * images belongs to none. An image belongs to one name only: one that is the name of an image, such as "a/1.jpg", is no other
 * image for "b/1.jpg", and an image that several names fit belongs to none of them.
 */
export function matchByName(images, names, key = (text) => text) {
  const wanted = new Set(names.map(key));
  const [exact, others] = [new Map(), new Map()];
  for (const image of images) {
    const known = key(image.name);
    if (wanted.has(known)) append(exact, known, image);
    else append(others, baseName(known), image);
  }
  const found = new Map(), claims = new Map();
  for (const name of wanted) {
    const image = exact.has(name) ? only(exact.get(name)) : similar(name, others.get(baseName(name)) ?? [], key);
    found.set(name, image);
    claims.set(image, (claims.get(image) ?? 0) + 1);
  }
  return new Map(names.map((name) => [name, found.get(key(name))]).filter(([, image]) => image && claims.get(image) === 1));
}

function append(lists, key, value) {
  if (!lists.has(key)) lists.set(key, []);
  lists.get(key).push(value);
}

const only = (images) => (images.length === 1 ? images[0] : undefined);

// Find the image of `name` among images with the same name in other folders. An image without a file has its name from other
// labels: if the folders differ, as in "train/1.jpg" and "val/1.jpg", it is another image.
function similar(name, images, key) {
  const fitting = (matches) => only(images.filter((image) => matches(key(image.name))));
  const inOtherFolder = only(images);
  return fitting((known) => name.endsWith(`/${known}`)) ?? fitting((known) => known.endsWith(`/${name}`)) ?? (inOtherFolder?.missing ? undefined : inOtherFolder);
}

/**
 * Throw an Error if two images would have the same file of labels, which is named as the image without its ending. `format` is
 * the name of the format.
 */
export function checkStems(images, format) {
  const names = new Map();
  for (const { name } of images) {
    const other = names.get(stem(name));
    if (other) throw new Error(`${other} and ${name} would have the same file in ${format}, which leaves the ending out. Export as COCO instead.`);
    names.set(stem(name), name);
  }
}

/** Return `name`, with a number before its ending if the name is already taken. */
export function freeName(name, taken) {
  let free = name;
  for (let i = 2; taken.has(free); i++) free = `${stem(name)} (${i})${name.slice(stem(name).length)}`;
  return free;
}
