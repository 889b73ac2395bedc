// What somebody has begun to write: one text per thread and person, kept like the unsent messages.

import { decode } from './text.js';

/** Drafts kept of one person; the one touched longest ago goes first. */
export const DRAFTS_MAX = 200;
/** Longest draft kept for a reload, UTF-16 units. */
export const DRAFT_UNITS_MAX = 20_000;

export class Drafts {
  #storage;
  #prefix = null;
  /** Thread → text, the one touched last at the end. */
  #texts = new Map();

  /** @param {{storage: import('./storage.js').Keep}} parts */
  constructor({ storage }) {
    this.#storage = storage;
  }

  /** Takes up the drafts of this person; those of anybody else are out of reach. */
  load(profileId) {
    this.close();
    this.#prefix = `haus.draft.${profileId}.`;
    const stored = this.#storage.keys(this.#prefix).map((key) => [key, decode(this.#storage.getItem(key))]);
    const good = stored.filter(([, draft]) => typeof draft?.text === 'string' && draft.text !== '');
    good.sort(([, a], [, b]) => (a.at ?? 0) - (b.at ?? 0));
    for (const [key, { text }] of good) this.#texts.set(key.slice(this.#prefix.length), text);
  }

  /** The draft of a thread, '' if there is none. */
  get(threadId) {
    return this.#texts.get(threadId) ?? '';
  }

  /** How many there are with something in them, whichever tab wrote it. */
  get count() {
    if (this.#prefix === null) return 0;
    const texts = this.#storage.keys(this.#prefix).map((key) => decode(this.#storage.getItem(key))?.text);
    return texts.filter((text) => typeof text === 'string' && text.trim() !== '').length;
  }

  /** Keeps `text` as the draft; '' forgets it. True if the thread has one now and had none, or the other way round. */
  set(threadId, text, at) {
    if (this.#prefix === null || this.get(threadId) === text) return false;
    const had = this.#texts.delete(threadId);
    if (text === '') this.#storage.removeItem(this.#prefix + threadId);
    else {
      this.#texts.set(threadId, text);
      const kept = text.slice(0, DRAFT_UNITS_MAX);
      this.#storage.setItem(this.#prefix + threadId, JSON.stringify({ text: kept, at }));
      if (this.#texts.size > DRAFTS_MAX) this.#drop(this.#texts.keys().next().value);
    }
    return had !== (text !== '');
  }

  /** Nobody's from now on; what is stored stays its owner's. */
  close() {
    this.#texts.clear();
    this.#prefix = null;
  }

  /** Forgets this person's drafts, here and in the storage. */
  clear() {
    if (this.#prefix !== null) for (const key of this.#storage.keys(this.#prefix)) this.#storage.removeItem(key);
    this.close();
  }

  #drop(threadId) {
    this.#texts.delete(threadId);
    this.#storage.removeItem(this.#prefix + threadId);
  }
}
