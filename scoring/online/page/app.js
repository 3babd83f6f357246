// The annotation page: the user labels objects in images with points, boxes and a brush, and exports the labels.
//
// state.js holds the whole state of the page. panel/ and view/ watch the state and display it; they call the functions of
// actions/, which change it. endpoint/ talks to the endpoint, images/ decodes and stores the images, worker.js draws masks
// in a worker thread. The modules in masks/, formats/ and project/ and a few others are pure: they use neither the document
// nor the network, and run in the tests without a browser.

import { restore } from "./actions/keep.js";
import "./panel/classes.js";
import "./panel/downloads.js";
import "./panel/images.js";
import "./panel/keys.js";
import "./panel/objects.js";
import "./panel/proposals.js";
import "./panel/sources.js";
import { loadModels } from "./panel/status.js";
import "./panel/tools.js";
import "./panel/transfer.js";
import "./view/pointer.js";
import { get, update } from "./state.js";

update({ project: { ...get().project } }); // display the first state
await restore();
await loadModels();
