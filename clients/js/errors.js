// The one error type of this library. Codes are those of the protocol (section 4) and a few of its own.

import { explain } from './words.js';

/** Codes that this library adds to the server's. */
export const LOCAL = Object.freeze({
  /** The socket went away before the reply. */
  DISCONNECTED: 'disconnected',
  /** The server could not be reached over HTTP. */
  NETWORK: 'network',
  /** A command had no reply within its deadline. (Over HTTP that is `network`, with a cause named `TimeoutError`.) */
  TIMEOUT: 'timeout',
  /** Longer than the server takes; its own code, found out here. */
  TOO_LARGE: 'too_large',
  /** A named limit of this library was reached. */
  OVERLOADED: 'overloaded',
  /** The storage does not keep what it is given. */
  STORAGE: 'storage',
  /** Nobody is signed in. */
  SIGNED_OUT: 'signed_out',
});

const RETRYABLE = new Set([
  'rate_limited', 'slow_mode', 'unavailable', 'internal', LOCAL.DISCONNECTED, LOCAL.NETWORK, LOCAL.TIMEOUT,
]);

export class HausError extends Error {
  /**
   * @param {string} code stable name
   * @param {string} [message] what exactly, for developers; `text` is for people
   * @param {{retryAfterMs?: number, details?: object, status?: number, cause?: unknown}} [more]
   */
  constructor(code, message = code, more = {}) {
    super(message, { cause: more.cause });
    this.name = 'HausError';
    this.code = code;
    /** Whether the same request may succeed later without a change. */
    this.retryable = RETRYABLE.has(code);
    /** Milliseconds; 0 when no time is known. */
    this.retryAfterMs = more.retryAfterMs ?? 0;
    this.details = more.details ?? null;
    /** HTTP status, for REST calls that got an answer. */
    this.status = more.status ?? 0;
  }

  /** A sentence for the person in front of the screen. */
  get text() {
    return explain(this);
  }

  /** From `err` of a reply on the socket. */
  static fromReply(err) {
    return new HausError(err.code, err.message, { retryAfterMs: err.retryAfterMs, details: err.details });
  }
}
