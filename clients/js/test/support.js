// For the tests: a clock that moves when told, and sockets whose other end is played by the test. Nothing here stands for a
// database; what a server does to its log is tested with the real one.

import { MemoryStorage } from '../storage.js';
import { Haus } from '../haus.js';

/** Lets everything that is ready run. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class TestClock {
  #now = 1_700_000_000_000;
  /** What the wall clock was set by; `mono` does not know it. */
  #set = 0;
  #timers = new Map();
  #nextId = 1;

  now = () => this.#now + this.#set;

  mono = () => this.#now;

  /** Somebody sets the clock. */
  jump(ms) {
    this.#set += ms;
  }

  setTimeout = (task, ms) => {
    const id = this.#nextId++;
    this.#timers.set(id, { at: this.#now + ms, task });
    return id;
  };

  clearTimeout = (id) => {
    this.#timers.delete(id);
  };

  get timers() {
    return this.#timers.size;
  }

  /** Moves on, running what falls due in order. */
  async advance(ms) {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      const [id, next] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (next === undefined || next.at > end) break;
      this.#timers.delete(id);
      this.#now = next.at;
      next.task();
    }
    this.#now = end;
    await settle();
  }
}

/** Makes a `WebSocket` class that remembers every socket opened with it. */
export function socketClass() {
  return class TestSocket {
    static all = [];
    static get last() {
      return TestSocket.all.at(-1);
    }

    sent = [];
    closedWith = null;

    constructor(url, protocols) {
      this.url = url;
      this.protocols = protocols;
      TestSocket.all.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close(code) {
      this.closedWith = code;
    }

    /** The server sends. */
    push(...frames) {
      for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
    }

    /** The server (or the network) closes. */
    drop(code, reason = '') {
      this.onclose?.({ code, reason });
    }

    /** The last frame sent with this command. */
    command(cmd) {
      return this.sent.findLast((frame) => frame.cmd === cmd);
    }

    commands(cmd) {
      return this.sent.filter((frame) => frame.cmd === cmd);
    }

    /** The server answers the last such command. */
    reply(cmd, ok) {
      this.push({ id: this.command(cmd).id, ok });
    }

    refuse(cmd, err) {
      this.push({ id: this.command(cmd).id, err: { message: err.code, retryable: false, retryAfterMs: 0, ...err } });
    }
  };
}

export const ME = '0190aaaa-0000-7000-8000-000000000001';
export const OTHER = '0190aaaa-0000-7000-8000-000000000002';
export const THREAD = '0190bbbb-0000-7000-8000-000000000001';
export const THREAD_2 = '0190bbbb-0000-7000-8000-000000000002';

export const hello = { up: 'hello', d: { protocol: 1, heartbeatMs: 1_000, caps: ['typing'], limits: { spreadMs: 3_000 } } };

export const row = (more = {}) => ({
  id: THREAD, type: 'GROUP', name: 'Floor', peer: null, role: 'MEMBER', canSend: true, isArchived: false, memberCount: 2,
  seq: 10, no: 5, lastReadNo: 5, readRev: 0, unread: 0, mentions: 0, mutedUntil: null, lastMessageAt: '2026-01-01T00:00:05.000Z', ...more,
});

export const authOk = (more = {}) => ({
  session: 's', epoch: 'e1', expiresAt: '', caps: [], profile: { id: ME, displayName: 'Me' }, streams: { user: 3 },
  threads: [row()], next: null, ...more,
});

export const created = (seq, no, more = {}) => ({
  up: 'message.created', s: THREAD, seq, at: `2026-01-01T00:00:${String(no).padStart(2, '0')}.000Z`,
  d: { message: { id: `m${no}`, no, senderId: OTHER, content: `text ${no}`, rev: 1, sentAt: `2026-01-01T00:00:${String(no).padStart(2, '0')}.000Z`, ...more } },
});

export const stored = (no, more = {}) => ({
  id: `m${no}`, threadId: THREAD, no, seq: no, senderId: OTHER, type: 'TEXT', content: `text ${no}`, mentions: [], nonce: null,
  isEdited: false, isDeleted: false, isPinned: false, rev: 1, sentAt: `2026-01-01T00:00:${String(no).padStart(2, '0')}.000Z`, reactions: [], ...more,
});

/** An HTTP answer. */
export const answer = (status, body, headers = {}) => ({
  ok: status < 400, status, text: async () => JSON.stringify(body ?? null), headers: new Headers(headers),
});

let tokens = 0;
export const tokenAnswer = (more = {}) => {
  tokens += 1;
  return { profile: { id: ME, displayName: 'Me' }, sessionId: 's', accessToken: `access ${tokens}`, accessExpiresInMs: 600_000, refreshToken: `refresh ${tokens}`, ...more };
};

/** A client that is logged in, with its clock, sockets and storage. `http` answers REST calls: (path, init) => answer. */
export async function client({ storage = new MemoryStorage(), http, random = () => 0.5 } = {}) {
  const clock = new TestClock();
  const Socket = socketClass();
  const calls = [];
  const fetch = async (url, init) => {
    const path = new URL(url).pathname;
    calls.push(path);
    return http?.(path, init) ?? answer(200, tokenAnswer());
  };
  const haus = new Haus({ url: 'http://haus.test', storage, WebSocket: Socket, fetch, locks: undefined, clock, random });
  const states = [];
  haus.on('state', ({ state }) => states.at(-1) !== state && states.push(state));
  const troubles = [];
  haus.on('storage', ({ text }) => troubles.push(text));
  await haus.login('a@haus.test', 'secret');
  await settle();
  return { haus, clock, Socket, storage, calls, states, troubles };
}

/** The same, live. */
export async function live(options, ok = authOk()) {
  const parts = await client(options);
  parts.Socket.last.push(hello);
  parts.Socket.last.reply('auth', ok);
  await settle();
  return parts;
}
