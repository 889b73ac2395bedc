// What this device holds: the user stream, every thread, and the position in each. Turns frames into state; does no I/O.
// What must be asked of the server (a gap to fill, a thread that is not listed) it tells through hooks.

import { Shelf } from './shelf.js';
import { Stream } from './stream.js';
import { Thread } from './thread.js';

/** Streams in one `auth` or `sync` frame (protocol, section 3). */
export const SYNC_STREAMS_MAX = 500;

/** Threads that are not listed but have sent updates; above it their updates wait for `sync` after listing. */
export const UNLISTED_MAX = 500;

/** @typedef {'user' | string} StreamId `user`, or the id of a thread */

export class Store {
  /** @type {Map<string, Thread>} */
  threads = new Map();
  epoch = null;
  selfId = null;
  /** Cursor of the threads not listed yet; null when all are. */
  nextThreads = null;

  #user = new Stream();
  /** Positions from which the present socket is live, as the reply to `auth` told. */
  #liveFrom = new Map();
  /** @type {Map<string, Stream>} streams whose thread is not listed yet */
  #unlisted = new Map();
  #behind = new Map();
  #shelf = new Shelf();
  #hooks;

  /**
   * @param {{threadChanged: (id: string) => void, listChanged: () => void, created: (thread: Thread, message: object) => void,
   *          gap: (stream: StreamId) => void, unlisted: (id: string) => void, removed: (id: string, reason: string) => void,
   *          openFrom?: (id: string) => number | undefined, applied: (thread: Thread) => void, user: (update: object) => void, reset: (id: string) => void, lost: () => void}} hooks
   *   `openFrom`: the oldest `no` on a screen of an open thread (Infinity: the newest alone); undefined if it is not open ·
   *   `reset`: a thread's messages are to be loaded again when shown; `lost`: the user stream has to start anew
   */
  constructor(hooks) {
    this.#hooks = hooks;
  }

  /** Forgets everything: another person, or nobody. */
  clear() {
    this.threads.clear();
    this.#shelf.clear();
    this.#unlisted.clear();
    this.#behind.clear();
    this.#liveFrom.clear();
    this.#user = new Stream();
    this.epoch = null;
    this.selfId = null;
    this.nextThreads = null;
  }

  /** Streams and positions to resume from; the user stream first, then threads by their last message. Null at first. */
  positions() {
    if (this.epoch === null) return null;
    const threads = this.list().filter(({ stream }) => stream.pos !== null);
    const streams = threads.map(({ id, stream }) => [id, stream.pos]);
    return this.#user.pos === null ? streams : [['user', this.#user.pos], ...streams];
  }

  position(id) {
    return this.#streamOf(id)?.pos ?? null;
  }

  /** Threads, the latest message first. */
  list() {
    const at = ({ row }) => row.lastMessageAt ?? row.createdAt ?? '';
    return [...this.threads.values()].sort((a, b) => (at(a) < at(b) ? 1 : at(a) > at(b) ? -1 : a.id < b.id ? 1 : -1));
  }

  /** The reply to `auth`. Positions of streams held already stay: what was missed comes by resume. */
  authed(ok) {
    if (this.epoch !== null && this.epoch !== ok.epoch) this.clear();
    this.epoch = ok.epoch;
    this.selfId = ok.profile.id;
    this.#behind.clear();
    this.#liveFrom = new Map([['user', ok.streams.user], ...ok.threads.map(({ id, seq }) => [id, seq])]);
    if (this.#user.pos === null) this.#applyUser(this.#user.rebase(ok.streams.user));
    this.listed(ok.threads, ok.next);
  }

  /** Rows of a thread list. `next` undefined: the page does not say where the list goes on. */
  listed(rows, next) {
    for (const row of rows) this.#row(row);
    if (next !== undefined) this.nextThreads = next;
    this.#hooks.listChanged();
  }

  /** Somebody is called otherwise now: also in the rows and lists of members that tell an older name. */
  named({ id, displayName, avatar }) {
    for (const thread of this.threads.values()) if (thread.named(id, { displayName, avatar })) this.#hooks.threadChanged(thread.id);
  }

  /** One frame with `up` that carries a `seq`, or a snapshot. */
  receive(frame) {
    if (frame.up === 'snapshot') this.#snapshot(frame);
    else if (frame.s === 'user' || frame.s === this.selfId) this.#offer(this.#user, 'user', frame);
    else this.#offer(this.#threadStream(frame.s), frame.s, frame);
  }

  /**
   * `resumed`: the named streams are complete up to there; what is held of those in `reset` is not.
   * @param {boolean} first the one that belongs to `auth`, so that the positions in its reply hold
   */
  resumed({ streams = {}, reset = [], denied = [] }, first) {
    for (const id of denied) this.#remove(id, 'denied');
    for (const id of reset) this.#reset(id, first);
    for (const [id, seq] of Object.entries(streams)) {
      const stream = this.#streamOf(id);
      if (stream && stream.pos !== null && (stream.pos < seq || stream.gap)) this.#hooks.gap(id);
    }
  }

  /** Heads of a heartbeat. Returns the streams that have been below a head for two heartbeats. @returns {StreamId[]} */
  heads(heads) {
    const behind = [];
    for (const [id, head] of Object.entries(heads)) {
      const pos = this.position(id);
      if (pos === null || pos >= head) this.#behind.delete(id);
      else if (pos < (this.#behind.get(id) ?? 0)) behind.push(id);
      else this.#behind.set(id, head);
    }
    return behind;
  }

  /** A `sync` from the present position of these streams is about to be sent. */
  syncing(ids) {
    for (const id of ids) this.#streamOf(id)?.syncing();
  }

  /** Applies updates whose turn has come in a thread. */
  applyThread(thread, updates) {
    for (const update of updates) {
      const message = thread.apply(update);
      if (message === null) continue;
      this.bound(thread);
      this.#hooks.created(thread, message);
    }
    if (updates.length === 0) return;
    this.#hooks.applied(thread);
    this.#hooks.threadChanged(thread.id);
  }

  /** Keeps what is held of a thread within its bounds. */
  bound(thread) {
    const from = this.#hooks.openFrom?.(thread.id);
    if (from === undefined) this.#shelf.put(thread);
    else {
      this.#shelf.take(thread);
      thread.trimOpen(from);
    }
  }

  #streamOf(id) {
    return id === 'user' ? this.#user : this.threads.get(id)?.stream;
  }

  #threadStream(id) {
    const held = this.threads.get(id)?.stream ?? this.#unlisted.get(id);
    if (held) return held;
    const stream = new Stream();
    if (this.#unlisted.size < UNLISTED_MAX) this.#unlisted.set(id, stream);
    this.#hooks.unlisted(id);
    return stream;
  }

  #offer(stream, id, update) {
    const ready = stream.offer(update);
    if (stream === this.#user) this.#applyUser(ready);
    else if (ready.length > 0) this.applyThread(this.threads.get(id), ready);
    if (stream.gap) this.#hooks.gap(id);
  }

  // A row for a thread that is not held sets the position; for one that is held, only what it shows.
  #row(row) {
    let thread = this.threads.get(row.id);
    if (thread === undefined) {
      thread = new Thread(row.id, this.selfId);
      thread.stream = this.#unlisted.get(row.id) ?? thread.stream;
      this.#unlisted.delete(row.id);
      this.threads.set(row.id, thread);
    }
    thread.setRow(row);
    if (thread.stream.pos === null) this.applyThread(thread, thread.stream.rebase(row.seq));
    if (thread.stream.gap) this.#hooks.gap(row.id);
    this.#hooks.threadChanged(row.id);
  }

  #snapshot({ s, seq, d }) {
    if (s !== 'user' && s !== this.selfId) {
      if (!this.threads.has(s) && d.thread) this.#row({ ...d.thread, seq });
      const thread = this.threads.get(s);
      if (thread === undefined) return;
      this.applyThread(thread, thread.replace(d, seq));
      this.bound(thread);
      this.#hooks.applied(thread);
      this.#hooks.threadChanged(s);
      return;
    }
    if (d.next === null) {
      const present = new Set(d.threads.map(({ id }) => id));
      for (const id of [...this.threads.keys()]) if (!present.has(id)) this.#remove(id, 'left');
    }
    const ready = this.#user.rebase(seq);
    this.listed(d.threads, d.next);
    this.#applyUser(ready);
  }

  #reset(id, first) {
    const stream = this.#streamOf(id);
    const liveFrom = first ? this.#liveFrom.get(id) : undefined;
    // Held from this socket on already (another epoch): nothing in it is from before.
    if (!stream || (liveFrom !== undefined && stream.pos !== null && stream.pos >= liveFrom)) return;
    if (id === 'user') {
      if (liveFrom === undefined) this.#hooks.lost();
      else this.#applyUser(stream.rebase(liveFrom));
      return;
    }
    const thread = this.threads.get(id);
    thread.dropMessages();
    if (liveFrom === undefined) stream.forget();
    else this.applyThread(thread, stream.rebase(liveFrom));
    this.#hooks.reset(id);
    this.#hooks.threadChanged(id);
  }

  #applyUser(updates) {
    for (const update of updates) {
      const { up, d } = update;
      if (up === 'thread.added') this.#added(d.thread);
      else if (up === 'thread.removed') this.#removed(d);
      else if (up === 'thread.state' && this.threads.has(d.threadId)) {
        this.threads.get(d.threadId).setRead(d);
        this.#hooks.threadChanged(d.threadId);
      }
      this.#hooks.user(update);
    }
  }

  // A join, told at its seq. One held below it was left in between: what is held of it has a hole.
  #added(row) {
    const held = this.threads.get(row.id);
    if (held && held.stream.pos !== null && held.stream.pos >= row.seq) return;
    if (held) this.#forget(held);
    this.#row(row);
    this.#hooks.listChanged();
  }

  // A leave, told at its seq. One held above it has been joined again since.
  #removed({ threadId, seq, reason }) {
    const pos = this.position(threadId);
    if (pos === null || pos <= seq) this.#remove(threadId, reason);
  }

  #remove(id, reason) {
    this.#unlisted.delete(id);
    const thread = this.threads.get(id);
    if (thread === undefined) return;
    this.#forget(thread);
    this.#hooks.removed(id, reason);
  }

  #forget(thread) {
    this.#shelf.take(thread);
    this.threads.delete(thread.id);
  }
}
