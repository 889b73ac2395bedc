// What is held of threads that are not on screen: all of them together hold so many messages. What was touched longest ago
// goes down to its newest message, which lists show; its pages are read again when it is opened.

import { CLOSED_MAX } from './thread.js';

/** Messages of all threads that are not open, beyond the newest of each. */
export const SHELF_MAX = 5_000;

export class Shelf {
  /** Thread → how many messages of it count; the one touched last at the end. */
  #held = new Map();
  #sum = 0;

  /** A thread that is not open has more messages, or has just been closed. */
  put(thread) {
    thread.trim(CLOSED_MAX);
    this.take(thread);
    const count = thread.messages.length - 1;
    if (count <= 0) return;
    this.#held.set(thread, count);
    this.#sum += count;
    for (const [oldest] of this.#held) {
      if (this.#sum <= SHELF_MAX) return;
      this.take(oldest);
      oldest.trim(1, 1);
    }
  }

  /** It is opened, or not held any more. */
  take(thread) {
    this.#sum -= this.#held.get(thread) ?? 0;
    this.#held.delete(thread);
  }

  clear() {
    this.#held.clear();
    this.#sum = 0;
  }
}
