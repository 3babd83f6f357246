// The annotation page: the user clicks points and drags boxes on an image, and the page shows the resulting masks.
//
// state.js holds the whole state of the page. input.js (pointer and keyboard), panel.js (buttons) and samples.js (files)
// call the functions of actions.js, which change the state. canvas.js and panel.js watch the state and display it.
// api.js sends requests to the endpoint. worker.js draws masks in a worker thread. geometry.js, rle.js, paint.js,
// exif.js, models.js and requests.js are pure: they use neither the document nor the network.

import "./canvas.js";
import "./downloads.js";
import "./input.js";
import { loadModels } from "./panel.js";
import "./samples.js";

loadModels();
