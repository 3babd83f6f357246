// Small pictures for buttons, as SVG elements. Each is the path of a line drawing of 24 x 24 units.

const PATHS = {
  add: "M12 5v14M5 12h14",
  subtract: "M5 12h14",
  box: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M11 4h2M11 20h2M4 11v2M20 11v2",
  brush: "M20 4 10 14M10 14c-3-1-5 1-5 3 0 2-1 2-2 3 4 1 9 0 9-4z",
  eraser: "M9 20h11M4 15 14 5l6 6-8 9H8z",
  move: "M5 3l14 7-6 2-2 6z",
  undo: "M9 6 4 11l5 5M4 11h10a5 5 0 0 1 0 10h-3",
  redo: "M15 6l5 5-5 5M20 11H10a5 5 0 0 0 0 10h3",
  similar: "M8 4a4 4 0 1 0 0 8a4 4 0 0 0 0-8M16 12a4 4 0 1 0 0 8a4 4 0 0 0 0-8M17 4h3v3M7 20H4v-3",
  everything: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM17 14v6M14 17h6",
  finish: "M4 12l5 6L20 6",
  delete: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  each: "M6 6h.01M12 6h.01M18 6h.01M6 12h.01M12 12h.01M18 12h.01M6 18h.01M12 18h.01M18 18h.01",
  shown: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  hidden: "M3 3l18 18M6 7c-3 2-4 5-4 5s4 7 10 7c2 0 4-1 5-2M10 5c7-1 12 7 12 7l-2 3",
  smaller: "M5 12h14",
  larger: "M12 5v14M5 12h14",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  play: "M7 5l12 7-12 7z",
  pause: "M8 5v14M16 5v14",
  back: "M15 6l-6 6 6 6",
  forward: "M9 6l6 6-6 6",
  accept: "M5 13l4 4L19 7",
};

/** Return an SVG element with the picture of this name. Screen readers skip it. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
