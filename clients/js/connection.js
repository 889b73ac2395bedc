// One socket at a time, kept alive: connect, `hello`, `auth`, commands and replies, heartbeat watch, reconnect. Knows the
// frames of the protocol's sections 1, 4 and 6, and nothing of streams: those frames go to a hook as they are.

import { OPENS_BEFORE_TICKET, DEFAULT_SPREAD_MS, closeAction, closeReason, reconnectDelayMs } from './backoff.js';
import { HausError, LOCAL } from './errors.js';

/** A socket that has not said `hello` after so long is given up, milliseconds. */
const HELLO_TIMEOUT_MS = 10_000;
/** So long may the reply to `auth` take, milliseconds. */
const AUTH_REPLY_TIMEOUT_MS = 15_000;
/** Heartbeat until `hello` has told another, milliseconds. */
const DEFAULT_HEARTBEAT_MS = 25_000;
/** After so many heartbeats without a frame the socket is dead (protocol, section 5). */
const SILENT_HEARTBEATS = 2.5;
/** A server that announced its end and did not close by then is left, milliseconds after the announced time. */
const DRAIN_GRACE_MS = 2_000;
/** Commands that wait for a socket; above it new ones are refused. */
export const WAITING_MAX = 1_000;
/** A new token that is refused at once so many times in a row ends the connection. */
const REFUSED_TOKENS_MAX = 3;

export class Connection {
  #parts;
  #socket = null;
  #phase = 'idle';
  #nextId = 1;
  #pending = new Map();
  #waiting = [];
  #timers = new Map();
  #failures = 0;
  #unopened = 0;
  #refusedTokens = 0;
  #needsRefresh = false;
  #ticket = null;
  #spreadMs = DEFAULT_SPREAD_MS;
  #heardAt = 0;

  /**
   * @param {object} parts
   * @param {string} parts.url of the socket
   * @param {typeof WebSocket} parts.WebSocket
   * @param {{now(): number, setTimeout: Function, clearTimeout: Function}} parts.clock
   * @param {() => number} parts.random
   * @param {() => Promise<string>} parts.token a usable access token
   * @param {() => Promise<string>} parts.refresh a new access token
   * @param {() => Promise<{ticket: string}>} parts.askTicket `POST /v1/ws/ticket`
   * @param {object} parts.device
   * @param {string[]} parts.caps
   * @param {() => object | undefined} parts.resume positions for `auth`
   * @param {(ok: object) => void} parts.onAuth
   * @param {(frame: object) => void} parts.onUpdate every frame with `up` that is not about the connection itself
   * @param {(phase: string, detail: object) => void} parts.onPhase
   */
  constructor(parts) {
    this.#parts = parts;
  }

  /** `idle`, `connecting`, `authenticating`, `ready`, `waiting` (to try again) or `stopped`. */
  get phase() {
    return this.#phase;
  }

  start() {
    if (this.#phase !== 'idle' && this.#phase !== 'stopped') return;
    this.#failures = 0;
    this.#unopened = 0;
    this.#refusedTokens = 0;
    this.#open();
  }

  /** Ends the socket and all trying. What waited is refused. */
  stop() {
    this.#discard(1000);
    this.#enter('idle');
    this.#refuseAll(new HausError(LOCAL.SIGNED_OUT, 'the connection was ended'));
  }

  /** While waiting to try again: tries now (the network is back, somebody pressed a button). */
  nudge() {
    if (this.#phase === 'waiting') this.#open();
  }

  /** Leaves this socket for a new one, as after a failure of the network. */
  restart() {
    if (this.#socket !== null) this.#lost(1006, '');
  }

  /**
   * Sends one command and gives its `ok`.
   * @param {{repeat?: boolean}} [options] `repeat` (true): waits for a socket, and is sent again after a reconnect until
   *   there is a reply; else it fails with `disconnected`
   * @throws {HausError}
   */
  command(cmd, d, { repeat = true } = {}) {
    return new Promise((resolve, reject) => {
      const entry = { cmd, d, repeat, resolve, reject };
      if (this.#phase === 'ready') this.#transmit(entry);
      else if (!repeat) reject(new HausError(LOCAL.DISCONNECTED));
      else if (this.#waiting.length >= WAITING_MAX) reject(new HausError(LOCAL.OVERLOADED));
      else this.#waiting.push(entry);
    });
  }

  /** Sends one command that has no reply; nothing happens without a socket. */
  tell(cmd, d) {
    if (this.#phase === 'ready') this.#write({ cmd, d });
  }

  /** Gives the server a new token on the live socket. */
  async reauthenticate(token) {
    if (this.#phase === 'ready') await this.command('auth', { token }, { repeat: false });
  }

  async #open() {
    this.#clearTimers();
    this.#enter('connecting');
    const mine = (this.#socket = { ws: null });
    let token;
    try {
      if (this.#unopened >= OPENS_BEFORE_TICKET) await this.#askWhy();
      token = await (this.#needsRefresh ? this.#parts.refresh() : this.#parts.token());
      this.#needsRefresh = false;
    } catch (error) {
      if (this.#socket === mine) this.#noCredential(error);
      return;
    }
    if (this.#socket !== mine) return;
    const ws = (mine.ws = new this.#parts.WebSocket(this.#parts.url, ['haus.v1']));
    mine.token = token;
    this.#later('hello', HELLO_TIMEOUT_MS, () => this.#lost(1006, ''));
    ws.onmessage = ({ data }) => {
      if (this.#socket === mine) this.#received(data);
    };
    ws.onclose = ({ code, reason }) => {
      if (this.#socket === mine) this.#lost(code, reason);
    };
    ws.onerror = () => {};
  }

  // A browser cannot read a refused upgrade; this answer it can. Only an answer that explains nothing is passed over.
  async #askWhy() {
    try {
      this.#ticket = (await this.#parts.askTicket()).ticket;
    } catch (error) {
      if (error.retryable || error.code === LOCAL.SIGNED_OUT || error.status === 401 || error.status === 403) throw error;
    }
  }

  #noCredential(error) {
    if (error.code === LOCAL.SIGNED_OUT || error.status === 401) return this.#stopped('unauthenticated', 4401);
    if (error.status === 403) return this.#stopped('revoked', 4403);
    return this.#retryLater(undefined, error.retryAfterMs);
  }

  #received(data) {
    this.#heardAt = this.#parts.clock.now();
    let frames;
    try {
      frames = JSON.parse(data);
    } catch {
      return;
    }
    for (const frame of Array.isArray(frames) ? frames : [frames]) {
      if (this.#socket === null) return;
      if (frame.up === undefined) this.#replied(frame);
      else this.#update(frame);
    }
  }

  #update(frame) {
    if (frame.up === 'hello') this.#hello(frame.d);
    else if (frame.up === 'reconnect') {
      this.#later('drain', (frame.d.afterMs ?? 0) + DRAIN_GRACE_MS, () => this.#lost(4000, ''));
    } else if (frame.up === 'auth.expiring') {
      this.#parts.refresh().then((token) => this.reauthenticate(token)).catch(() => {
        // Refused or unreachable: the server closes with 4401 when its grace is over, and that path asks again.
      });
    } else this.#parts.onUpdate(frame);
  }

  #hello(d) {
    this.#cancel('hello');
    this.#unopened = 0;
    this.#spreadMs = d.limits?.spreadMs ?? DEFAULT_SPREAD_MS;
    this.#watch(d.heartbeatMs ?? DEFAULT_HEARTBEAT_MS);
    this.#enter('authenticating');
    this.#authenticate(d);
  }

  #authenticate(hello) {
    const credential = this.#ticket ? { ticket: this.#ticket } : { token: this.#socket.token };
    this.#ticket = null;
    const caps = this.#parts.caps.filter((cap) => (hello.caps ?? []).includes(cap));
    const d = { ...credential, device: this.#parts.device, caps, resume: this.#parts.resume() };
    this.#later('auth', AUTH_REPLY_TIMEOUT_MS, () => this.#lost(1006, ''));
    this.#transmit({
      cmd: 'auth',
      d,
      repeat: false,
      resolve: (ok) => this.#authenticated(ok),
      reject: (error) => {
        if (error.code === LOCAL.DISCONNECTED) return;
        this.#cancel('auth');
        if (error.retryable) this.#later('auth', Math.max(error.retryAfterMs, 250), () => this.#authenticate(hello));
        else this.#lost(error.code === 'unauthenticated' ? 4401 : error.code === 'forbidden' ? 4403 : 1006, '');
      },
    });
  }

  #authenticated(ok) {
    this.#cancel('auth');
    this.#failures = 0;
    this.#refusedTokens = 0;
    this.#enter('ready');
    this.#parts.onAuth(ok);
    for (const entry of this.#waiting.splice(0)) this.#transmit(entry);
  }

  #transmit(entry) {
    const id = this.#nextId++;
    this.#pending.set(id, entry);
    this.#write({ id, cmd: entry.cmd, d: entry.d });
  }

  #write(frame) {
    this.#socket?.ws?.send(JSON.stringify(frame));
  }

  #replied({ id, ok, err }) {
    const entry = this.#pending.get(id);
    if (entry === undefined) return;
    this.#pending.delete(id);
    if (err === undefined) entry.resolve(ok ?? {});
    else entry.reject(HausError.fromReply(err));
  }

  // One timer, set again from what was heard last: no work per frame.
  #watch(heartbeatMs) {
    const limitMs = heartbeatMs * SILENT_HEARTBEATS;
    const check = () => {
      const silentMs = this.#parts.clock.now() - this.#heardAt;
      if (silentMs >= limitMs) this.#lost(1006, '');
      else this.#later('watch', limitMs - silentMs, check);
    };
    this.#later('watch', limitMs, check);
  }

  #lost(code, reason) {
    const opened = this.#phase === 'authenticating' || this.#phase === 'ready';
    if (!opened) this.#unopened += 1;
    this.#discard(code === 1006 ? 4999 : 1000);
    const { c, ra } = closeReason(reason);
    const action = closeAction(code);
    if (action === 'stop') return this.#stopped(c ?? 'closed', code);
    if (action === 'refresh') {
      this.#refusedTokens += 1;
      if (this.#refusedTokens > REFUSED_TOKENS_MAX) return this.#stopped(c ?? 'unauthenticated', code);
      this.#needsRefresh = true;
    }
    return this.#retryLater(code, ra);
  }

  #retryLater(code, retryAfterMs) {
    const { random, clock } = this.#parts;
    const delayMs = reconnectDelayMs({ failures: this.#failures, code, retryAfterMs, spreadMs: this.#spreadMs, random });
    this.#failures += 1;
    this.#later('open', delayMs, () => this.#open());
    this.#enter('waiting', { code, retryAt: clock.now() + delayMs, tries: this.#failures });
  }

  #stopped(reason, code) {
    this.#clearTimers();
    this.#socket = null;
    this.#enter('stopped', { reason, code });
    this.#refuseAll(new HausError(LOCAL.DISCONNECTED, reason));
  }

  // Lets go of the socket at once: a dead network would keep `onclose` waiting.
  #discard(code) {
    this.#clearTimers();
    const ws = this.#socket?.ws;
    this.#socket = null;
    if (ws) {
      ws.onmessage = ws.onclose = null;
      try {
        ws.close(code);
      } catch {
        // Closed already.
      }
    }
    const cut = [...this.#pending.values()];
    this.#pending.clear();
    this.#waiting.unshift(...cut.filter((entry) => entry.repeat));
    for (const entry of cut) if (!entry.repeat) entry.reject(new HausError(LOCAL.DISCONNECTED));
  }

  #refuseAll(error) {
    for (const entry of this.#waiting.splice(0)) entry.reject(error);
  }

  #enter(phase, detail = {}) {
    this.#phase = phase;
    this.#parts.onPhase(phase, detail);
  }

  #later(name, ms, task) {
    this.#cancel(name);
    this.#timers.set(name, this.#parts.clock.setTimeout(task, ms));
  }

  #cancel(name) {
    this.#parts.clock.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  #clearTimers() {
    for (const name of [...this.#timers.keys()]) this.#cancel(name);
  }
}
