// Draw the points, the box and the keyboard's crosshair over the masks.
//
// `scale` is the number of canvas pixels per pixel of the image. `unit` is the number of canvas pixels per CSS pixel.

const POSITIVE = "#009e73", NEGATIVE = "#d55e00", LINE = "#f0e442";

/** Draw the outline of a box [x1, y1, x2, y2], in pixels of the image. */
export function drawBox(context, [x1, y1, x2, y2], scale, unit) {
  outline(context, unit, () => context.strokeRect(x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale));
}

/** Draw points: green with a plus for label 1, orange with a minus for label 0. */
export function drawPoints(context, { points, labels }, scale, unit) {
  context.lineWidth = 2 * unit;
  context.strokeStyle = "#fff";
  points.forEach(([px, py], i) => {
    const [x, y] = [px * scale, py * scale];
    context.beginPath();
    context.arc(x, y, 6 * unit, 0, 7);
    context.fillStyle = labels[i] ? POSITIVE : NEGATIVE;
    context.fill();
    context.stroke();
    lines(context, x, y, 3 * unit, labels[i]);
  });
}

/** Draw the crosshair at [x, y], in pixels of the image. */
export function drawCrosshair(context, [x, y], scale, unit) {
  outline(context, unit, () => lines(context, x * scale, y * scale, 12 * unit, true));
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
