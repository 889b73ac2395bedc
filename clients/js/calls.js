// Commands of one connection: those that wait for a socket, and those that wait for a reply. Knows no socket itself.

import { HausError, LOCAL } from './errors.js';

/** Commands that wait for a socket; above it new ones are refused. */
export const WAITING_MAX = 1_000;
/** A command without a reply for so long, on a socket that lives, fails with `timeout`, milliseconds. */
export const REPLY_DEADLINE_MS = 30_000;

/** @typedef {{cmd: string, d: object, repeat: boolean, resolve: Function, reject: Function, dueAt?: number}} Call */

export class Calls {
  #nextId = 1;
  /** Id → call, the oldest first. */
  #pending = new Map();
  #waiting = [];
  #clock;
  #timer = null;

  /** @param {{mono(): number, setTimeout: Function, clearTimeout: Function}} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** @param {Call} call waits for a socket */
  wait(call) {
    if (this.#waiting.length >= WAITING_MAX) call.reject(new HausError(LOCAL.OVERLOADED));
    else this.#waiting.push(call);
  }

  /** Takes all that wait. @returns {Call[]} */
  takeWaiting() {
    return this.#waiting.splice(0);
  }

  /** @returns {number} the id under which `call` is about to be sent */
  begin(call) {
    const id = this.#nextId++;
    call.dueAt = this.#clock.mono() + REPLY_DEADLINE_MS;
    this.#pending.set(id, call);
    this.#timer ??= this.#clock.setTimeout(() => this.#expire(), REPLY_DEADLINE_MS);
    return id;
  }

  /** It was not sent after all. */
  abandon(id, error) {
    const call = this.#pending.get(id);
    this.#pending.delete(id);
    call?.reject(error);
  }

  replied({ id, ok, err }) {
    const call = this.#pending.get(id);
    if (call === undefined) return;
    this.#pending.delete(id);
    if (err) call.reject(HausError.fromReply(err));
    else call.resolve(ok ?? {});
  }

  /**
   * The socket is gone. Calls to be repeated wait for the next one, first of all; the others fail.
   * @param {HausError | null} refusal set: what was under way was the reason, and none of it is repeated
   */
  cut(refusal = null) {
    const cut = [...this.#pending.values()];
    this.#pending.clear();
    this.#clock.clearTimeout(this.#timer);
    this.#timer = null;
    if (refusal === null) this.#waiting.unshift(...cut.filter(({ repeat }) => repeat));
    for (const call of cut) if (refusal !== null || !call.repeat) call.reject(refusal ?? new HausError(LOCAL.DISCONNECTED));
  }

  /** Nobody will connect any more. */
  refuseWaiting(error) {
    for (const call of this.takeWaiting()) call.reject(error);
  }

  // One timer for all: ids rise with time, so the first is due first.
  #expire() {
    this.#timer = null;
    const now = this.#clock.mono();
    for (const [id, call] of this.#pending) {
      if (call.dueAt > now) {
        this.#timer = this.#clock.setTimeout(() => this.#expire(), call.dueAt - now);
        return;
      }
      this.abandon(id, new HausError(LOCAL.TIMEOUT, `no reply to ${call.cmd} within ${REPLY_DEADLINE_MS} ms`));
    }
  }
}
