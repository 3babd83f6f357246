// The page: clicks on a picture become prompts, and the endpoint's answers become masks over it.
//
// state.js holds all that the page knows. actions.js changes it, called by input.js (pointer, keys), panel.js (buttons)
// and samples.js (files); canvas.js and panel.js watch it and show it. api.js talks to the endpoint, and
// worker.js draws masks away from the main thread. geometry.js, rle.js, paint.js, exif.js, models.js and requests.js are pure.

import "./canvas.js";
import "./downloads.js";
import "./input.js";
import { loadModels } from "./panel.js";
import "./samples.js";

loadModels();
