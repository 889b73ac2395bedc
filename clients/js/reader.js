// Everything that is asked for rather than told: threads on screen, older pages, previews, further pages of the list, read
// marks. What comes back goes into the store; nothing is held here but what is under way.

import { jitterMs } from './backoff.js';
import { HausError, LOCAL } from './errors.js';

/** Messages a page of `thread.open` and `history` asks for. */
const PAGE = 50;
/** Read marks of a thread within this time go out as one, milliseconds. */
const READ_GATHER_MS = 250;
/** Updates of unlisted threads within this time ask for one list, milliseconds. */
const LIST_GATHER_MS = 300;
/** A refusal for now is repeated so often. */
const TRIES_MAX = 5;

export class Reader {
  #parts;
  #opened = new Map();
  #older = new Map();
  // The newest `no` a preview was asked for at: an answer may be empty (nothing one may see).
  #previews = new Map();
  #reads = new Map();
  #listTimer = null;
  /** Counts the people this was used for. */
  #era = 0;

  /**
   * @param {{store: import('./store.js').Store, connection: import('./connection.js').Connection,
   *          people: import('./people.js').People, clock: object, random: () => number,
   *          touch: (id: string | null) => void, shown: (id: string, seq: number) => void}} parts
   *   `shown`: a thread's messages are complete up to `seq`
   */
  constructor(parts) {
    this.#parts = parts;
  }

  #thread(id) {
    return this.#parts.store.threads.get(id) ?? null;
  }

  get #ready() {
    return this.#parts.connection.phase === 'ready';
  }

  /** Loads a thread and keeps it open across reconnects. @returns {Promise<import('./thread.js').Thread>} */
  open(threadId) {
    let entry = this.#opened.get(threadId);
    if (entry === undefined) {
      // The oldest message on the screen.
      entry = { from: Infinity };
      entry.loaded = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      // Whoever does not wait for it is told by the thread's own notice.
      entry.loaded.catch(() => {});
      this.#opened.set(threadId, entry);
      if (this.#ready) this.#load(threadId, entry);
    }
    return entry.loaded;
  }

  close(threadId) {
    if (!this.#opened.delete(threadId)) return;
    this.#parts.connection.command('thread.close', { threadId }, { repeat: false }).catch(() => {});
    const thread = this.#thread(threadId);
    if (thread === null) return;
    thread.trim();
    this.#parts.store.bound(thread);
  }

  /** From which message on an open thread is on the screen; null: the newest alone. */
  reading(threadId, no) {
    const entry = this.#opened.get(threadId);
    if (entry !== undefined) entry.from = no ?? Infinity;
  }

  /** A new socket: `thread.open` belongs to the socket and is sent again. */
  reopen() {
    for (const [id, entry] of this.#opened) this.#load(id, entry);
  }

  /** A thread's messages are gone (`reset`): again now if it is on screen, else when it is. */
  reset(threadId) {
    const entry = this.#opened.get(threadId);
    if (entry && this.#ready) this.#load(threadId, entry);
    else if (this.#thread(threadId)?.stream.pos === null) {
      this.#previews.delete(threadId);
      this.preview(threadId);
    }
  }

  forget(threadId) {
    this.#opened.delete(threadId);
  }

  /** Nobody is signed in any more: nothing asked for one person is asked again for the next. */
  clear(error) {
    this.#era += 1;
    for (const { reject } of this.#opened.values()) reject(error);
    this.#opened.clear();
    this.#older.clear();
    this.#previews.clear();
    this.#reads.clear();
    this.#parts.clock.clearTimeout(this.#listTimer);
    this.#listTimer = null;
  }

  /** The oldest message on the screen of a thread that is kept loaded for one; undefined for others. */
  openFrom(threadId) {
    return this.#opened.get(threadId)?.from;
  }

  /** A page of older messages in front; calls meanwhile share it. */
  older(threadId) {
    if (!this.#older.has(threadId)) {
      this.#older.set(threadId, this.#loadOlder(threadId));
      const mine = this.#older.get(threadId);
      const done = () => this.#older.get(threadId) === mine && this.#older.delete(threadId);
      mine.then(done, done);
    }
    return this.#older.get(threadId);
  }

  /** The newest message alone, where none is held. Never throws. */
  async preview(threadId) {
    const thread = this.#thread(threadId);
    const needless = thread === null || thread.row.no === 0 || (thread.messages.length > 0 && thread.stream.pos !== null);
    if (needless || this.#previews.get(threadId) === thread.row.no) return;
    this.#previews.set(threadId, thread.row.no);
    const read = thread.beginRead();
    try {
      const ok = await this.ask('history', { threadId, before: thread.row.no + 1, limit: 1 });
      this.#parts.store.applyThread(thread, thread.finishPreview(read, ok));
      this.#parts.touch(threadId);
    } catch {
      thread.abandonRead(read);
      this.#previews.delete(threadId);
    }
  }

  /** Moves the own read mark, here at once and on the server soon. */
  read(threadId, no) {
    const thread = this.#thread(threadId);
    if (thread === null || no <= thread.row.lastReadNo) return;
    thread.setRead({ lastReadNo: no });
    this.#parts.touch(threadId);
    if (!this.#reads.has(threadId)) this.#parts.clock.setTimeout(() => this.#sendRead(threadId), READ_GATHER_MS);
    this.#reads.set(threadId, no);
  }

  /** The next page of the thread list. */
  async moreThreads() {
    const cursor = this.#parts.store.nextThreads;
    if (cursor === null) return;
    const { threads, next } = await this.ask('threads.list', { cursor });
    this.list(threads, next);
  }

  /** A thread that is not listed has sent something: it is at the top of the list now. */
  relist() {
    this.#listTimer ??= this.#parts.clock.setTimeout(async () => {
      this.#listTimer = null;
      const page = await this.ask('threads.list', { limit: PAGE }).catch(() => ({ threads: [] }));
      this.list(page.threads);
    }, LIST_GATHER_MS);
  }

  list(rows, next) {
    for (const { peer } of rows) this.#parts.people.learn(peer);
    this.#parts.store.listed(rows, next);
  }

  /** A command that only reads: a refusal for now is repeated a few times. */
  ask(cmd, d, repeat = true) {
    const forNow = (error) => error.retryable && error.code !== LOCAL.DISCONNECTED;
    return this.patiently(() => this.#parts.connection.command(cmd, d, { repeat }), forNow);
  }

  /** What may be done again without harm, again a few times while it fails with an error that is `forNow`. */
  async patiently(task, forNow) {
    const { clock, random } = this.#parts;
    const era = this.#era;
    for (let tries = 1; ; tries += 1) {
      try {
        return await task();
      } catch (error) {
        if (!forNow(error) || tries >= TRIES_MAX || era !== this.#era) throw error;
        const waitMs = Math.max(error.retryAfterMs, jitterMs(tries - 1, random));
        await new Promise((resolve) => clock.setTimeout(resolve, waitMs));
        if (era !== this.#era) throw new HausError(LOCAL.SIGNED_OUT);
      }
    }
  }

  // A cut one is simply left: `reopen` sends it anew.
  async #load(threadId, entry) {
    const { store, people, touch, shown } = this.#parts;
    let read = null;
    try {
      if (this.#thread(threadId) === null) {
        const { thread, seq } = await this.ask('thread.open', { threadId, limit: 1 }, false);
        this.list([{ ...thread, seq }]);
      }
      const thread = this.#thread(threadId);
      read = thread.beginRead();
      const ok = await this.ask('thread.open', { threadId, limit: PAGE }, false);
      for (const { profileId, displayName, avatar } of ok.members ?? []) people.learn({ id: profileId, displayName, avatar });
      store.applyThread(thread, thread.finishOpen(read, ok));
      store.bound(thread);
      shown(threadId, ok.seq);
      touch(threadId);
      entry.resolve(thread);
    } catch (error) {
      this.#thread(threadId)?.abandonRead(read);
      if (error.code === LOCAL.DISCONNECTED) return;
      if (this.#opened.get(threadId) === entry) this.#opened.delete(threadId);
      entry.reject(error);
    }
  }

  async #loadOlder(threadId) {
    const thread = this.#thread(threadId);
    if (thread === null || !thread.loaded || !thread.hasOlder || thread.messages.length === 0) return;
    const before = thread.messages[0].no;
    const read = thread.beginRead();
    try {
      thread.finishOlder(read, await this.ask('history', { threadId, before, limit: PAGE }), before);
      // Closed meanwhile, it is bounded like the others.
      if (!this.#opened.has(threadId)) this.#parts.store.bound(thread);
      this.#parts.touch(threadId);
    } catch (error) {
      thread.abandonRead(read);
      throw error;
    }
  }

  async #sendRead(threadId) {
    const no = this.#reads.get(threadId);
    if (no === undefined) return;
    this.#reads.delete(threadId);
    const thread = this.#thread(threadId);
    if (thread === null) return;
    try {
      const ok = await this.ask('read', { threadId, no, readRev: thread.row.readRev });
      thread.setRead({ lastReadNo: ok.lastReadNo, readRev: ok.readRev });
      this.#parts.touch(threadId);
    } catch {
      // The mark stays on this device; the next one, or the next row, puts both in agreement.
    }
  }
}
