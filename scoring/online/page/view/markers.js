// Draw the points, the box, the keyboard's crosshair and the brush over the masks.
//
// `place` converts a point of the image to a point of the canvas. `unit` is the number of canvas pixels per CSS pixel.

const POSITIVE = "#009e73", NEGATIVE = "#d55e00", LINE = "#f0e442";

/** Draw the outline of a box [x1, y1, x2, y2], in pixels of the image. */
export function drawBox(context, [x1, y1, x2, y2], place, unit) {
  const [[left, top], [right, bottom]] = [place([x1, y1]), place([x2, y2])];
  outline(context, unit, () => context.strokeRect(left, top, right - left, bottom - top));
}

/** Draw points: green with a plus for label 1, orange with a minus for label 0. */
export function drawPoints(context, { points, labels }, place, unit) {
  context.lineWidth = 2 * unit;
  context.strokeStyle = "#fff";
  points.forEach((point, i) => {
    const [x, y] = place(point);
    context.beginPath();
    context.arc(x, y, 6 * unit, 0, 7);
    context.fillStyle = labels[i] ? POSITIVE : NEGATIVE;
    context.fill();
    context.stroke();
    lines(context, x, y, 3 * unit, labels[i]);
  });
}

/** Draw the crosshair at a pixel of the image. */
export function drawCrosshair(context, point, place, unit) {
  outline(context, unit, () => lines(context, ...place(point), 12 * unit, true));
}

/** Draw the circle of the brush. `radius` is in canvas pixels. */
export function drawBrush(context, point, place, radius, unit) {
  outline(context, unit / 2, () => {
    context.beginPath();
    context.arc(...place(point), radius, 0, 7);
    context.stroke();
  });
}

function lines(context, x, y, length, upright) {
  context.beginPath();
  context.moveTo(x - length, y);
  context.lineTo(x + length, y);
  if (upright) {
    context.moveTo(x, y - length);
    context.lineTo(x, y + length);
  }
  context.stroke();
}

function outline(context, unit, stroke) {
  for (const [width, style] of [[4, "#000"], [2, LINE]]) {
    context.lineWidth = width * unit;
    context.strokeStyle = style;
    stroke();
  }
}
