// Convert positions and sizes between the window, the image and the canvas. Pure.

const MIN_BOX = 2; // smallest width and height of a box, in pixels of the image
const MAX_ENLARGEMENT = 4; // largest factor by which small images are enlarged on the screen

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** Return the pixel of an image of the given size {width, height} that is nearest to [x, y]. */
export const within = ([x, y], { width, height }) => [clamp(x, 0, width - 1), clamp(y, 0, height - 1)];

/** Return the image's pixel [x, y] at a point of the window. `frame` is the canvas's rectangle in the window. */
export function pixelAt(clientX, clientY, frame, size) {
  const x = ((clientX - frame.left) / frame.width) * size.width;
  const y = ((clientY - frame.top) / frame.height) * size.height;
  return within([Math.round(x), Math.round(y)], size);
}

/** Return the box [x1, y1, x2, y2] between two opposite corners, or null if it is smaller than MIN_BOX. */
export function boxBetween([ax, ay], [bx, by]) {
  const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  return box[2] - box[0] < MIN_BOX || box[3] - box[1] < MIN_BOX ? null : box;
}

/**
 * Return the size at which an image is displayed: as large as the room allows, enlarged at most MAX_ENLARGEMENT times.
 *
 * `size` is the image's {width, height}. `room` is the available {width, height} in CSS pixels. `ratio` is the number of
 * device pixels per CSS pixel. The result is {width} in CSS pixels and {columns, rows} in device pixels.
 */
export function fitted(size, room, ratio) {
  const width = Math.max(1, Math.min(room.width, (room.height * size.width) / size.height, MAX_ENLARGEMENT * size.width));
  const columns = Math.max(1, Math.round(width * ratio));
  return { width, columns, rows: Math.max(1, Math.round((columns * size.height) / size.width)) };
}

/** Return the distance in pixels of the image by which an arrow key moves the crosshair. `far`: Shift is pressed. */
export const step = (size, far) => (far ? 25 : 5) * Math.max(1, Math.round(size.width / 1000));
