// Draw the image at the resolution of the screen.
//
// A photograph of 12 megapixels takes long to scale. The backdrop keeps two small bitmaps: the whole image as it was opened,
// and the part on the screen, which is made a moment after the view has changed.

import { clamp } from "./geometry.js";

const REST = 90; // ms without a change of the view, before the part on the screen is made
const SHARP = 3; // scale from which the pixels of the image are shown as squares

export class Backdrop {
  constructor(redraw) {
    this.redraw = redraw;
    this.number = 0; // number of the latest request; bitmaps of earlier requests are not used
    this.whole = this.part = this.picture = this.timer = null;
  }

  /** Show another image, or none with null. */
  open(picture, scale) {
    this.number++;
    clearTimeout(this.timer);
    this.whole?.close();
    this.part?.bitmap.close();
    Object.assign(this, { picture, whole: null, part: null });
    if (!picture) return;
    const [width, height] = [picture.width, picture.height].map((length) => Math.max(1, Math.round(length * Math.min(1, scale))));
    createImageBitmap(picture.bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" }).then((bitmap) => {
      if (picture !== this.picture) return bitmap.close();
      this.whole?.close();
      this.whole = bitmap;
      this.redraw();
    }, () => {}); // the image has been closed in the meantime
  }

  /** Prepare the part of the image that the view shows. `width` and `height` are the canvas's size in CSS pixels. */
  settle(view, { width, height }, ratio) {
    clearTimeout(this.timer);
    if (!this.picture || !this.whole || view.scale * ratio <= (this.whole.width / this.picture.width) * 1.05) return;
    this.timer = setTimeout(() => this.crop(view, width, height, ratio), REST);
  }

  async crop(view, width, height, ratio) {
    const { picture, number } = this;
    const [left, right] = [0, width].map((x) => clamp((x - view.x) / view.scale, 0, picture.width)).map((x, i) => (i ? Math.ceil(x) : Math.floor(x)));
    const [top, bottom] = [0, height].map((y) => clamp((y - view.y) / view.scale, 0, picture.height)).map((y, i) => (i ? Math.ceil(y) : Math.floor(y)));
    if (right <= left || bottom <= top) return;
    const scale = Math.min(1, view.scale * ratio);
    const resize = { resizeWidth: Math.max(1, Math.round((right - left) * scale)), resizeHeight: Math.max(1, Math.round((bottom - top) * scale)), resizeQuality: "high" };
    const bitmap = await createImageBitmap(picture.bitmap, left, top, right - left, bottom - top, scale < 1 ? resize : {}).catch(() => null);
    if (!bitmap || picture !== this.picture || number !== this.number) return bitmap?.close();
    this.part?.bitmap.close();
    this.part = { bitmap, left, top, width: right - left, height: bottom - top };
    this.redraw();
  }

  /** Draw the image on a canvas that shows the view. */
  draw(context, view, ratio) {
    const unit = view.scale * ratio;
    const place = (left, top, width, height) => [view.x * ratio + left * unit, view.y * ratio + top * unit, width * unit, height * unit];
    context.imageSmoothingEnabled = view.scale < SHARP;
    if (this.whole) context.drawImage(this.whole, ...place(0, 0, this.picture.width, this.picture.height));
    if (this.part) context.drawImage(this.part.bitmap, ...place(this.part.left, this.part.top, this.part.width, this.part.height));
    context.imageSmoothingEnabled = true;
  }
}
