// The one error type of this library. Codes are those of the protocol (section 4) and a few of its own.

/** Codes that this library adds to the server's. */
export const LOCAL = Object.freeze({
  /** The socket went away before the reply. */
  DISCONNECTED: 'disconnected',
  /** The server could not be reached over HTTP. */
  NETWORK: 'network',
  /** A named limit of this library was reached. */
  OVERLOADED: 'overloaded',
  /** Nobody is signed in. */
  SIGNED_OUT: 'signed_out',
});

const RETRYABLE = new Set([
  'rate_limited', 'slow_mode', 'unavailable', 'internal', LOCAL.DISCONNECTED, LOCAL.NETWORK,
]);

export class HausError extends Error {
  /**
   * @param {string} code stable name
   * @param {string} [message] a sentence for people
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

  /** From `err` of a reply on the socket. */
  static fromReply(err) {
    return new HausError(err.code, err.message, { retryAfterMs: err.retryAfterMs, details: err.details });
  }
}
