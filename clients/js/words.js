// What went wrong, in a sentence for people. The server's own `message` is for developers and logs.

/** By code: those of the protocol (section 4) and this library's own. */
export const SENTENCES = Object.freeze({
  unauthenticated: 'You are not logged in any more. Please log in again.',
  forbidden: 'You are not allowed to do this.',
  not_found: 'This is not here any more, or you cannot see it.',
  invalid: 'The server could not accept this. Please check what you entered.',
  too_large: 'This is too long to be sent.',
  conflict: 'Somebody else changed this at the same time. Please look again.',
  nonce_conflict: 'This was already sent with other content. Please write it again.',
  rate_limited: 'That was a bit fast. Please wait a moment.',
  slow_mode: 'This conversation is in slow mode. Please wait before the next message.',
  thread_archived: 'This conversation is archived. Nothing can be sent to it.',
  read_only: 'You can read this conversation but not write in it.',
  blocked: 'You cannot write to this person.',
  unavailable: 'The server is busy right now. Please try again in a moment.',
  internal: 'Something went wrong on the server. Please try again.',
  unknown_cmd: 'This server does not know how to do that. Please reload the page.',
  disconnected: 'The connection was lost. Please try again.',
  network: 'The server cannot be reached. Please check your connection.',
  timeout: 'The server did not answer in time. Please try again.',
  overloaded: 'Too much is waiting to be sent. Please wait until it has gone out.',
  signed_out: 'You are not logged in.',
  storage: 'This browser keeps nothing right now: what is unsent is lost when the page closes.',
});

const UNKNOWN = 'Something went wrong. Please try again.';

/** @param {unknown} error an error, or its code @returns {string} a sentence; never a code, never empty */
export function explain(error) {
  const code = typeof error === 'string' ? error : error?.code;
  return Object.hasOwn(SENTENCES, code ?? '') ? SENTENCES[code] : UNKNOWN;
}
