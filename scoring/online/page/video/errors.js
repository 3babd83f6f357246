// Show errors of the endpoint.

import { setStatus, update } from "./state.js";

/** Show an error. If the endpoint needs an API key, show the field for it. */
export function fail(error) {
  if (error.status === 401) update({ locked: true });
  setStatus(error.message, true);
}
