// Convert positions and sizes between the window, the image and the canvas. Pure.
//
// A view says where the image is on the canvas: {scale, x, y}, the size of an image pixel and the place of the image's upper
// left corner, in CSS pixels.

const MIN_BOX = 2; // smallest width and height of a box, in pixels of the image
const MAX_ENLARGEMENT = 4; // largest factor by which small images are enlarged when they are opened
const MAX_SCALE = 40; // largest size of an image pixel, in CSS pixels
const VISIBLE = 60; // a part of the image of this many CSS pixels always stays on the canvas

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** Return the pixel of an image of the given size {width, height} that is nearest to [x, y]. */
export const within = ([x, y], { width, height }) => [clamp(x, 0, width - 1), clamp(y, 0, height - 1)];

/** Return the point of the image at a point [x, y] of the canvas. */
export const toImage = (view, [x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

/** Return the point of the canvas at a point [x, y] of the image. */
export const toCanvas = (view, [x, y]) => [view.x + x * view.scale, view.y + y * view.scale];

/** Return the image's pixel [x, y] at a point of the canvas. */
export const pixelAt = (view, point, size) => within(toImage(view, point).map(Math.round), size);

/** Return the box [x1, y1, x2, y2] between two opposite corners, or null if it is smaller than MIN_BOX. */
export function boxBetween([ax, ay], [bx, by]) {
  const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  return box[2] - box[0] < MIN_BOX || box[3] - box[1] < MIN_BOX ? null : box;
}

/** Return the view that shows the whole image in the middle of the canvas, enlarged at most MAX_ENLARGEMENT times. */
export function fitView(size, room) {
  const scale = Math.min(room.width / size.width, room.height / size.height, MAX_ENLARGEMENT);
  return { scale, x: (room.width - size.width * scale) / 2, y: (room.height - size.height * scale) / 2 };
}

/** Return the view with a part of the image on the canvas, and with a scale that is neither too small nor too large. */
export function limitView({ scale, x, y }, size, room) {
  const keep = (start, length, space) => clamp(start, Math.min(VISIBLE, space) - length, space - Math.min(VISIBLE, space));
  return { scale, x: keep(x, size.width * scale, room.width), y: keep(y, size.height * scale, room.height) };
}

/** Return the view enlarged by `factor` around a point of the canvas, which keeps showing the same point of the image. */
export function zoomView(view, factor, [px, py], size, room) {
  const least = Math.min(fitView(size, room).scale, 1) / 2;
  const scale = clamp(view.scale * factor, least, MAX_SCALE);
  const ratio = scale / view.scale;
  return limitView({ scale, x: px - (px - view.x) * ratio, y: py - (py - view.y) * ratio }, size, room);
}

export const panView = ({ scale, x, y }, dx, dy, size, room) => limitView({ scale, x: x + dx, y: y + dy }, size, room);

/** Return the view moved so that a point of the image is on the canvas, at least `margin` CSS pixels from its edge. */
export function reveal(view, point, room, margin = 40) {
  const [x, y] = toCanvas(view, point);
  const dx = clamp(x, Math.min(margin, room.width / 2), Math.max(room.width - margin, room.width / 2)) - x;
  const dy = clamp(y, Math.min(margin, room.height / 2), Math.max(room.height - margin, room.height / 2)) - y;
  return dx || dy ? { ...view, x: view.x + dx, y: view.y + dy } : view;
}

/** Return the view for two fingers that have moved from `before` to `after`, each a pair of points of the canvas. */
export function pinchView(view, before, after, size, room) {
  const middle = ([[ax, ay], [bx, by]]) => [(ax + bx) / 2, (ay + by) / 2];
  const spread = ([[ax, ay], [bx, by]]) => Math.max(10, Math.hypot(ax - bx, ay - by));
  const [from, to] = [middle(before), middle(after)];
  const zoomed = zoomView(view, spread(after) / spread(before), from, size, room);
  return panView(zoomed, to[0] - from[0], to[1] - from[1], size, room);
}

/** Return the part of the image that the canvas shows, for `rasterize`. `ratio` is the number of its pixels per CSS pixel. */
export const windowOf = ({ scale, x, y }, ratio) => ({ left: -x / scale, top: -y / scale, across: 1 / (scale * ratio), down: 1 / (scale * ratio) });

/** Return the distance in pixels of the image by which an arrow key moves the crosshair. `far`: Shift is pressed. */
export const step = (size, far) => (far ? 25 : 5) * Math.max(1, Math.round(size.width / 1000));
