// Convert an array of labels (one number per pixel) to RGBA pixels. Pure.

const COLOURS = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66]];
const WHITE = [255, 255, 255];
const word = ([red, green, blue], alpha) => new Uint32Array(Uint8Array.of(red, green, blue, alpha).buffer)[0];

/**
 * Return the RGBA bytes for an array of labels, `rows` x `columns`. Label 0 is transparent. Label n has the n-th colour,
 * half transparent, with a white outline `edge` pixels wide.
 */
export function colourLabels(labels, columns, rows, edge) {
  const words = new Uint32Array(columns * rows);
  const fills = COLOURS.map((colour) => word(colour, 140));
  const outline = word(WHITE, 255);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at++) {
      const label = labels[at];
      if (!label) continue;
      const inside =
        row >= edge && row < rows - edge && column >= edge && column < columns - edge &&
        labels[at - edge] === label && labels[at + edge] === label &&
        labels[at - edge * columns] === label && labels[at + edge * columns] === label;
      words[at] = inside ? fills[(label - 1) % fills.length] : outline;
    }
  }
  return new Uint8ClampedArray(words.buffer);
}

/** Return RGBA bytes in which label 0 is black and every other label is white. */
export function whitenLabels(labels) {
  const [black, white] = [word([0, 0, 0], 255), word(WHITE, 255)];
  return new Uint8ClampedArray(Uint32Array.from(labels, (label) => (label ? white : black)).buffer);
}
