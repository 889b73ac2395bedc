// Client of the `haus.v1` protocol, for browsers and Node. This is the whole public face; the parts are beside it:
// `session.js`, `http.js` tokens and REST · `connection.js` the socket · `catch_up.js` resume and sync · `store.js`, `thread.js`,
// `stream.js` what is held · `reader.js` what is asked for · `queue.js` messages on their way · `people.js` names.

import { Emitter } from './emitter.js';
import { HausError, LOCAL } from './errors.js';
import { assemble } from './parts.js';
import { uuid } from './storage.js';
import { watchWaking } from './wake.js';

export { HausError, LOCAL } from './errors.js';
export { MemoryStorage } from './storage.js';
export { explain } from './words.js';

/** Close code of a session that was ended (protocol, section 6). */
const REVOKED = 4403;

/**
 * Notices: `state` `{state: 'offline' | 'catching-up' | 'live', retryAt?, retryInMs?, code?, reason?}` · `threads` (the list changed) ·
 * `thread` (id: its row, messages, unsent ones or typing changed) · `message` `{thread, message}` (arrived by the stream) ·
 * `removed` `{threadId, reason}` · `people` (names arrived) · `user` (update of the user stream) ·
 * `update` (every ephemeral update) · `storage` (HausError, once: nothing more survives a reload) · `signed-out` (reason:
 * `logout`, `expired`, `revoked`, `elsewhere`, `taken-over`)
 */
export class Haus extends Emitter {
  #clock;
  #session;
  #connection;
  #store;
  #catchUp;
  #queue;
  #drafts;
  #unwatch = null;
  #state = 'offline';
  #reader;
  #typing;
  #focus = null;
  #caps = [];
  #notices;

  /**
   * @param {{url?: string, storage?: Storage, WebSocket?: typeof WebSocket, fetch?: typeof fetch, locks?: LockManager,
   *          clock?: object, random?: () => number, caps?: string[], kind?: string}} [options]
   *   `url` of the server, `http(s)://…`; the page's own by default. The rest is for Node and for tests.
   */
  constructor(options = {}) {
    super();
    const parts = assemble(options, {
      emit: (name, detail) => this.emit(name, detail),
      signedOut: (reason) => this.#signedOut(reason),
      created: (thread, message) => this.#created(thread, message),
      removed: (id, reason) => this.#removed(id, reason),
      lost: () => this.#lost(),
      state: () => this.#setState(),
      authenticated: (ok) => this.#authenticated(ok),
      update: (frame) => this.#update(frame),
      phase: (phase, detail) => this.#phase(phase, detail),
    });
    this.#clock = parts.clock;
    this.#session = parts.session;
    this.#store = parts.store;
    this.#catchUp = parts.catchUp;
    this.#queue = parts.queue;
    this.#drafts = parts.drafts;
    this.#typing = parts.typing;
    this.#connection = parts.connection;
    this.#reader = parts.reader;
    this.#notices = parts.notices;
    /** Names by id: `haus.people.get(id)?.displayName`. */
    this.people = parts.people;
  }

  // Who

  get profile() {
    return this.#session.profile;
  }

  /** Takes up the session of an earlier visit, if there is one, and connects. */
  restore() {
    return this.#session.restore() && this.#begin();
  }

  /** @throws {HausError} */
  async login(email, password) {
    await this.#session.login(email, password);
    return this.#begin();
  }

  /** @throws {HausError} */
  async register(email, password, displayName) {
    await this.#session.register(email, password, displayName);
    return this.#begin();
  }

  /**
   * Ends the session here at once. By the person's own wish, so what is unsent and the drafts are forgotten with it; every
   * other end of a session keeps them for the next log-in of the same person.
   * @param {{keepUnsent?: boolean}} [options]
   * @returns {Promise<boolean>} whether the server has ended it too; never throws
   */
  logout({ keepUnsent = false } = {}) {
    if (!keepUnsent && this.#session.signedIn) {
      this.#queue.clear();
      this.#drafts.clear();
    }
    return this.#session.logout();
  }

  /**
   * Any REST call as the person signed in. A server that is too busy (`unavailable`) is asked again a few times; a POST goes
   * under one `Idempotency-Key` then. @throws {HausError}
   */
  request(method, path, body, options) {
    const once = { idempotencyKey: method === 'POST' ? uuid() : undefined, ...options };
    return this.#reader.patiently(() => this.#session.request(method, path, body, once), ({ code }) => code === 'unavailable');
  }

  // Connection

  /** `offline`, `catching-up` or `live`. */
  get state() {
    return this.#state;
  }

  /** What the server takes: `frameBytes`, `contentChars` and what else `hello` told. */
  get limits() {
    return this.#connection.limits;
  }

  /** Connects again after a stop, and tries now while waiting to. */
  nudge() {
    if (!this.#session.check()) return;
    if (this.#connection.phase === 'stopped' || this.#connection.phase === 'idle') this.#connect();
    else this.#connection.nudge();
  }

  /**
   * The device has come back from somewhere (called by itself in browsers): within seconds the connection is proved or told
   * to be lost, and tried anew.
   */
  wake() {
    if (!this.#session.check()) return;
    this.#connection.probe();
    this.people.woke();
  }

  /** Lets go of the connection; nothing held is forgotten. `nudge` or `restore` takes it up again. */
  disconnect() {
    this.#unwatch?.();
    this.#unwatch = null;
    this.#connection.stop();
  }

  /** Any command; see the protocol, section 4. Repeated after a reconnect until it is answered. @throws {HausError} */
  command(cmd, d, options) {
    return this.#connection.command(cmd, d, options);
  }

  // Threads and messages

  /** Threads held, the latest message first. */
  threads() {
    return this.#store.list();
  }

  /** @returns {import('./thread.js').Thread | null} */
  thread(id) {
    return this.#store.threads.get(id) ?? null;
  }

  get hasMoreThreads() {
    return this.#store.nextThreads !== null;
  }

  /** The next page of the thread list. @throws {HausError} */
  moreThreads() {
    return this.#reader.moreThreads();
  }

  /** Messages of this thread on their way, oldest first. */
  pending(threadId) {
    return this.#queue.of(threadId);
  }

  /** What `logout` would forget: messages that have not gone out (also failed ones) and drafts, of every tab, counted. */
  get unsent() {
    return { messages: this.#queue.unsent, drafts: this.#drafts.count };
  }

  /**
   * Queues a message; it goes out as soon as it can.
   * @returns {import('./queue.js').Pending}
   * @throws {HausError} `too_large` (nothing is queued), `overloaded`, `signed_out`
   */
  send(threadId, body) {
    this.#session.check();
    return this.#queue.add(threadId, typeof body === 'string' ? { content: body } : body);
  }

  retry(nonce) {
    this.#queue.retry(nonce);
  }

  discard(nonce) {
    this.#queue.discard(nonce);
  }

  /** What the person signed in has begun to write in a thread; '' if nothing. */
  draft(threadId) {
    return this.#drafts.get(threadId);
  }

  /** Keeps it, across reloads and ends of the session, for this person alone. '' forgets it. */
  setDraft(threadId, text) {
    if (this.#drafts.set(threadId, text, this.#clock.now())) this.#notices.touch(threadId);
  }

  /** Shows a thread: loads its newest messages and keeps it open across reconnects, until `close`. @throws {HausError} */
  open(threadId) {
    return this.#reader.open(threadId);
  }

  close(threadId) {
    this.#reader.close(threadId);
  }

  /**
   * From which message on an open thread is on the screen (null: its newest alone, as after `open`). When many arrive, what
   * stands before it is let go, and read again by `older`.
   */
  reading(threadId, no) {
    this.#reader.reading(threadId, no);
  }

  /** Loads a page of older messages in front; calls meanwhile share it. @throws {HausError} */
  older(threadId) {
    return this.#reader.older(threadId);
  }

  /** Fetches the newest message of a thread whose `last` is not known yet, for a list. Never throws. */
  preview(threadId) {
    return this.#reader.preview(threadId);
  }

  /** Everything up to message `no` is read. */
  read(threadId, no) {
    this.#reader.read(threadId, no);
  }

  /** Tells others in the thread, where the server can; `on` lasts six seconds. */
  typing(threadId, on) {
    if (this.#caps.includes('typing')) this.#connection.tell('typing', { threadId, on });
  }

  /** Who is typing in a thread, by profile id. */
  typists(threadId) {
    return this.#typing.of(threadId).filter((id) => id !== this.#store.selfId);
  }

  /** Which thread is on screen (null: none), and whether the person is there. */
  focus(threadId, active) {
    this.#focus = { threadId, active };
    this.#connection.tell('focus', this.#focus);
  }

  // From here on: how the parts meet

  #begin() {
    const profileId = this.profile.id;
    this.#letGo();
    this.#queue.load(profileId);
    this.#drafts.load(profileId);
    this.#connect();
    return this.profile;
  }

  #connect() {
    this.#unwatch ??= watchWaking({
      clock: this.#clock,
      target: globalThis,
      page: globalThis.document,
      woke: () => this.wake(),
      stored: () => this.#session.check(),
    });
    this.#connection.start();
  }

  // Nothing of one session is left for the next, except what its owner has unsent.
  #letGo() {
    this.disconnect();
    this.#queue.close();
    this.#drafts.close();
    this.#store.clear();
    this.people.clear();
    this.#reader.clear(new HausError(LOCAL.SIGNED_OUT));
    this.#typing.clear();
    this.#focus = null;
  }

  #authenticated(ok) {
    if (ok.profile.id !== this.profile?.id || !this.#session.check()) return this.disconnect();
    this.#caps = ok.caps ?? [];
    this.#catchUp.authed(ok);
    for (const { peer } of ok.threads) this.people.learn(peer);
    this.people.learn(ok.profile);
    this.#store.authed(ok);
    this.#reader.reopen();
    if (this.#focus) this.#connection.tell('focus', this.#focus);
    this.#queue.setLive(true);
    return this.#setState();
  }

  #update(frame) {
    if (frame.seq !== undefined) {
      this.#store.receive(frame);
      return;
    }
    if (frame.up === 'resumed') this.#catchUp.resumed(frame.d);
    else if (frame.up === 'hb') {
      if (!this.#session.check()) return;
      this.#catchUp.heads(frame.d?.heads ?? {});
      if (globalThis.document?.visibilityState !== 'hidden') this.people.look();
    }
    else if (frame.up === 'lag') this.#catchUp.lag();
    else {
      if (frame.up === 'typing') this.#typing.told(frame.d);
      this.emit('update', frame);
    }
  }

  #phase(phase, detail) {
    if (phase !== 'ready') {
      this.#queue.setLive(false);
      this.#catchUp.cut();
      // A log-in since then goes on with its own tokens.
      if (detail.code === REVOKED && phase === 'stopped' && this.#session.signedIn) {
        if (this.#session.revoked()) this.#connection.start();
        return;
      }
      this.#setState(detail);
    }
  }

  #setState(detail = {}) {
    const { phase } = this.#connection;
    const ready = phase === 'ready';
    const next = ready && this.#catchUp.done ? 'live' : ready || phase === 'authenticating' ? 'catching-up' : 'offline';
    if (next === this.#state && next === 'live') return;
    this.#state = next;
    this.emit('state', { state: next, ...detail });
  }

  #signedOut(reason) {
    this.#letGo();
    this.#notices.touch(null);
    this.emit('signed-out', reason);
  }

  #created(thread, message) {
    if (message.senderId === this.#store.selfId && message.nonce) this.#queue.confirm(message.nonce, message);
    this.#typing.sent(thread.id, message.senderId);
    this.emit('message', { thread, message });
  }

  #removed(threadId, reason) {
    this.#reader.forget(threadId);
    this.#notices.touch(threadId);
    this.#notices.touch(null);
    this.emit('removed', { threadId, reason });
  }

  #lost() {
    this.#store.clear();
    this.#connection.restart();
  }
}
