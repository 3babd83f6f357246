// The page for videos: the user clicks on objects in a frame, the endpoint tracks them, and the user saves the tracks.
//
// state.js holds the whole state of the page. The other modules watch the state and display it, or change it. tracks.js and
// formats.js are pure. The frames come from the endpoint (clip.js), so their numbers are those of the tracker.

import "./canvas.js";
import "./keys.js";
import "./panel.js";
import "./pointer.js";
import { loadModels } from "./sources.js";
import { get, update } from "./state.js";

update({ status: { ...get().status, text: "Open a video to begin." } });
await loadModels();
