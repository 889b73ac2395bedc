// Messages on their way: kept until the server has answered, across reconnects and reloads. Knows no socket: it is given
// a function that sends one and tells the outcome.
//
// A send is repeated with the same nonce until there is an answer; the server makes repeats the same message, for ever.
// One send per thread is under way at a time, so that a refusal to be repeated cannot change the order.

import { jitterMs } from './backoff.js';
import { HausError, LOCAL } from './errors.js';
import { uuid } from './storage.js';

/** Unanswered messages of one person; above it `add` refuses. */
export const QUEUE_MAX = 500;

/**
 * @typedef {object} Pending a message on its way
 * @property {string} nonce
 * @property {string} threadId
 * @property {object} body what goes into `message.send` beside thread and nonce
 * @property {number} at milliseconds since 1970, of this device
 * @property {'queued' | 'sending' | 'sent' | 'failed'} state `sent`: acknowledged, its update has not arrived yet
 * @property {HausError | null} error why it failed
 * @property {{messageId: string, seq: number, no: number, sentAt: string} | null} ok
 */

export class SendQueue {
  #items = new Map();
  #storage;
  #prefix = null;
  #transmit;
  #changed;
  #position;
  #clock;
  #random;
  #live = false;
  #lastAt = 0;

  /**
   * @param {{storage: Storage, transmit: (item: Pending) => Promise<object>, changed: (threadId: string) => void,
   *          position: (threadId: string) => number | null,
   *          clock: {now(): number, setTimeout(f: Function, ms: number): any}, random: () => number}} parts
   *   `position`: up to which seq a thread is applied
   */
  constructor({ storage, transmit, changed, position, clock, random }) {
    this.#storage = storage;
    this.#transmit = transmit;
    this.#changed = changed;
    this.#position = position;
    this.#clock = clock;
    this.#random = random;
  }

  /** Takes up what this person left unsent, oldest first. */
  load(profileId) {
    this.#items.clear();
    this.#prefix = `haus.send.${profileId}.`;
    const stored = [];
    for (let i = 0; i < this.#storage.length; i += 1) {
      const key = this.#storage.key(i);
      if (key?.startsWith(this.#prefix)) stored.push(key);
    }
    const items = stored.flatMap((key) => {
      try {
        const { nonce, threadId, body, at, failed } = JSON.parse(this.#storage.getItem(key));
        const error = failed ? new HausError(failed.code, failed.message) : null;
        return [this.#item(nonce, threadId, body, at, error)];
      } catch {
        this.#storage.removeItem(key);
        return [];
      }
    });
    for (const item of items.sort((a, b) => a.at - b.at)) this.#items.set(item.nonce, item);
  }

  /** @returns {Pending} @throws {HausError} `overloaded` */
  add(threadId, body) {
    if (this.#items.size >= QUEUE_MAX) throw new HausError(LOCAL.OVERLOADED, 'too many unsent messages');
    // Strictly rising, so that the order survives a reload.
    this.#lastAt = Math.max(this.#clock.now(), this.#lastAt + 1);
    const item = this.#item(uuid(), threadId, body, this.#lastAt, null);
    this.#items.set(item.nonce, item);
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
    if (live) for (const threadId of new Set([...this.#items.values()].map((item) => item.threadId))) this.#pump(threadId);
  }

  /** The update of an own message has arrived: proof that it is committed, with or without a reply. */
  confirm(nonce) {
    const item = this.#items.get(nonce);
    if (item) this.#drop(item);
  }

  /** The thread is applied up to `pos`: acknowledged messages up to there are shown from the thread itself. */
  settle(threadId, pos) {
    for (const item of this.of(threadId)) if (item.state === 'sent' && item.ok.seq <= pos) this.#drop(item);
  }

  /** Messages on their way in one thread, oldest first. @returns {Pending[]} */
  of(threadId) {
    return [...this.#items.values()].filter((item) => item.threadId === threadId);
  }

  /** How many have no answer yet. */
  get unanswered() {
    return [...this.#items.values()].filter((item) => item.state === 'queued' || item.state === 'sending').length;
  }

  /** Forgets everything, here and in the storage. */
  clear() {
    for (const item of [...this.#items.values()]) this.#drop(item);
    this.#live = false;
  }

  #item(nonce, threadId, body, at, error) {
    this.#lastAt = Math.max(this.#lastAt, at);
    return { nonce, threadId, body, at, state: error ? 'failed' : 'queued', error, ok: null, attempts: 0, notBefore: 0 };
  }

  #pump(threadId) {
    if (!this.#live) return;
    const waiting = this.of(threadId).filter((item) => item.state !== 'sent' && item.state !== 'failed');
    const head = waiting[0];
    if (head === undefined || head.state === 'sending' || head.notBefore > this.#clock.now()) return;
    head.state = 'sending';
    this.#transmit(head).then(
      (ok) => this.#acknowledged(head, ok),
      (error) => this.#refused(head, error),
    );
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
    item.notBefore = this.#clock.now() + waitMs;
    this.#clock.setTimeout(() => this.#pump(item.threadId), waitMs + 1);
  }

  #drop(item) {
    this.#items.delete(item.nonce);
    this.#forget(item);
    this.#changed(item.threadId);
  }

  #keep({ nonce, threadId, body, at, error }) {
    const failed = error ? { code: error.code, message: error.message } : undefined;
    try {
      this.#storage.setItem(this.#prefix + nonce, JSON.stringify({ nonce, threadId, body, at, failed }));
    } catch {
      // Storage full or forbidden: the message still goes out, it only would not survive a reload.
    }
  }

  #forget(item) {
    if (this.#prefix !== null) this.#storage.removeItem(this.#prefix + item.nonce);
  }
}
