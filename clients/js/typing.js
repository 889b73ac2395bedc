// Who is typing where. Each notice is over by itself after a while.

/** A `typing` is over after this, milliseconds (protocol, section 4). */
const TYPING_MS = 6_000;

export class Typing {
  #threads = new Map();
  #clock;
  #changed;

  /** @param {{clock: {mono(): number, setTimeout: Function}, changed: (threadId: string) => void}} parts */
  constructor({ clock, changed }) {
    this.#clock = clock;
    this.#changed = changed;
  }

  told({ threadId, profileIds }) {
    this.#threads.set(threadId, { ids: profileIds, endsAt: this.#clock.mono() + TYPING_MS });
    this.#clock.setTimeout(() => this.#over(threadId), TYPING_MS + 50);
    this.#changed(threadId);
  }

  /** Whoever has sent something has finished typing it. */
  sent(threadId, profileId) {
    const typing = this.#threads.get(threadId);
    if (typing) typing.ids = typing.ids.filter((id) => id !== profileId);
  }

  of(threadId) {
    const { ids = [], endsAt = 0 } = this.#threads.get(threadId) ?? {};
    return endsAt > this.#clock.mono() ? ids : [];
  }

  clear() {
    this.#threads.clear();
  }

  #over(threadId) {
    if (this.of(threadId).length === 0 && this.#threads.delete(threadId)) this.#changed(threadId);
  }
}
