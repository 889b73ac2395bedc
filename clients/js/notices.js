// Changes gathered: the first is told at once, what follows within a moment together, however much arrives.

/** Changes are told at most once in this time, milliseconds. */
const NOTICE_MS = 50;

export class Notices {
  #clock;
  #tell;
  #dirty = new Set();
  #scheduled = false;
  #toldAt = -Infinity;

  /**
   * @param {{clock: {mono(): number, setTimeout: Function}, tell: (ids: string[]) => void}} parts
   *   `tell`: these threads have changed, and with them the list
   */
  constructor({ clock, tell }) {
    this.#clock = clock;
    this.#tell = tell;
  }

  /** @param {string | null} id a thread; null: the list alone */
  touch(id) {
    if (id !== null) this.#dirty.add(id);
    if (this.#scheduled) return;
    this.#scheduled = true;
    const waitMs = this.#toldAt + NOTICE_MS - this.#clock.mono();
    if (waitMs > 0) this.#clock.setTimeout(() => this.#flush(), waitMs);
    else queueMicrotask(() => this.#flush());
  }

  #flush() {
    this.#scheduled = false;
    this.#toldAt = this.#clock.mono();
    const ids = [...this.#dirty];
    this.#dirty.clear();
    this.#tell(ids);
  }
}
