// Time: `now` is of the wall, for people, and may be set at any moment; `mono` never jumps, and every deadline counts by it.

export const systemClock = {
  now: () => Date.now(),
  mono: () => performance.now(),
  setTimeout: (task, ms) => setTimeout(task, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

/** The clock as the parts use it. One given without `mono` is taken by its word that it does not jump. */
export function clockOf(given = systemClock) {
  return {
    now: () => given.now(),
    mono: () => (given.mono ? given.mono() : given.now()),
    setTimeout: (task, ms) => given.setTimeout(task, ms),
    clearTimeout: (timer) => given.clearTimeout(timer),
  };
}
