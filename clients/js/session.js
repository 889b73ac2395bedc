// Who is signed in: tokens and their rotation, and REST calls with them. Nothing of the socket lives here.
//
// The refresh token rotates on every use, and a second use of an old one ends the session (reuse detection). So there is
// one refresh at a time: within a tab by a shared promise, between tabs by a lock (Web Locks) and one stored record.

import { HausError, LOCAL } from './errors.js';

const STORED = 'haus.session';

/** An access token with less than this left is not used any more, milliseconds. */
const MARGIN_MS = 5_000;

export class Session {
  #url;
  #fetch;
  #storage;
  #locks;
  #now;
  #record = null;
  #refreshing = null;
  #onEnd;

  /**
   * @param {{url: string, fetch: typeof fetch, storage: Storage, locks?: LockManager, now: () => number,
   *          onEnd: (reason: string) => void}} parts `onEnd`: the session is over and the tokens are forgotten
   */
  constructor({ url, fetch, storage, locks, now, onEnd }) {
    this.#url = url.replace(/\/$/, '');
    this.#fetch = fetch;
    this.#storage = storage;
    this.#locks = locks;
    this.#now = now;
    this.#onEnd = onEnd;
  }

  get profile() {
    return this.#record?.profile ?? null;
  }

  get signedIn() {
    return this.#record !== null;
  }

  /** Milliseconds until the access token ends; negative when it has. */
  get accessLeftMs() {
    return (this.#record?.accessEndsAt ?? 0) - this.#now();
  }

  /** Takes up the stored session. True if there is one; nothing is asked of the server. */
  restore() {
    this.#record = this.#read();
    return this.signedIn;
  }

  /** @throws {HausError} `unauthenticated` for a wrong pair, `forbidden` for a banned account, `rate_limited` */
  async login(email, password) {
    return this.#begin(await this.#call('POST', '/v1/auth/login', { email, password }));
  }

  async register(email, password, displayName) {
    return this.#begin(await this.#call('POST', '/v1/auth/register', { email, password, displayName }));
  }

  /** Ends the session here and, if it can be reached, on the server. Never throws. */
  async logout() {
    if (!this.signedIn) return;
    try {
      await this.request('POST', '/v1/auth/logout');
    } catch {
      // Unreachable or already over: the tokens are forgotten here either way and end by themselves there.
    }
    this.#end('logout');
  }

  /** An access token that is good for some seconds. @throws {HausError} */
  async token() {
    if (!this.signedIn) throw new HausError(LOCAL.SIGNED_OUT);
    return this.accessLeftMs > MARGIN_MS ? this.#record.accessToken : this.refresh();
  }

  /**
   * A new access token; concurrent callers share one rotation.
   * @throws {HausError} `unauthenticated` or `forbidden` (the session is over), `network`, `unavailable`, …
   */
  refresh() {
    this.#refreshing ??= this.#exclusively(() => this.#rotate()).finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  /**
   * A REST call as the person signed in; repeated once with a new token after a 401.
   * @param {object} [body] sent as JSON
   * @param {{idempotencyKey?: string}} [options]
   * @returns {Promise<any>} the parsed answer, null for 204
   */
  async request(method, path, body, options = {}) {
    const token = await this.token();
    try {
      return await this.#call(method, path, body, { ...options, token });
    } catch (error) {
      if (error.status !== 401) throw error;
      const fresh = this.#record?.accessToken === token ? await this.refresh() : await this.token();
      return this.#call(method, path, body, { ...options, token: fresh });
    }
  }

  async #rotate() {
    const bad = this.#record;
    if (bad === null) throw new HausError(LOCAL.SIGNED_OUT);
    const stored = this.#read();
    if (stored === null) {
      this.#end('elsewhere');
      throw new HausError(LOCAL.SIGNED_OUT);
    }
    if (stored.refreshToken !== bad.refreshToken) {
      // Another tab has rotated meanwhile.
      this.#record = stored;
      if (this.accessLeftMs > MARGIN_MS) return stored.accessToken;
    }
    try {
      const answer = await this.#call('POST', '/v1/auth/refresh', { refreshToken: this.#record.refreshToken });
      this.#begin(answer);
      return this.#record.accessToken;
    } catch (error) {
      if (error.status === 401 || error.status === 403) this.#end('expired');
      throw error;
    }
  }

  #begin(answer) {
    this.#record = {
      profile: answer.profile,
      sessionId: answer.sessionId,
      accessToken: answer.accessToken,
      accessEndsAt: this.#now() + answer.accessExpiresInMs,
      refreshToken: answer.refreshToken,
    };
    this.#storage.setItem(STORED, JSON.stringify(this.#record));
    return answer.profile;
  }

  #end(reason) {
    if (this.#record === null) return;
    this.#record = null;
    this.#storage.removeItem(STORED);
    this.#onEnd(reason);
  }

  #read() {
    try {
      const record = JSON.parse(this.#storage.getItem(STORED));
      return typeof record?.refreshToken === 'string' ? record : null;
    } catch {
      return null;
    }
  }

  #exclusively(task) {
    return this.#locks ? this.#locks.request(STORED, task) : task();
  }

  async #call(method, path, body, { token, idempotencyKey } = {}) {
    const headers = { accept: 'application/json' };
    if (token) headers.authorization = `Bearer ${token}`;
    if (idempotencyKey) headers['idempotency-key'] = idempotencyKey;
    if (body !== undefined) headers['content-type'] = 'application/json';
    let response;
    let text;
    try {
      response = await this.#fetch(this.#url + path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: 'omit',
        cache: 'no-store',
      });
      text = await response.text();
    } catch (cause) {
      throw new HausError(LOCAL.NETWORK, 'the server cannot be reached', { cause });
    }
    const answer = parse(text);
    if (response.ok) return answer;
    throw new HausError(answer?.code ?? fallbackCode(response.status), answer?.detail ?? answer?.title, {
      status: response.status,
      retryAfterMs: retryAfterMs(response.headers.get('retry-after')),
      details: answer,
    });
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// An answer without a problem body comes from something before the server, such as a proxy.
function fallbackCode(status) {
  if (status === 401) return 'unauthenticated';
  if (status === 403) return 'forbidden';
  if (status === 404) return 'not_found';
  if (status === 429) return 'rate_limited';
  return status >= 500 ? 'unavailable' : 'invalid';
}

function retryAfterMs(header) {
  const seconds = Number(header ?? NaN);
  return Number.isFinite(seconds) ? seconds * 1000 : 0;
}
