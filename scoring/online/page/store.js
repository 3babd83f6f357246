// Hold an immutable state, and call watchers after each change. Pure.

/** Return {get, update, watch} for a state, an object. See state.js for their use. */
export function createStore(initial) {
  let state = Object.freeze(initial);
  const watchers = [];
  return {
    get: () => state,
    update(changes) {
      const before = state;
      state = Object.freeze({ ...state, ...changes });
      for (const watcher of watchers) watcher(state, before);
    },
    watch: (watcher) => watchers.push(watcher),
  };
}
