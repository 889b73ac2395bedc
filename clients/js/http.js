// One HTTP call: JSON there and back, a deadline, and errors with their cause. Knows no tokens.

import { HausError, LOCAL } from './errors.js';
import { decode, encode } from './text.js';

/** A call, its answer's body included, takes no longer, milliseconds. */
export const HTTP_DEADLINE_MS = 15_000;

export class Http {
  #url;
  #fetch;
  #clock;

  /** @param {{url: string, fetch: typeof fetch, clock: {setTimeout: Function, clearTimeout: Function}}} parts */
  constructor({ url, fetch, clock }) {
    this.#url = url.replace(/\/$/, '');
    this.#fetch = fetch;
    this.#clock = clock;
  }

  /**
   * @param {{token?: string, idempotencyKey?: string, deadlineMs?: number, keepalive?: boolean}} [options]
   *   `keepalive`: goes on when the page is closed
   * @returns {Promise<any>} the parsed answer, null for 204
   * @throws {HausError} the server's refusal; `network` (no answer, none in time, or none that can be read) with its `cause`
   */
  async call(method, path, body, { token, idempotencyKey, deadlineMs = HTTP_DEADLINE_MS, keepalive } = {}) {
    const headers = { accept: 'application/json' };
    if (token) headers.authorization = `Bearer ${token}`;
    if (idempotencyKey) headers['idempotency-key'] = idempotencyKey;
    if (body !== undefined) headers['content-type'] = 'application/json';
    const aborter = new AbortController();
    const asked = this.#ask(path, {
      method,
      headers,
      body: body === undefined ? undefined : encode(body),
      credentials: 'omit',
      cache: 'no-store',
      signal: aborter.signal,
      ...(keepalive ? { keepalive } : {}),
    });
    const { response, text } = await this.#inTime(asked, deadlineMs, aborter);
    const answer = decode(text);
    if (!response.ok) throw refusal(response, answer);
    if (answer === null && text !== '' && text !== 'null') {
      throw new HausError(LOCAL.NETWORK, 'the answer is no JSON: something between here and the server answered', { status: response.status });
    }
    return answer;
  }

  async #ask(path, init) {
    const response = await this.#fetch(this.#url + path, init);
    return { response, text: await response.text() };
  }

  // The race, and not the abort, ends the wait: what was given as `fetch` may not heed it.
  async #inTime(asked, deadlineMs, aborter) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = this.#clock.setTimeout(() => {
        const cause = new DOMException(`no answer within ${deadlineMs} ms`, 'TimeoutError');
        reject(cause);
        aborter.abort(cause);
      }, deadlineMs);
    });
    try {
      return await Promise.race([asked, late]);
    } catch (cause) {
      const why = cause?.name === 'TimeoutError' ? cause.message : 'the server cannot be reached';
      throw new HausError(LOCAL.NETWORK, why, { cause });
    } finally {
      this.#clock.clearTimeout(timer);
      asked.catch(() => {});
    }
  }
}

function refusal(response, answer) {
  // The server's own always say why; a proxy or a hotel's log-in page must not end a session.
  if ((response.status === 401 || response.status === 403) && answer?.code === undefined) {
    return new HausError(LOCAL.NETWORK, `something between here and the server answered ${response.status}`, { details: answer });
  }
  return new HausError(answer?.code ?? fallbackCode(response.status), answer?.detail ?? answer?.title, {
    status: response.status,
    retryAfterMs: retryAfterMs(response.headers.get('retry-after')),
    details: answer,
  });
}

// An answer without a problem body comes from something before the server, such as a proxy.
function fallbackCode(status) {
  if (status === 404) return 'not_found';
  if (status === 413) return 'too_large';
  if (status === 429) return 'rate_limited';
  return status >= 500 ? 'unavailable' : 'invalid';
}

function retryAfterMs(header) {
  const seconds = Number(header ?? NaN);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0;
}
