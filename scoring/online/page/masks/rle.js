// Encode and decode COCO's compressed run-length encoding, and draw masks at the size of the screen. Pure.
//
// A run is a number of consecutive pixels with the same value, counted down the columns of the image. The runs alternate
// between outside and inside the mask. The page keeps a mask as the end of each run (an Int32Array). No function allocates
// an array of the image's size, because a mask of 12 million pixels has only a few thousand runs.

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
  return endsOfCounts(counts, [height, width]);
}

/** Return the end of each run for the lengths of the runs, COCO's uncompressed encoding. Throws as `decodeRuns` does. */
export function endsOfCounts(counts, [height, width]) {
  const ends = new Int32Array(counts.length);
  let end = 0;
  counts.forEach((count, run) => (ends[run] = end += count));
  if (end !== height * width) throw new Error(`The mask's runs cover ${end} pixels; a mask of ${width} x ${height} has ${height * width}.`);
  return ends;
}

/** Return COCO's compressed text for the ends of runs. */
export function encodeRuns(ends) {
  let text = "";
  for (let run = 0; run < ends.length; run++) {
    let value = length(ends, run) - (run > 2 ? length(ends, run - 2) : 0);
    for (let more = true; more; ) {
      let code = value & 31;
      value >>= 5;
      more = code & 16 ? value !== -1 : value !== 0;
      if (more) code |= 32;
      text += String.fromCharCode(code + 48);
    }
  }
  return text;
}

const length = (ends, run) => ends[run] - (run ? ends[run - 1] : 0);

/**
 * Write `label` into the pixels of `labels` that are inside the mask. `labels` has `rows` x `columns` pixels, row by row.
 *
 * `view` says which part of the image the labels show: {left, top} is the image's point at their upper left corner, and
 * {across, down} the number of image pixels per label. Without it, the labels show the whole image. Each label takes the
 * value of the mask at the label's centre. If `columns` and `rows` are the image's size, the result is exact.
 */
export function rasterize(ends, [height, width], labels, columns, rows, label, view) {
  const { left = 0, top: above = 0, across = width / columns, down = height / rows } = view ?? {};
  let first = 0; // the first run that reaches into the column
  for (let column = 0; column < columns; column++) {
    const x = Math.floor(left + (column + 0.5) * across);
    if (x < 0) continue;
    if (x >= width) break;
    const top = x * height;
    const bottom = top + height;
    while (ends[first] <= top) first++;
    for (let run = first; run < ends.length; run++) {
      const begin = Math.max(run ? ends[run - 1] : 0, top) - top;
      if (begin >= height) break;
      if (run % 2 === 0) continue;
      const end = Math.min(ends[run], bottom) - top;
      const last = Math.min(rows, Math.ceil((end - above) / down - 0.5));
      for (let row = Math.max(0, Math.ceil((begin - above) / down - 0.5)); row < last; row++) labels[row * columns + column] = label;
    }
  }
}
