// What went wrong, in words for the person it happened to, where this page knows more than the library's `explain`.

import { explain } from './js/haus.js';

const NOT_SENT = {
  thread_archived: 'this conversation is closed',
  read_only: 'only moderators write here',
  blocked: 'you cannot write to this person',
  forbidden: 'you may not write here',
  not_found: 'you are not in this conversation any more',
  too_large: 'it is too long',
  invalid: 'there is something in it that cannot be sent',
  nonce_conflict: 'it was already sent with other words',
  conflict: 'it was changed meanwhile',
};

const FIELDS = {
  email: 'This is not an e-mail address that can be written to.',
  displayName: 'Please choose a name of 1 to 80 characters, without unusual signs.',
  ballroomName: 'A ballroom name has at most 80 characters, without unusual signs.',
  pronouns: 'Pronouns have at most 40 characters.',
  bio: 'This has at most 1,000 characters.',
  name: 'Please choose a name of 1 to 100 characters, without unusual signs.',
};

/** A sentence about any error. `special` says what a code means here. */
export function errorText(error, special = {}) {
  return special[error?.code] ?? (error?.code === 'invalid' ? invalidText(error) : explain(error));
}

/** Which field is wrong, and why. */
function invalidText(error) {
  const [first] = error.details?.errors ?? [];
  if (first?.path === 'password') return `The password ${first.message}.`;
  return FIELDS[first?.path] ?? explain(error);
}

/** Why a message did not go out, for its sender. */
export const failureText = (error) => `Not sent: ${NOT_SENT[error?.code] ?? 'something went wrong'}`;
