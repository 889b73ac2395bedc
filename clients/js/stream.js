// The gap rule of one stream (protocol, section 2). Pure: it is told updates and says which to apply now.

/** Updates kept above a gap, or before the position is known. What comes above this is fetched again by `sync`. */
export const HELD_MAX = 200;

export class Stream {
  #held = new Map();
  #overflowed = false;

  /** @param {number | null} pos seq of the last update applied; null while it is not known */
  constructor(pos = null) {
    this.pos = pos;
  }

  /** The updates to apply now, in order: none (old, early, or the position is unknown), one, or one and what it let go. */
  offer(update) {
    if (this.pos !== null && update.seq <= this.pos) return [];
    if (this.pos === null || update.seq > this.pos + 1) {
      this.#hold(update);
      return [];
    }
    this.pos = update.seq;
    return [update, ...this.#drain()];
  }

  /** Continues from `pos`, whatever was before; returns the updates that were held and follow it. */
  rebase(pos) {
    this.pos = pos;
    for (const seq of this.#held.keys()) if (seq <= pos) this.#held.delete(seq);
    return this.#drain();
  }

  /** Forgets the position, keeping what arrived above it. */
  forget() {
    this.pos = null;
  }

  /** Whether something is known to be missing. */
  get gap() {
    return this.pos !== null && (this.#held.size > 0 || this.#overflowed);
  }

  get heldCount() {
    return this.#held.size;
  }

  #hold(update) {
    if (this.#held.size < HELD_MAX) this.#held.set(update.seq, update);
    else if (!this.#held.has(update.seq)) this.#overflowed = true;
  }

  #drain() {
    const ready = [];
    for (let next; (next = this.#held.get(this.pos + 1)) !== undefined; ) {
      this.#held.delete(next.seq);
      this.pos = next.seq;
      ready.push(next);
    }
    return ready;
  }

  /** A `sync` that covers the gap is on its way: what overflowed comes with it. */
  syncing() {
    this.#overflowed = false;
  }
}
