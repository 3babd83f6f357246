// Keep the drawn masks up to date: one layer of all objects, and one of the preview under the pointer.
//
// Each layer is drawn by the worker for the part of the image that the canvas shows. While the worker draws, the layer's
// earlier bitmap stays visible, moved and scaled to the present view.

import { windowOf } from "./geometry.js";

const SPECK_AREA = 60; // CSS pixels on the screen; smaller parts of a mask get no outline
const EDGE = 1.5; // width of an outline in CSS pixels

/**
 * A layer of masks. `choose(state)` returns the masks, and `paint` is the function `paintLayer` of painter.js. `redraw` is
 * called when a new bitmap is ready, and `fail` on an error.
 */
export class Layer {
  constructor(choose, { name, paint, redraw, fail }) {
    Object.assign(this, { choose, name, paint, redraw, fail });
    this.bitmap = null;
    this.view = null; // the view for which the bitmap was drawn
    this.masks = []; // the masks in the bitmap
    this.wanted = null; // the latest {masks, view, columns, rows}, if it is not drawn yet
    this.drawing = null; // the job that the worker draws, unless the layer was cleared meanwhile
    this.busy = false;
  }

  /** Remove the layer's bitmap, and ignore the bitmap that the worker draws now. */
  clear() {
    this.bitmap?.close();
    Object.assign(this, { bitmap: null, masks: [], wanted: null, drawing: null });
  }

  /** Draw the masks of a state for a canvas of {width, height} pixels. */
  refresh(state, { width, height }, ratio) {
    const masks = state.view ? this.choose(state) : [];
    if (!masks.length) {
      if (this.bitmap) this.redraw();
      return this.clear();
    }
    this.wanted = { masks, view: state.view, columns: width, rows: height, ratio, start: performance.now() };
    this.work();
  }

  async work() {
    if (this.busy) return;
    this.busy = true;
    while (this.wanted) {
      const job = this.wanted;
      const { masks, view, columns, rows, ratio, start } = job;
      Object.assign(this, { wanted: null, drawing: job });
      const limit = 2 ** Math.round(Math.log2(SPECK_AREA / view.scale ** 2)); // rounded, because the worker caches the parts of a mask for each limit
      try {
        const bitmap = await this.paint(masks, { columns, rows, view: windowOf(view, ratio), edge: Math.max(1, Math.round(EDGE * ratio)), limit });
        if (this.drawing === job) this.accept(bitmap, job, start);
        else bitmap.close();
      } catch (error) {
        if (this.drawing !== job) continue;
        this.clear();
        this.fail(error);
      }
    }
    this.busy = false;
  }

  accept(bitmap, { masks, view, columns, rows }, start) {
    this.bitmap?.close();
    const isNew = masks.length !== this.masks.length || masks.some(({ mask }, i) => mask !== this.masks[i]?.mask);
    Object.assign(this, { bitmap, view, masks });
    const detail = { width: columns, height: rows, masks: masks.length };
    this.redraw(() => isNew && performance.measure(this.name, { start, end: performance.now(), detail }));
  }

  /** Draw the bitmap on a canvas that shows the present view. */
  draw(context, view, ratio) {
    if (!this.bitmap) return;
    const scale = view.scale / this.view.scale;
    const [x, y] = [(view.x - this.view.x * scale) * ratio, (view.y - this.view.y * scale) * ratio];
    context.drawImage(this.bitmap, x, y, this.bitmap.width * scale, this.bitmap.height * scale);
  }
}
