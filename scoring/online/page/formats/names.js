// Compare and build the names of files. Pure.

/** Return a file's name without its folders. */
export const baseName = (name) => name.replace(/^.*[\\/]/, "");

/** Return a name without its ending, such as ".jpg". */
export const stem = (name) => name.replace(/\.[^./\\]*$/, "");

/**
 * Return the image to which a name in a file of labels belongs, or undefined. `key` gives the part of a name to compare.
 *
 * The whole path is compared first, then the end of the path, and at last the name without folders. A name that fits
 * several images belongs to none.
 */
export function findByName(images, name, key = (text) => text) {
  const wanted = key(name);
  const only = (matches) => {
    const found = images.filter((image) => matches(key(image.name)));
    return found.length === 1 ? found[0] : undefined;
  };
  return (
    images.find((image) => key(image.name) === wanted) ??
    only((known) => wanted.endsWith(`/${known}`)) ??
    only((known) => known.endsWith(`/${wanted}`)) ??
    only((known) => baseName(known) === baseName(wanted))
  );
}

/** Return `name`, with a number before its ending if the name is already taken. */
export function freeName(name, taken) {
  let free = name;
  for (let i = 2; taken.has(free); i++) free = `${stem(name)} (${i})${name.slice(stem(name).length)}`;
  return free;
}
