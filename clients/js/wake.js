// When a device comes back: from sleep, from another page, from a network that was gone. Tells it, at the latest some seconds
// after it; what to do then is not decided here. Outside a browser only the sleep is noticed.

import { STORED } from './session.js';

/** How often the clocks are compared, milliseconds. */
const TICK_MS = 2_000;
/** A tick that comes so much later than it should was slept through, milliseconds. */
const SLEPT_MS = 8_000;

/**
 * @param {{clock: object, target: EventTarget | undefined, page: Document | undefined, woke: () => void, stored: () => void}} parts
 *   `stored`: another tab has changed who is signed in
 * @returns {() => void} ends it: no timer and no listener is left
 */
export function watchWaking({ clock, target, page, woke, stored }) {
  let timer = null;
  let wall = clock.now();
  const visible = () => page?.visibilityState !== 'hidden';
  const tick = () => {
    const passed = clock.now() - wall;
    wall = clock.now();
    // A hidden page's timers are held back by the browser: that is no sleep, and it tells when it is shown.
    if (passed > TICK_MS + SLEPT_MS && visible()) woke();
    timer = clock.setTimeout(tick, TICK_MS);
    timer?.unref?.();
  };
  timer = clock.setTimeout(tick, TICK_MS);
  timer?.unref?.();

  const shown = () => visible() && woke();
  const changed = ({ key }) => (key === STORED || key === null) && stored();
  const listeners = [
    [target, 'online', woke], [target, 'offline', woke], [target, 'pageshow', woke], [target, 'focus', shown],
    [target, 'storage', changed], [page, 'visibilitychange', shown], [page, 'resume', woke],
  ];
  for (const [where, name, listener] of listeners) where?.addEventListener?.(name, listener);
  return () => {
    clock.clearTimeout(timer);
    for (const [where, name, listener] of listeners) where?.removeEventListener?.(name, listener);
  };
}
