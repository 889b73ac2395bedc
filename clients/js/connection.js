// One socket at a time, kept alive: connect, `hello`, `auth`, commands and replies, heartbeat watch, reconnect. Knows the
// frames of the protocol's sections 1, 4 and 6, and nothing of streams: those frames go to a hook as they are.

import { OPENS_BEFORE_TICKET, DEFAULT_SPREAD_MS, closeAction, closeReason, reconnectDelayMs, tooBigDelayMs } from './backoff.js';
import { Calls } from './calls.js';
import { HausError, LOCAL } from './errors.js';
import { bytesOf, decode, encode } from './text.js';

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
/** A socket that is asked whether it lives must say something within so long, milliseconds. */
export const PROBE_MS = 3_000;
/** A session that lasted so long was a good one: what was too big before it is forgiven, milliseconds. */
const GOOD_SESSION_MS = 60_000;
/** What the server takes, until `hello` has told. */
export const DEFAULT_LIMITS = Object.freeze({ frameBytes: 65_536, contentChars: 4_000 });
/** A new token that is refused at once so many times in a row ends the connection. */
const REFUSED_TOKENS_MAX = 3;

export class Connection {
  #parts;
  #socket = null;
  #phase = 'idle';
  #calls;
  #timers = new Map();
  #failures = 0;
  #unopened = 0;
  #refusedTokens = 0;
  #needsRefresh = false;
  /** Until then the server has asked to be left alone; a person who presses a button is not bound by it. */
  #heldUntil = 0;
  #ticket = null;
  #spreadMs = DEFAULT_SPREAD_MS;
  #limits = DEFAULT_LIMITS;
  #heardAt = 0;
  #readyAt = 0;
  #tooBig = 0;

  /**
   * @param {object} parts
   * @param {string} parts.url of the socket
   * @param {typeof WebSocket} parts.WebSocket
   * @param {{now(): number, mono(): number, setTimeout: Function, clearTimeout: Function}} parts.clock `mono`: never jumps `mono` never jumps
   * @param {() => number} parts.random
   * @param {() => Promise<string>} parts.token a usable access token
   * @param {() => Promise<string>} parts.refresh a new access token
   * @param {() => Promise<{ticket: string}>} parts.askTicket `POST /v1/ws/ticket`
   * @param {object} parts.device
   * @param {string[]} parts.caps
   * @param {() => object | undefined} parts.resume positions for `auth`
   * @param {() => void} parts.tooBig the last `auth` was a frame the server did not take
   * @param {(ok: object) => void} parts.onAuth
   * @param {(frame: object) => void} parts.onUpdate every frame with `up` that is not about the connection itself
   * @param {(phase: string, detail: object) => void} parts.onPhase
   */
  constructor(parts) {
    this.#parts = parts;
    this.#calls = new Calls(parts.clock);
  }

  /** `idle`, `connecting`, `authenticating`, `ready`, `waiting` (to try again) or `stopped`. */
  get phase() {
    return this.#phase;
  }

  /** `limits` of the last `hello`. @returns {{frameBytes: number, contentChars: number}} */
  get limits() {
    return this.#limits;
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
    this.#calls.refuseWaiting(new HausError(LOCAL.SIGNED_OUT, 'the connection was ended'));
  }

  /** While waiting to try again: tries now (the network is back, somebody pressed a button). */
  nudge() {
    if (this.#phase === 'waiting') this.#open();
  }

  /**
   * The device has slept, or its network has changed: whatever there is proves itself within `PROBE_MS`, or is left and
   * replaced at once.
   */
  probe() {
    if (this.#phase === 'waiting') return this.#parts.clock.mono() < this.#heldUntil ? undefined : this.#open();
    if (this.#phase === 'idle' || this.#phase === 'stopped' || this.#timers.has('probe')) return undefined;
    const phase = this.#phase;
    let proved = false;
    if (phase === 'ready') {
      const done = () => (proved = true);
      this.#transmit({ cmd: 'ping', d: {}, repeat: false, resolve: done, reject: (error) => error.code !== LOCAL.DISCONNECTED && done() });
    }
    // What was on its way before the sleep comes at once and proves nothing; what still comes later does.
    const from = this.#parts.clock.mono() + PROBE_MS / 2;
    return this.#later('probe', PROBE_MS, () => {
      this.#cancel('probe');
      if (!proved && this.#heardAt < from && this.#phase === phase) this.#replace();
    });
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
      const call = { cmd, d, repeat, resolve, reject };
      if (this.#phase === 'ready') this.#transmit(call);
      else if (!repeat) reject(new HausError(LOCAL.DISCONNECTED));
      else this.#calls.wait(call);
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
      return this.#socket === mine ? this.#noCredential(error) : undefined;
    }
    if (this.#socket !== mine) return undefined;
    let ws;
    try {
      ws = mine.ws = new this.#parts.WebSocket(this.#parts.url, ['haus.v1']);
    } catch {
      // A policy of the page, or no descriptors left.
      return this.#lost(1006, '');
    }
    mine.token = token;
    this.#later('hello', HELLO_TIMEOUT_MS, () => this.#lost(1006, ''));
    ws.onmessage = ({ data }) => {
      if (this.#socket === mine) this.#received(data);
    };
    ws.onclose = ({ code, reason }) => {
      if (this.#socket === mine) this.#lost(code, reason);
    };
    ws.onerror = () => {};
    return undefined;
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
    this.#heardAt = this.#parts.clock.mono();
    const frames = decode(data);
    for (const frame of Array.isArray(frames) ? frames : [frames]) {
      if (this.#socket === null) return;
      if (frame === null || typeof frame !== 'object') continue;
      if (frame.up === undefined) this.#calls.replied(frame);
      else this.#update(frame);
    }
  }

  #update(frame) {
    if (frame.up === 'hello') this.#hello(frame.d ?? {});
    else if (frame.up === 'reconnect') {
      this.#later('drain', (frame.d?.afterMs ?? 0) + DRAIN_GRACE_MS, () => this.#lost(4000, ''));
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
    this.#limits = { ...DEFAULT_LIMITS, ...d.limits };
    this.#watch(d.heartbeatMs ?? DEFAULT_HEARTBEAT_MS);
    this.#enter('authenticating');
    this.#authenticate(d);
  }

  #authenticate(hello) {
    const credential = this.#ticket ? { ticket: this.#ticket } : { token: this.#socket.token };
    this.#ticket = null;
    const caps = this.#parts.caps.filter((cap) => (hello.caps ?? []).includes(cap));
    const d = { ...credential, device: this.#parts.device, caps, resume: this.#parts.resume() };
    const socket = this.#socket;
    this.#later('auth', AUTH_REPLY_TIMEOUT_MS, () => this.#lost(1006, ''));
    this.#transmit({
      cmd: 'auth',
      d,
      repeat: false,
      resolve: (ok) => this.#authenticated(ok),
      reject: (error) => {
        // Of a socket that is gone: whoever let it go has said what follows.
        if (this.#socket !== socket) return;
        this.#cancel('auth');
        if (error.code === LOCAL.TOO_LARGE) this.#parts.tooBig();
        if (error.retryable) this.#later('auth', Math.max(error.retryAfterMs, 250), () => this.#authenticate(hello));
        else this.#lost(error.code === 'unauthenticated' ? 4401 : error.code === 'forbidden' ? 4403 : 1006, '');
      },
    });
  }

  #authenticated(ok) {
    this.#cancel('auth');
    this.#failures = 0;
    this.#refusedTokens = 0;
    this.#readyAt = this.#parts.clock.mono();
    this.#enter('ready');
    this.#parts.onAuth(ok);
    if (this.#phase === 'ready') for (const call of this.#calls.takeWaiting()) this.#transmit(call);
  }

  #transmit(call) {
    const id = this.#calls.begin(call);
    const error = this.#write({ id, cmd: call.cmd, d: call.d });
    if (error !== null) this.#calls.abandon(id, error);
  }

  /** @returns {HausError | null} why it was not sent */
  #write(frame) {
    const text = encode(frame);
    const { frameBytes } = this.#limits;
    if (text.length * 3 > frameBytes && bytesOf(text) > frameBytes) {
      return new HausError(LOCAL.TOO_LARGE, `${frame.cmd}: a frame of ${bytesOf(text)} bytes, at most ${frameBytes}`);
    }
    try {
      this.#socket.ws.send(text);
      return null;
    } catch (cause) {
      // Still connecting, or gone: its end is told in its own time.
      return new HausError(LOCAL.DISCONNECTED, 'the socket does not take it', { cause });
    }
  }

  // One timer, set again from what was heard last: no work per frame.
  #watch(heartbeatMs) {
    const limitMs = heartbeatMs * SILENT_HEARTBEATS;
    const check = () => {
      const silentMs = this.#parts.clock.mono() - this.#heardAt;
      if (silentMs >= limitMs) this.#lost(1006, '');
      else this.#later('watch', limitMs - silentMs, check);
    };
    this.#later('watch', limitMs, check);
  }

  #lost(code, reason) {
    const opened = this.#phase === 'authenticating' || this.#phase === 'ready';
    if (!opened) this.#unopened += 1;
    if (code === 1009) return this.#refusedFrame();
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

  // 1009: a frame was above what the server (or something before it) takes. Sent again, it would end the next socket too.
  #refusedFrame() {
    const { clock } = this.#parts;
    if (this.#phase === 'authenticating') this.#parts.tooBig();
    else if (clock.mono() - this.#readyAt > GOOD_SESSION_MS) this.#tooBig = 0;
    this.#tooBig += 1;
    this.#discard(1000, new HausError(LOCAL.TOO_LARGE, 'a frame was larger than the server takes'));
    return this.#retryLater(1009, tooBigDelayMs(this.#tooBig));
  }

  // A new socket at once: nothing says that the server is in trouble.
  #replace() {
    this.#discard(4999);
    this.#enter('waiting', { code: 1006, retryAt: this.#parts.clock.now(), retryInMs: 0, tries: this.#failures });
    if (this.#phase === 'waiting') this.#open();
  }

  #retryLater(code, retryAfterMs) {
    const { random, clock } = this.#parts;
    const delayMs = reconnectDelayMs({ failures: this.#failures, code, retryAfterMs, spreadMs: this.#spreadMs, random });
    this.#failures += 1;
    this.#heldUntil = clock.mono() + (Number(retryAfterMs) || 0);
    this.#later('open', delayMs, () => this.#open());
    this.#enter('waiting', { code, retryAt: clock.now() + delayMs, retryInMs: delayMs, tries: this.#failures });
  }

  #stopped(reason, code) {
    this.#clearTimers();
    this.#socket = null;
    this.#enter('stopped', { reason, code });
    this.#calls.refuseWaiting(new HausError(LOCAL.DISCONNECTED, reason));
  }

  // Lets go of the socket at once: a dead network would keep `onclose` waiting.
  #discard(code, refusal = null) {
    this.#clearTimers();
    const ws = this.#socket?.ws;
    this.#socket = null;
    if (ws) {
      ws.onmessage = ws.onclose = ws.onerror = null;
      try {
        ws.close(code);
      } catch {
        // Closed already.
      }
    }
    this.#calls.cut(refusal);
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
