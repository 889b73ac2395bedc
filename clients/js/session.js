// Who is signed in: tokens and their rotation, and REST calls with them. Nothing of the socket lives here.
//
// The refresh token rotates on every use; a spent one is answered again only until its successor is used. So there is one
// refresh at a time: within a tab by a shared promise, between tabs by a lock (Web Locks) and one stored record. Neither is
// held longer than the call's deadline, and what an answer brings counts only if the session is still the one that asked.

import { HausError, LOCAL } from './errors.js';
import { decode } from './text.js';

export const STORED = 'haus.session';

/** An access token with less than this left is not used any more, milliseconds. */
const MARGIN_MS = 5_000;
/** So long the other tabs' lock is waited for; a frozen tab may hold it for ever. */
export const LOCK_WAIT_MS = 20_000;
/** Telling the server of a log-out takes no longer, milliseconds. */
const LOGOUT_DEADLINE_MS = 5_000;

export class Session {
  #http;
  #storage;
  #locks;
  #clock;
  #record = null;
  #endsAt = 0;
  #refreshing = null;
  #onEnd;

  /**
   * @param {{http: import('./http.js').Http, storage: import('./storage.js').Keep, locks?: LockManager,
   *          clock: {now(): number, mono?(): number, setTimeout: Function, clearTimeout: Function},
   *          onEnd: (reason: string) => void}} parts
   *   `onEnd`: the session is over here: `logout`, `expired`, `revoked`, `elsewhere` (another tab logged out),
   *   `taken-over` (another person has logged in on this storage)
   */
  constructor({ http, storage, locks, clock, onEnd }) {
    this.#http = http;
    this.#storage = storage;
    this.#locks = locks;
    this.#clock = clock;
    this.#onEnd = onEnd;
  }

  get profile() {
    return this.#record?.profile ?? null;
  }

  get signedIn() {
    return this.#record !== null;
  }

  /** Milliseconds until the access token ends, by the clock that says less; negative when it has. */
  get accessLeftMs() {
    if (this.#record === null) return -1;
    return Math.min(this.#record.accessEndsAt - this.#clock.now(), this.#endsAt - this.#mono());
  }

  /** Takes up the stored session. True if there is one; nothing is asked of the server. */
  restore() {
    const stored = this.#read();
    if (stored === null) return false;
    this.#adopt(stored);
    return true;
  }

  /** @throws {HausError} `unauthenticated` for a wrong pair, `forbidden` for a banned account, `rate_limited`, `network` */
  async login(email, password) {
    return this.#begin(await this.#http.call('POST', '/v1/auth/login', { email, password }));
  }

  async register(email, password, displayName) {
    return this.#begin(await this.#http.call('POST', '/v1/auth/register', { email, password, displayName }));
  }

  /** Ends the session here at once, and on the server if it can be reached: then true. Never throws. */
  async logout() {
    const record = this.#record;
    if (record === null) return true;
    const usable = this.accessLeftMs > MARGIN_MS;
    this.#end('logout');
    const call = (path, body, token) =>
      this.#http.call('POST', path, body, { token, deadlineMs: LOGOUT_DEADLINE_MS, keepalive: true });
    try {
      const renew = async () => (await call('/v1/auth/refresh', { refreshToken: record.refreshToken })).accessToken;
      await call('/v1/auth/logout', undefined, usable ? record.accessToken : await renew());
      return true;
    } catch (error) {
      return error.status === 401;
    }
  }

  /** The server has ended it. True if another session of the same person is stored (they logged in anew): that goes on. */
  revoked() {
    const stored = this.#read();
    if (this.#record !== null && isSuccessor(stored, this.#record) && stored.sessionId !== this.#record.sessionId) {
      this.#adopt(stored);
      return true;
    }
    this.#end('revoked');
    return false;
  }

  /** Whether the storage still says that this person is signed in; ends the session here if not. */
  check() {
    if (this.#record === null) return false;
    const stored = this.#read();
    if (stored === null) this.#end('elsewhere');
    else if (stored.profile.id !== this.#record.profile.id) this.#end('taken-over');
    return this.#record !== null;
  }

  /** An access token that is good for some seconds. @throws {HausError} */
  async token() {
    if (!this.check()) throw new HausError(LOCAL.SIGNED_OUT);
    return this.accessLeftMs > MARGIN_MS ? this.#record.accessToken : this.refresh();
  }

  /**
   * A new access token; concurrent callers share one rotation.
   * @throws {HausError} `unauthenticated` or `forbidden` (the session is over), `network`, `unavailable`, …
   */
  refresh() {
    if (this.#refreshing === null) {
      const mine = (this.#refreshing = this.#exclusively(() => this.#rotate()).finally(() => {
        if (this.#refreshing === mine) this.#refreshing = null;
      }));
    }
    return this.#refreshing;
  }

  /**
   * A REST call as the person signed in; repeated once with a new token after a 401.
   * @param {object} [body] sent as JSON
   * @param {{idempotencyKey?: string, deadlineMs?: number}} [options]
   * @returns {Promise<any>} the parsed answer, null for 204
   */
  async request(method, path, body, options = {}) {
    const token = await this.token();
    const { profile } = this.#record;
    try {
      return await this.#http.call(method, path, body, { ...options, token });
    } catch (error) {
      if (error.status !== 401) throw error;
      const fresh = this.#record?.accessToken === token ? await this.refresh() : await this.token();
      // Another person's token must not carry this one's words.
      if (this.profile?.id !== profile.id) throw new HausError(LOCAL.SIGNED_OUT);
      return this.#http.call(method, path, body, { ...options, token: fresh });
    }
  }

  async #rotate() {
    if (!this.check()) throw new HausError(LOCAL.SIGNED_OUT);
    // Another tab has rotated meanwhile.
    if (this.#takeSuccessor() && this.accessLeftMs > MARGIN_MS) return this.#record.accessToken;
    const asking = this.#record;
    try {
      const answer = await this.#http.call('POST', '/v1/auth/refresh', { refreshToken: asking.refreshToken });
      if (this.#record !== asking || !this.check()) throw new HausError(LOCAL.SIGNED_OUT, 'the session ended meanwhile');
      this.#take(answer);
      return this.#record.accessToken;
    } catch (error) {
      if (error.status !== 401 && error.status !== 403) throw error;
      if (this.#record !== asking) throw new HausError(LOCAL.SIGNED_OUT, 'the session ended meanwhile');
      if (this.check() && this.#takeSuccessor()) return this.#record.accessToken;
      this.#end(error.status === 403 ? 'revoked' : 'expired');
      throw error;
    }
  }

  /** Takes what another tab has stored of the same person. @returns {boolean} whether there was something newer */
  #takeSuccessor() {
    const stored = this.#read();
    if (!isSuccessor(stored, this.#record)) return false;
    this.#adopt(stored);
    return true;
  }

  /** A log-in: whoever was here before is over. */
  #begin(answer) {
    this.#refreshing = null;
    this.#take(answer);
    return answer.profile;
  }

  #take(answer) {
    if (typeof answer?.accessToken !== 'string' || typeof answer.profile?.id !== 'string') {
      throw new HausError(LOCAL.NETWORK, 'this is no answer of a haus server');
    }
    const lifeMs = answer.accessExpiresInMs;
    this.#adopt({
      profile: answer.profile,
      sessionId: answer.sessionId,
      accessToken: answer.accessToken,
      accessEndsAt: this.#clock.now() + lifeMs,
      lifeMs,
      refreshToken: answer.refreshToken,
    });
    this.#storage.setItem(STORED, JSON.stringify(this.#record));
  }

  // A stored end is of the wall clock, which may have been set since: never longer than the token's whole life.
  #adopt(record) {
    this.#record = record;
    const leftMs = record.accessEndsAt - this.#clock.now();
    this.#endsAt = this.#mono() + Math.min(leftMs, record.lifeMs ?? leftMs);
  }

  #end(reason) {
    if (this.#record === null) return;
    const mine = this.#record;
    this.#record = null;
    this.#refreshing = null;
    // Another person's record, or a newer one of this person, is not ours to remove.
    if (this.#read()?.sessionId === mine.sessionId) this.#storage.removeItem(STORED);
    this.#onEnd(reason);
  }

  #read() {
    const record = decode(this.#storage.getItem(STORED));
    const good = typeof record?.refreshToken === 'string' && typeof record.profile?.id === 'string' &&
      typeof record.accessToken === 'string' && Number.isFinite(record.accessEndsAt);
    return good ? record : null;
  }

  #mono() {
    return this.#clock.mono?.() ?? this.#clock.now();
  }

  /** Runs `task` under the lock all tabs share; without it when it cannot be had in time, which the server forgives. */
  async #exclusively(task) {
    if (!this.#locks) return task();
    const aborter = new AbortController();
    let held = false;
    let timer;
    const late = new Promise((resolve) => {
      timer = this.#clock.setTimeout(() => {
        if (!held) resolve(LATE);
        aborter.abort();
      }, LOCK_WAIT_MS);
    });
    // A lock that comes after that is given back unused.
    let gone = false;
    const locked = Promise.resolve(
      this.#locks.request(STORED, { signal: aborter.signal }, () => {
        if (gone) return LATE;
        held = true;
        this.#clock.clearTimeout(timer);
        return task();
      }),
    ).catch((error) => {
      if (held) throw error;
      return LATE;
    });
    const first = await Promise.race([locked, late]).finally(() => this.#clock.clearTimeout(timer));
    if (first !== LATE) return first;
    gone = true;
    return task();
  }
}

const LATE = Symbol('late');

function isSuccessor(stored, record) {
  return stored !== null && record !== null && stored.profile.id === record.profile.id && stored.refreshToken !== record.refreshToken;
}
