// Messages on their way: kept until the server has answered, across reconnects and reloads. Knows no socket: it is given
// a function that sends one and tells the outcome.
//
// A send is repeated with the same nonce until there is an answer; the server makes repeats the same message, for ever.
// One send per thread is under way at a time, so that a refusal to be repeated cannot change the order.
//
// What is unsent belongs to a person: it is stored under their id, outlives the session, and is out of reach for anybody else.

import { jitterMs } from './backoff.js';
import { HausError, LOCAL } from './errors.js';
import { uuid } from './storage.js';
import { bytesOf, charsOf, decode, encode, wellFormed } from './text.js';

/** Unanswered messages of one person; above it `add` refuses. */
export const QUEUE_MAX = 500;
/** Bytes of a `message.send` frame beside body and thread: `{"id":…,"cmd":"message.send","d":{…,"nonce":"…"}}`. */
const FRAME_OVERHEAD = 120;

/**
 * @typedef {object} Pending a message on its way
 * @property {string} nonce
 * @property {string} threadId
 * @property {object} body what goes into `message.send` beside thread and nonce
 * @property {number} at milliseconds since 1970, of this device
 * @property {'queued' | 'sending' | 'sent' | 'failed'} state `sent`: acknowledged, its update has not arrived yet
 * @property {HausError | null} error why it failed
 * @property {{messageId: string, seq: number, no: number, sentAt: string} | null} ok
 *   A message object ends as `sent` with `ok`, or as `failed`; that of an ended session stays as it was.
 */

export class SendQueue {
  #items = new Map();
  /** Thread → its items, oldest first. */
  #threads = new Map();
  #storage;
  #prefix = null;
  #transmit;
  #changed;
  #position;
  #limits;
  /** Items of the session that ended last: its owner's log-in goes on with the same objects. */
  #former = new Map();
  #formerPrefix = null;
  #clock;
  #random;
  #live = false;
  #lastAt = 0;

  /**
   * @param {{storage: import('./storage.js').Keep, transmit: (item: Pending) => Promise<object>,
   *          changed: (threadId: string) => void, position: (threadId: string) => number | null,
   *          limits?: () => {frameBytes: number, contentChars: number},
   *          clock: {now(): number, mono?(): number, setTimeout(f: Function, ms: number): any}, random: () => number}} parts
   *   `position`: up to which seq a thread is applied; `limits`: what the server takes
   */
  constructor({ storage, transmit, changed, position, limits, clock, random }) {
    this.#storage = storage;
    this.#transmit = transmit;
    this.#changed = changed;
    this.#position = position;
    this.#limits = limits ?? (() => ({ frameBytes: Infinity, contentChars: Infinity }));
    this.#clock = clock;
    this.#random = random;
  }

  /** Takes up what this person left unsent, oldest first. */
  load(profileId) {
    this.close();
    const prefix = `haus.send.${profileId}.`;
    if (this.#formerPrefix !== prefix) this.#former.clear();
    this.#prefix = prefix;
    const items = this.#storage.keys(this.#prefix).flatMap((key) => {
      const kept = decode(this.#storage.getItem(key));
      const good = key === this.#prefix + kept?.nonce && typeof kept.threadId === 'string' && typeof kept.body === 'object' && kept.body !== null;
      if (!good) {
        this.#storage.removeItem(key);
        return [];
      }
      const former = this.#former.get(kept.nonce);
      if (former !== undefined) return [former];
      const error = kept.failed ? new HausError(kept.failed.code, kept.failed.message) : null;
      return [this.#item(kept.nonce, kept.threadId, kept.body, Number(kept.at) || 0, error)];
    });
    for (const item of items.sort((a, b) => a.at - b.at)) this.#put(item);
    this.#former.clear();
  }

  /**
   * @returns {Pending}
   * @throws {HausError} `signed_out`, `overloaded`; `too_large`: the server would refuse it however often it is sent
   */
  add(threadId, given) {
    if (this.#prefix === null) throw new HausError(LOCAL.SIGNED_OUT);
    if (this.#items.size >= QUEUE_MAX) throw new HausError(LOCAL.OVERLOADED, 'too many unsent messages');
    const body = typeof given.content === 'string' ? { ...given, content: wellFormed(given.content) } : { ...given };
    this.#measure(threadId, body);
    // Strictly rising, so that the order survives a reload and a clock that was set back.
    const item = this.#item(uuid(), threadId, body, Math.max(this.#clock.now(), this.#lastAt + 1), null);
    this.#put(item);
    this.#keep(item);
    this.#changed(threadId);
    this.#pump(threadId);
    return item;
  }

  /** Sends a failed message again, under its nonce. */
  retry(nonce) {
    const item = this.#items.get(nonce);
    if (item?.state !== 'failed') return;
    item.state = 'queued';
    item.error = null;
    this.#keep(item);
    this.#changed(item.threadId);
    this.#pump(item.threadId);
  }

  /** Forgets a failed message. One that is under way cannot be taken back. */
  discard(nonce) {
    const item = this.#items.get(nonce);
    if (item?.state === 'failed') this.#drop(item);
  }

  /** The connection is ready (or no longer): what waits goes out. */
  setLive(live) {
    this.#live = live;
    if (live) for (const threadId of [...this.#threads.keys()]) this.#pump(threadId);
  }

  /** The update of an own message has arrived: proof that it is committed, with or without a reply. */
  confirm(nonce, { id, seq, no, sentAt } = {}) {
    const item = this.#items.get(nonce);
    if (item === undefined) return;
    item.state = 'sent';
    item.error = null;
    item.ok ??= { messageId: id, seq, no, sentAt };
    this.#drop(item);
    this.#pump(item.threadId);
  }

  /** The thread is applied up to `pos`: acknowledged messages up to there are shown from the thread itself. */
  settle(threadId, pos) {
    if (!this.#threads.has(threadId)) return;
    for (const item of this.of(threadId)) if (item.state === 'sent' && item.ok.seq <= pos) this.#drop(item);
  }

  /** Messages on their way in one thread, oldest first. @returns {Pending[]} */
  of(threadId) {
    return [...(this.#threads.get(threadId) ?? [])];
  }

  /** How many have not reached the server, as far as is known: also those it refused, which their sender may try again. */
  get unsent() {
    return this.#prefix === null ? 0 : this.#storage.keys(this.#prefix).length;
  }

  /** Nobody's from now on: nothing is sent or shown any more. What is stored waits for its owner to log in again. */
  close() {
    this.#live = false;
    if (this.#prefix === null) return;
    const threads = [...this.#threads.keys()];
    for (const item of this.#items.values()) if (item.state === 'sending') item.state = 'queued';
    this.#former = new Map(this.#items);
    this.#formerPrefix = this.#prefix;
    this.#items.clear();
    this.#threads.clear();
    this.#prefix = null;
    for (const threadId of threads) this.#changed(threadId);
  }

  /** Forgets everything of this person, here and in the storage, whichever tab wrote it. */
  clear() {
    if (this.#prefix !== null) for (const key of this.#storage.keys(this.#prefix)) this.#storage.removeItem(key);
    this.close();
    this.#former.clear();
  }

  // Throws what the server would answer, before anything is kept. Both limits count as the server does.
  #measure(threadId, body) {
    const { frameBytes, contentChars } = this.#limits();
    const chars = typeof body.content === 'string' ? charsOf(body.content) : 0;
    if (chars > contentChars) {
      throw new HausError(LOCAL.TOO_LARGE, `content: ${chars} characters, at most ${contentChars}`, { details: { chars, contentChars } });
    }
    // Around the body: id, command and nonce.
    const bytes = bytesOf(encode({ ...body, threadId })) + FRAME_OVERHEAD;
    if (bytes > frameBytes) {
      throw new HausError(LOCAL.TOO_LARGE, `a frame of ${bytes} bytes, at most ${frameBytes}`, { details: { bytes, frameBytes } });
    }
  }

  #put(item) {
    this.#items.set(item.nonce, item);
    if (!this.#threads.has(item.threadId)) this.#threads.set(item.threadId, new Set());
    this.#threads.get(item.threadId).add(item);
  }

  #item(nonce, threadId, body, at, error) {
    this.#lastAt = Math.max(this.#lastAt, at);
    return { nonce, threadId, body, at, state: error ? 'failed' : 'queued', error, ok: null, attempts: 0, notBefore: 0 };
  }

  #pump(threadId) {
    if (!this.#live) return;
    const head = this.#head(threadId);
    if (head === undefined || head.state === 'sending' || head.notBefore > this.#mono()) return;
    head.state = 'sending';
    this.#transmit(head).then(
      (ok) => this.#acknowledged(head, ok),
      (error) => this.#refused(head, error),
    );
  }

  #head(threadId) {
    for (const item of this.#threads.get(threadId) ?? []) if (item.state === 'queued' || item.state === 'sending') return item;
    return undefined;
  }

  #mono() {
    return this.#clock.mono?.() ?? this.#clock.now();
  }

  #acknowledged(item, ok) {
    if (this.#items.get(item.nonce) === item) {
      item.state = 'sent';
      item.ok = ok;
      this.#forget(item);
      this.#changed(item.threadId);
      this.settle(item.threadId, this.#position(item.threadId) ?? 0);
    }
    this.#pump(item.threadId);
  }

  #refused(item, error) {
    if (this.#items.get(item.nonce) === item) {
      if (error.retryable) this.#postpone(item, error);
      else {
        item.state = 'failed';
        item.error = error;
        this.#keep(item);
      }
      this.#changed(item.threadId);
    }
    this.#pump(item.threadId);
  }

  #postpone(item, error) {
    item.state = 'queued';
    if (error.code === LOCAL.DISCONNECTED) return;
    // A rate says when there is room again; anything else is a server in trouble, and is given more and more time.
    const paced = error.code === 'rate_limited' || error.code === 'slow_mode';
    const backoffMs = paced && error.retryAfterMs > 0 ? 0 : jitterMs(item.attempts, this.#random);
    const waitMs = Math.max(error.retryAfterMs, backoffMs);
    item.attempts += 1;
    item.notBefore = this.#mono() + waitMs;
    this.#clock.setTimeout(() => this.#pump(item.threadId), waitMs + 1);
  }

  #drop(item) {
    this.#items.delete(item.nonce);
    const thread = this.#threads.get(item.threadId);
    thread?.delete(item);
    if (thread?.size === 0) this.#threads.delete(item.threadId);
    this.#forget(item);
    this.#changed(item.threadId);
  }

  #keep({ nonce, threadId, body, at, error }) {
    const failed = error ? { code: error.code, message: error.message } : undefined;
    this.#storage.setItem(this.#prefix + nonce, JSON.stringify({ nonce, threadId, body, at, failed }));
  }

  #forget(item) {
    if (this.#prefix !== null) this.#storage.removeItem(this.#prefix + item.nonce);
  }
}
