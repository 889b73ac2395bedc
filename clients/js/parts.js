// How the parts are made and know each other. Each is given what it needs as functions; none knows the whole.

import { CatchUp } from './catch_up.js';
import { clockOf } from './clock.js';
import { Connection } from './connection.js';
import { Drafts } from './drafts.js';
import { HausError, LOCAL } from './errors.js';
import { Http } from './http.js';
import { Notices } from './notices.js';
import { People } from './people.js';
import { Reader } from './reader.js';
import { SendQueue } from './queue.js';
import { Session } from './session.js';
import { Keep, defaultStorage, deviceId } from './storage.js';
import { Store } from './store.js';
import { Typing } from './typing.js';

/**
 * @param {object} options those of `Haus`
 * @param {{emit: (name: string, detail?: any) => void, signedOut: (reason: string) => void, created: Function, removed: Function,
 *          lost: () => void, state: () => void, authenticated: (ok: object) => void, update: (frame: object) => void,
 *          phase: (phase: string, detail: object) => void}} hooks what happens in the whole
 */
export function assemble(options, hooks) {
  const url = options.url ?? globalThis.location.origin;
  const clock = clockOf(options.clock);
  const random = options.random ?? Math.random;
  const notices = new Notices({
    clock,
    tell: (ids) => {
      for (const threadId of ids) hooks.emit('thread', threadId);
      hooks.emit('threads');
    },
  });
  const kept = options.storage === undefined ? defaultStorage() : options.storage;
  const storage = new Keep(kept, (cause) => queueMicrotask(() => hooks.emit('storage', new HausError(LOCAL.STORAGE, undefined, { cause }))));
  const fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  const session = new Session({
    http: new Http({ url, fetch, clock }),
    storage,
    locks: 'locks' in options ? options.locks : globalThis.navigator?.locks,
    clock,
    onEnd: hooks.signedOut,
  });
  const store = new Store({
    threadChanged: (id) => notices.touch(id),
    listChanged: () => notices.touch(null),
    created: hooks.created,
    gap: (id) => catchUp.want(id),
    unlisted: () => reader.relist(),
    openFrom: (id) => reader.openFrom(id),
    removed: hooks.removed,
    applied: (thread) => queue.settle(thread.id, thread.stream.pos),
    user: (update) => hooks.emit('user', update),
    reset: (id) => reader.reset(id),
    lost: hooks.lost,
  });
  const catchUp = new CatchUp({
    store,
    sync: (streams) => connection.command('sync', { streams }, { repeat: false }),
    changed: hooks.state,
    giveUp: () => connection.restart(),
    frameBytes: () => connection.limits.frameBytes,
    clock,
  });
  const queue = new SendQueue({
    storage,
    transmit: ({ threadId, nonce, body }) =>
      connection.command('message.send', { threadId, nonce, ...body }, { repeat: false }),
    changed: (id) => notices.touch(id),
    position: (id) => store.position(id),
    limits: () => connection.limits,
    clock,
    random,
  });
  const drafts = new Drafts({ storage });
  const typing = new Typing({ clock, changed: (id) => notices.touch(id) });
  const connection = new Connection({
    url: `${url.replace(/^http/, 'ws').replace(/\/$/, '')}/v1/ws`,
    WebSocket: options.WebSocket ?? globalThis.WebSocket,
    clock,
    random,
    token: () => session.token(),
    refresh: () => session.refresh(),
    askTicket: () => session.request('POST', '/v1/ws/ticket'),
    device: { id: deviceId(storage), kind: options.kind ?? 'web' },
    caps: options.caps ?? ['typing'],
    resume: () => catchUp.resume(),
    tooBig: () => catchUp.tooBig(),
    onAuth: hooks.authenticated,
    onUpdate: hooks.update,
    onPhase: hooks.phase,
  });
  const people = new People({
    fetch: async (ids) => (await reader.ask('profiles.get', { ids })).profiles,
    clock,
    arrived: () => hooks.emit('people'),
    changed: (profile) => store.named(profile),
  });
  const reader = new Reader({
    store,
    connection,
    people,
    clock,
    random,
    touch: (id) => notices.touch(id),
    shown: (id, seq) => queue.settle(id, seq),
  });
  return { clock, session, store, catchUp, queue, drafts, typing, connection, reader, notices, people };
}
