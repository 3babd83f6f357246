// Convert an array of labels (one number per pixel) to RGBA pixels. Pure.

export const SPECK = 0x8000; // flag of a label: the pixel belongs to a part that is too small for an outline
export const HOLE = 0x4000; // flag of a label: the pixel is a hole that is too small for an outline
const NUMBER = 0x3fff;
const DASH = 6; // length of a dash of a dashed outline, in widths of the outline

const word = ([red, green, blue], alpha) => new Uint32Array(Uint8Array.of(red, green, blue, alpha).buffer)[0];

/**
 * Return the RGBA bytes for an array of labels, `rows` x `columns`. Label 0 is transparent.
 *
 * `styles` has an entry for each label from 1: {fill: [red, green, blue], opacity: 0 to 1, line: [red, green, blue],
 * dashed}. Each object is filled and has an outline `edge` pixels wide. There is no outline around pixels with the flag
 * SPECK or HOLE.
 */
export function colourLabels(labels, columns, rows, edge, styles) {
  const words = new Uint32Array(columns * rows);
  const fills = styles.map(({ fill, opacity }) => word(fill, Math.round(255 * opacity)));
  const lines = styles.map(({ line }) => word(line, 255));
  const far = edge * columns, dash = edge * DASH;
  for (let row = 0, at = 0; row < rows; row++) {
    const whole = row >= edge && row < rows - edge;
    for (let column = 0; column < columns; column++, at++) {
      const label = labels[at];
      if (!label || label & HOLE) continue;
      const number = label & NUMBER;
      const inside =
        label & SPECK ||
        ((whole || same(labels, at, far, number, row, edge, rows)) &&
          (column < edge || (labels[at - edge] & NUMBER) === number) && (column >= columns - edge || (labels[at + edge] & NUMBER) === number) &&
          (!whole || ((labels[at - far] & NUMBER) === number && (labels[at + far] & NUMBER) === number)));
      const gap = styles[number - 1].dashed && ((row + column) / dash) & 1;
      words[at] = inside || gap ? fills[number - 1] : lines[number - 1];
    }
  }
  return new Uint8ClampedArray(words.buffer);
}

// Return whether the pixels above and below have the same number. A pixel outside the picture does not count.
function same(labels, at, far, number, row, edge, rows) {
  if (row >= edge && (labels[at - far] & NUMBER) !== number) return false;
  return row >= rows - edge || (labels[at + far] & NUMBER) === number;
}
