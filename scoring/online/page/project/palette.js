// Colours that people with colour blindness can distinguish: the palettes of Okabe and Ito, and of Tol. Pure.

export const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#332288", "#88ccee", "#117733", "#999933", "#aa4499", "#882255", "#ddcc77"];

/** Return the first colour of the palette that is used least often. */
export function nextColour(used) {
  const counts = PALETTE.map((colour) => used.filter((other) => other === colour).length);
  return PALETTE[counts.indexOf(Math.min(...counts))];
}

/** Return [red, green, blue] of a colour such as "#0072b2". */
export const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** Return whether a text is a colour such as "#0072b2". */
export const isColour = (text) => /^#[0-9a-f]{6}$/i.test(text ?? "");
