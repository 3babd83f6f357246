// Undo and redo: earlier and later projects, each with the image at which the change was made. Pure.

const MOST = 200; // number of steps that can be undone

export const NO_HISTORY = Object.freeze({ past: [], future: [] });

/** Return the history after a change. `entry` is {project, imageId, active} before the change. */
export const record = ({ past }, entry) => ({ past: [...past.slice(1 - MOST), entry], future: [] });

/** Return {history, entry} after one step back. `entry` is the entry to restore, or null. `now` is the current entry. */
export function back({ past, future }, now) {
  if (!past.length) return { history: { past, future }, entry: null };
  const entry = past.at(-1);
  return { history: { past: past.slice(0, -1), future: [{ ...now, imageId: entry.imageId }, ...future] }, entry };
}

/** Return {history, entry} after one step forward. */
export function forward({ past, future }, now) {
  if (!future.length) return { history: { past, future }, entry: null };
  const [entry, ...rest] = future;
  return { history: { past: [...past, { ...now, imageId: entry.imageId }], future: rest }, entry };
}

/** Return the history with `change(project)` applied to each project, for answers that arrive after further changes. */
export function mapProjects({ past, future }, change) {
  const map = (entry) => {
    const project = change(entry.project);
    return project === entry.project ? entry : { ...entry, project };
  };
  return { past: past.map(map), future: future.map(map) };
}
