// When something is drawn: once before the next paint, however often it was asked for.

/** In a page that is not shown nothing is painted: drawn after this, milliseconds. */
const HIDDEN_MS = 250;

/** A function that runs `task` once for all calls of one frame. */
export function once(task) {
  let asked = false;
  const run = () => {
    if (!asked) return;
    asked = false;
    task();
  };
  return () => {
    if (asked) return;
    asked = true;
    if (document.visibilityState === 'visible') requestAnimationFrame(run);
    // Also for a page that is hidden between the asking and the paint.
    setTimeout(run, HIDDEN_MS);
  };
}

/** Calls `task` when a new day has begun here; looks that often and when the page is shown again, milliseconds. */
const DAY_EVERY_MS = 10_000;

export function everyDay(task) {
  let day = new Date().toDateString();
  const look = () => {
    const today = new Date().toDateString();
    if (today === day) return;
    day = today;
    task();
  };
  setInterval(look, DAY_EVERY_MS);
  document.addEventListener('visibilitychange', look);
}

/** Draws text anew in fonts that have come meanwhile: emoji stayed boxes where they were shown before their font was there. */
export function shapeAgain() {
  let times = 0;
  document.fonts.addEventListener('loadingdone', ({ fontfaces }) => {
    if (fontfaces.length === 0) return;
    times += 1;
    document.documentElement.style.setProperty('--shaped', `"hs${String(times % 100).padStart(2, '0')}"`);
  });
}
