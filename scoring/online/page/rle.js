// Decode COCO's compressed run-length encoding, and draw masks at the size of the canvas. Pure.
//
// A run is a number of consecutive pixels with the same value, counted down the columns of the image. The runs alternate
// between outside and inside the mask. No function allocates an array of the image's size, because a mask of 12 million
// pixels has only a few thousand runs.

/**
 * Return the end of each run as a number of pixels from the start. Run 0 is outside the mask, run 1 inside, and so on.
 *
 * Throws an Error if the runs do not cover the image exactly.
 */
export function decodeRuns(text, [height, width]) {
  const counts = [];
  for (let i = 0; i < text.length; ) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(i++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  const ends = new Int32Array(counts.length);
  let end = 0;
  counts.forEach((count, run) => (ends[run] = end += count));
  if (end !== height * width) throw new Error(`The mask's runs cover ${end} pixels; a mask of ${width} x ${height} has ${height * width}.`);
  return ends;
}

/**
 * Write `label` into the pixels of `labels` that are inside the mask. `labels` has `rows` x `columns` pixels, row by row.
 *
 * The mask is scaled to that size: each pixel of `labels` takes the value of the mask at the pixel's centre. If `columns`
 * and `rows` are the image's size, the result is exact.
 */
export function rasterize(ends, [height, width], labels, columns, rows, label) {
  const across = width / columns, down = height / rows;
  let first = 0; // the first run that reaches into the column
  for (let column = 0; column < columns; column++) {
    const top = Math.floor((column + 0.5) * across) * height;
    const bottom = top + height;
    while (ends[first] <= top) first++;
    for (let run = first; run < ends.length; run++) {
      const begin = Math.max(run ? ends[run - 1] : 0, top) - top;
      if (begin >= height) break;
      if (run % 2 === 0) continue;
      const end = Math.min(ends[run], bottom) - top;
      const last = Math.ceil(end / down - 0.5);
      for (let row = Math.ceil(begin / down - 0.5); row < last; row++) labels[row * columns + column] = label;
    }
  }
}
