// Client of the `haus.v1` protocol, for browsers and Node. This is the whole public face; the parts are beside it:
// `session.js` tokens and REST · `connection.js` the socket · `catch_up.js` resume and sync · `store.js`, `thread.js`,
// `stream.js` what is held · `reader.js` what is asked for · `queue.js` messages on their way · `people.js` names.

import { CatchUp } from './catch_up.js';
import { Connection } from './connection.js';
import { Emitter } from './emitter.js';
import { HausError, LOCAL } from './errors.js';
import { People } from './people.js';
import { Reader } from './reader.js';
import { SendQueue } from './queue.js';
import { Session } from './session.js';
import { defaultStorage, uuid } from './storage.js';
import { Store } from './store.js';

export { HausError, LOCAL } from './errors.js';
export { MemoryStorage } from './storage.js';

/** A `typing` is over after this, milliseconds (protocol, section 4). */
const TYPING_MS = 6_000;

/**
 * Notices: `state` `{state: 'offline' | 'catching-up' | 'live', retryAt?, code?, reason?}` · `threads` (the list changed) ·
 * `thread` (id: its row, messages, unsent ones or typing changed) · `message` `{thread, message}` (arrived by the stream) ·
 * `removed` `{threadId, reason}` · `people` (names arrived) · `user` (update of the user stream) ·
 * `update` (every ephemeral update) · `signed-out` (reason)
 */
export class Haus extends Emitter {
  #clock;
  #random;
  #storage;
  #session;
  #connection;
  #store;
  #catchUp;
  #queue;
  #state = 'offline';
  #reader;
  #typing = new Map();
  #focus = null;
  #caps = [];
  #dirty = new Set();
  #listDirty = false;
  #flushing = false;

  /**
   * @param {{url?: string, storage?: Storage, WebSocket?: typeof WebSocket, fetch?: typeof fetch, locks?: LockManager,
   *          clock?: object, random?: () => number, caps?: string[], kind?: string}} [options]
   *   `url` of the server, `http(s)://…`; the page's own by default. The rest is for Node and for tests.
   */
  constructor(options = {}) {
    super();
    const url = options.url ?? globalThis.location.origin;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#storage = options.storage ?? defaultStorage();
    this.#session = new Session({
      url,
      fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
      storage: this.#storage,
      locks: options.locks ?? globalThis.navigator?.locks,
      now: () => this.#clock.now(),
      onEnd: (reason) => this.#signedOut(reason),
    });
    this.#store = new Store({
      threadChanged: (id) => this.#touch(id),
      listChanged: () => this.#touch(null),
      created: (thread, message) => this.#created(thread, message),
      gap: (id) => this.#catchUp.want(id),
      unlisted: () => this.#reader.relist(),
      removed: (id, reason) => this.#removed(id, reason),
      applied: (thread) => this.#queue.settle(thread.id, thread.stream.pos),
      user: (update) => this.emit('user', update),
      reset: (id) => this.#reader.reset(id),
      lost: () => this.#lost(),
    });
    this.#catchUp = new CatchUp({
      store: this.#store,
      sync: (streams) => this.#connection.command('sync', { streams }, { repeat: false }),
      changed: () => this.#setState(),
      giveUp: () => this.#connection.restart(),
      clock: this.#clock,
    });
    this.#queue = new SendQueue({
      storage: this.#storage,
      transmit: ({ threadId, nonce, body }) =>
        this.#connection.command('message.send', { threadId, nonce, ...body }, { repeat: false }),
      changed: (id) => this.#touch(id),
      position: (id) => this.#store.position(id),
      clock: this.#clock,
      random: this.#random,
    });
    this.#connection = new Connection({
      url: `${url.replace(/^http/, 'ws').replace(/\/$/, '')}/v1/ws`,
      WebSocket: options.WebSocket ?? globalThis.WebSocket,
      clock: this.#clock,
      random: this.#random,
      token: () => this.#session.token(),
      refresh: () => this.#session.refresh(),
      askTicket: () => this.#session.request('POST', '/v1/ws/ticket'),
      device: { id: this.#deviceId(), kind: options.kind ?? 'web' },
      caps: options.caps ?? ['typing'],
      resume: () => this.#catchUp.resume(),
      onAuth: (ok) => this.#authenticated(ok),
      onUpdate: (frame) => this.#update(frame),
      onPhase: (phase, detail) => this.#phase(phase, detail),
    });
    /** Names by id: `haus.people.get(id)?.displayName`. */
    this.people = new People({
      fetch: async (ids) => (await this.#reader.ask('profiles.get', { ids })).profiles,
      arrived: () => this.emit('people'),
    });
    this.#reader = new Reader({
      store: this.#store,
      connection: this.#connection,
      people: this.people,
      clock: this.#clock,
      random: this.#random,
      touch: (id) => this.#touch(id),
      shown: (id, seq) => this.#queue.settle(id, seq),
    });
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

  /** Ends the session; unsent messages are forgotten with it. */
  logout() {
    return this.#session.logout();
  }

  /** Any REST call as the person signed in. @throws {HausError} */
  request(method, path, body, options) {
    return this.#session.request(method, path, body, options);
  }

  // Connection

  /** `offline`, `catching-up` or `live`. */
  get state() {
    return this.#state;
  }

  /** Connects again after a stop, and tries now while waiting to. */
  nudge() {
    if (this.#connection.phase === 'stopped') this.#connection.start();
    else this.#connection.nudge();
  }

  /** Lets go of the connection; nothing held is forgotten. `nudge` or `restore` takes it up again. */
  disconnect() {
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

  get unanswered() {
    return this.#queue.unanswered;
  }

  /** Queues a message; it goes out as soon as it can. @returns {import('./queue.js').Pending} @throws {HausError} */
  send(threadId, body) {
    return this.#queue.add(threadId, typeof body === 'string' ? { content: body } : body);
  }

  retry(nonce) {
    this.#queue.retry(nonce);
  }

  discard(nonce) {
    this.#queue.discard(nonce);
  }

  /** Shows a thread: loads its newest messages and keeps it open across reconnects, until `close`. @throws {HausError} */
  open(threadId) {
    return this.#reader.open(threadId);
  }

  close(threadId) {
    this.#reader.close(threadId);
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
    const { ids = [], endsAt = 0 } = this.#typing.get(threadId) ?? {};
    return endsAt > this.#clock.now() ? ids.filter((id) => id !== this.#store.selfId) : [];
  }

  /** Which thread is on screen (null: none), and whether the person is there. */
  focus(threadId, active) {
    this.#focus = { threadId, active };
    this.#connection.tell('focus', this.#focus);
  }

  // From here on: how the parts meet

  #begin() {
    this.#queue.load(this.profile.id);
    this.#connection.start();
    return this.profile;
  }

  #authenticated(ok) {
    this.#caps = ok.caps ?? [];
    this.#catchUp.authed(ok);
    for (const { peer } of ok.threads) this.people.learn(peer);
    this.people.learn(ok.profile);
    this.#store.authed(ok);
    this.#reader.reopen();
    if (this.#focus) this.#connection.tell('focus', this.#focus);
    this.#queue.setLive(true);
    this.#setState();
  }

  #update(frame) {
    if (frame.seq !== undefined) {
      this.#store.receive(frame);
      return;
    }
    if (frame.up === 'resumed') this.#catchUp.resumed(frame.d);
    else if (frame.up === 'hb') this.#catchUp.heads(frame.d?.heads ?? {});
    else if (frame.up === 'lag') this.#catchUp.lag();
    else {
      if (frame.up === 'typing') this.#typed(frame.d);
      this.emit('update', frame);
    }
  }

  #phase(phase, detail) {
    if (phase !== 'ready') {
      this.#queue.setLive(false);
      this.#catchUp.cut();
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
    this.#connection.stop();
    this.#queue.clear();
    this.#store.clear();
    this.people.clear();
    this.#reader.clear(new HausError(LOCAL.SIGNED_OUT));
    this.#focus = null;
    this.#touch(null);
    this.emit('signed-out', reason);
  }

  #created(thread, message) {
    if (message.senderId === this.#store.selfId && message.nonce) this.#queue.confirm(message.nonce);
    const typing = this.#typing.get(thread.id);
    if (typing) typing.ids = typing.ids.filter((id) => id !== message.senderId);
    this.emit('message', { thread, message });
  }

  #removed(threadId, reason) {
    this.#reader.forget(threadId);
    this.#touch(threadId);
    this.#touch(null);
    this.emit('removed', { threadId, reason });
  }

  #lost() {
    this.#store.clear();
    this.#connection.restart();
  }

  #typed({ threadId, profileIds }) {
    this.#typing.set(threadId, { ids: profileIds, endsAt: this.#clock.now() + TYPING_MS });
    this.#clock.setTimeout(() => this.#touch(threadId), TYPING_MS + 50);
    this.#touch(threadId);
  }

  // Notices of one turn are given once. @param {string | null} id null: the list
  #touch(id) {
    if (id !== null) this.#dirty.add(id);
    this.#listDirty = true;
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      const ids = [...this.#dirty];
      const list = this.#listDirty;
      this.#dirty.clear();
      this.#listDirty = false;
      for (const threadId of ids) this.emit('thread', threadId);
      if (list) this.emit('threads');
    });
  }

  #deviceId() {
    const known = this.#storage.getItem('haus.device');
    if (known) return known;
    const id = uuid();
    this.#storage.setItem('haus.device', id);
    return id;
  }
}

const systemClock = {
  now: () => Date.now(),
  setTimeout: (task, ms) => setTimeout(task, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};
