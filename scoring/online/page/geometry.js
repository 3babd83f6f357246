// Places and sizes: the window's, the picture's and the canvas's. Pure.

const MIN_BOX = 2; // pixels of the picture; a smaller drag is no box
const MAX_ENLARGEMENT = 4; // of small pictures on the screen

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** Return [x, y] within a picture of `size` {width, height}. */
export const within = ([x, y], { width, height }) => [clamp(x, 0, width - 1), clamp(y, 0, height - 1)];

/** Return the picture's pixel [x, y] under a point of the window. `frame` is the canvas's rectangle in the window. */
export function pixelAt(clientX, clientY, frame, size) {
  const x = ((clientX - frame.left) / frame.width) * size.width;
  const y = ((clientY - frame.top) / frame.height) * size.height;
  return within([Math.round(x), Math.round(y)], size);
}

/** Return the box [x1, y1, x2, y2] between two opposite corners, or null if it is thinner than two pixels. */
export function boxBetween([ax, ay], [bx, by]) {
  const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  return box[2] - box[0] < MIN_BOX || box[3] - box[1] < MIN_BOX ? null : box;
}

/**
 * Return the size at which a picture is shown: as large as there is room for, but small pictures at most enlarged four times.
 *
 * `size` is the picture's {width, height}, `room` is {width, height} in CSS pixels, and `ratio` is the number of device
 * pixels to a CSS pixel. Returns {width} in CSS pixels, and {columns, rows} in device pixels.
 */
export function fitted(size, room, ratio) {
  const width = Math.max(1, Math.min(room.width, (room.height * size.width) / size.height, MAX_ENLARGEMENT * size.width));
  const columns = Math.max(1, Math.round(width * ratio));
  return { width, columns, rows: Math.max(1, Math.round((columns * size.height) / size.width)) };
}

/** Return the pixels that one press of an arrow key moves the cross by. */
export const step = (size, far) => (far ? 25 : 5) * Math.max(1, Math.round(size.width / 1000));
