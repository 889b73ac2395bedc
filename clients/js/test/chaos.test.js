// The client against a server in memory that keeps the protocol, over a network that does not behave: sockets die at any
// moment, replies and updates are lost with them, frames come twice or too early, slow clients are sent snapshots. At the end the
// client must hold what the log holds, and every send must be in the log once and in the order written. Seeds are printed.

import assert from 'node:assert/strict';
import test from 'node:test';

import { MemoryStorage } from '../storage.js';
import { ME, OTHER, THREAD, THREAD_2, client, row, settle, stored } from './support.js';

/** Further behind than this, a snapshot is sent. */
const SNAPSHOT_AFTER = 30;
const THREADS = [THREAD, THREAD_2];

function randomOf(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Logs, and what the protocol says to do with them. */
class ModelServer {
  threads = new Map(THREADS.map((id) => [id, { id, log: [], messages: [], readNo: 0 }]));
  socket = null;
  live = false;
  spoken = 0;

  constructor(random) {
    this.random = random;
    for (const id of THREADS) for (let i = 0; i < 20; i += 1) this.post(id, OTHER, `old ${i}`, null);
  }

  append(thread, up, d) {
    const seq = thread.log.length + 1;
    const update = { up, s: thread.id, seq, at: new Date(1e12 + seq).toISOString(), d };
    thread.log.push(update);
    this.deliver(update);
    return update;
  }

  post(id, senderId, content, nonce) {
    const thread = this.threads.get(id);
    const no = thread.messages.length + 1;
    const message = { ...stored(no), id: `${id} ${no}`, threadId: id, senderId, content, nonce, seq: thread.log.length + 1, sentAt: new Date(1e12 + no).toISOString() };
    thread.messages.push(message);
    if (senderId === ME) thread.readNo = no;
    return { message, update: this.append(thread, 'message.created', { message: { ...message, reactions: undefined } }) };
  }

  edit(id, no) {
    const thread = this.threads.get(id);
    const message = thread.messages[no - 1];
    message.rev += 1;
    message.content = `${message.content.split(' r')[0]} r${message.rev}`;
    message.isEdited = true;
    this.append(thread, 'message.edited', { messageId: message.id, no, rev: message.rev, content: message.content, mentions: [], editedAt: 'now' });
  }

  react(id, no) {
    const thread = this.threads.get(id);
    const message = thread.messages[no - 1];
    const had = message.reactions[0];
    const count = had ? 0 : 1;
    message.reactions = had ? [] : [{ emoji: '🔥', count: 1, mine: false, profileIds: [OTHER] }];
    this.append(thread, had ? 'reaction.removed' : 'reaction.added', { messageId: message.id, no, emoji: '🔥', profileId: OTHER, count });
  }

  // The log holds no text: a replay renders the message as it is now, without reactions.
  replayed(update) {
    if (update.up === 'message.created') {
      const now = this.threads.get(update.s).messages[update.d.message.no - 1];
      return { ...update, d: { message: { ...now, reactions: undefined } } };
    }
    if (update.up !== 'message.edited') return update;
    const now = this.threads.get(update.s).messages[update.d.no - 1];
    return { ...update, d: { ...update.d, rev: now.rev, content: now.content } };
  }

  deliver(update) {
    if (!this.live) return;
    const chance = this.random();
    if (chance < 0.06) return;
    this.socket.push(update);
    if (chance > 0.92) this.socket.push(update);
  }

  row({ id, log, messages, readNo }) {
    return row({ id, seq: log.length, no: messages.length, lastReadNo: readNo, unread: messages.length - readNo, lastMessageAt: messages.at(-1).sentAt });
  }

  catchUp(streams) {
    const told = {};
    for (const [id, since] of Object.entries(streams)) {
      if (id === 'user') {
        told.user = 0;
        continue;
      }
      const thread = this.threads.get(id);
      if (thread.log.length - since > SNAPSHOT_AFTER) {
        const messages = thread.messages.slice(-50).map((message) => ({ ...message }));
        this.socket.push({ up: 'snapshot', s: id, seq: thread.log.length, d: { thread: this.row(thread), messages, members: [], memberCount: 2 } });
      } else for (const update of thread.log.slice(since)) this.socket.push(this.replayed(update));
      told[id] = thread.log.length;
    }
    this.socket.push({ up: 'resumed', d: { streams: told, reset: [], denied: [] } });
  }

  /** Answers what the client has sent since the last time. */
  answer() {
    while (this.socket.sent.length > this.spoken) {
      const { id, cmd, d } = this.socket.sent[this.spoken];
      this.spoken += 1;
      const reply = (ok) => this.socket.push({ id, ok });
      if (cmd === 'auth') {
        this.live = true;
        reply({ session: 's', epoch: 'e', profile: { id: ME, displayName: 'Me' }, streams: { user: 0 }, threads: [...this.threads.values()].map((thread) => this.row(thread)), next: null });
        if (d.resume) this.catchUp(d.resume.streams);
      } else if (cmd === 'sync') {
        reply({});
        this.catchUp(d.streams);
      } else if (cmd === 'message.send') this.send(id, d);
      else if (cmd === 'thread.open' || cmd === 'history') this.page(reply, cmd, d);
      else if (cmd === 'read') {
        const thread = this.threads.get(d.threadId);
        thread.readNo = Math.max(thread.readNo, d.no);
        reply({ lastReadNo: thread.readNo, readRev: 0, unread: 0, mentions: 0 });
      } else if (id !== undefined) reply({});
    }
  }

  send(id, { threadId, nonce, content }) {
    const thread = this.threads.get(threadId);
    const old = thread.messages.find((message) => message.nonce === nonce);
    if (!old && this.random() < 0.1) {
      this.socket.push({ id, err: { code: 'unavailable', message: '', retryable: true, retryAfterMs: 200 } });
      return;
    }
    const message = old ?? this.post(threadId, ME, content, nonce).message;
    this.socket.push({ id, ok: { messageId: message.id, seq: message.seq, no: message.no, sentAt: message.sentAt, dup: Boolean(old) } });
  }

  page(reply, cmd, { threadId, before = Infinity, limit }) {
    const thread = this.threads.get(threadId);
    const all = thread.messages.filter(({ no }) => no < before);
    const messages = all.slice(-Math.min(limit, 10)).map((message) => ({ ...message }));
    const ok = { messages, hasMore: all.length > messages.length, seq: thread.log.length };
    reply(cmd === 'history' ? ok : { ...ok, thread: this.row(thread), no: thread.messages.length, members: [] });
  }
}

async function history(seed) {
  const random = randomOf(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const server = new ModelServer(random);
  const storage = new MemoryStorage();
  const parts = await client({ storage, random });
  const { haus, clock, Socket } = parts;
  const written = new Map(THREADS.map((id) => [id, []]));
  const delivered = new Map(THREADS.map((id) => [id, []]));
  haus.on('message', ({ thread, message }) => delivered.get(thread.id).push(message.no));

  const meet = () => {
    if (server.socket === Socket.last) return;
    server.socket = Socket.last;
    server.spoken = 0;
    server.live = false;
    server.socket.push({ up: 'hello', d: { heartbeatMs: 5_000, caps: [], limits: { spreadMs: 300 } } });
  };
  let cuts = 0;
  for (let step = 0; step < 400; step += 1) {
    const id = pick(THREADS);
    const thread = server.threads.get(id);
    const what = random();
    if (what < 0.4) server.post(id, OTHER, `said ${step}`, null);
    else if (what < 0.5) server.edit(id, thread.messages.length - Math.floor(random() * 5));
    else if (what < 0.58) server.react(id, thread.messages.length - Math.floor(random() * 5));
    else if (what < 0.72) {
      written.get(id).push(`mine ${step}`);
      haus.send(id, `mine ${step}`);
    } else if (what < 0.76) haus.open(id);
    else if (what < 0.78) haus.close(id);
    else if (what < 0.82) haus.older(id).catch(() => {});
    else if (what < 0.85) haus.read(id, haus.thread(id)?.row.no ?? 0);
    else if (what < 0.93 && server.socket) {
      // The socket dies: what the server has not read is lost, or was done and its reply is lost.
      if (random() < 0.5) {
        const { push } = server.socket;
        server.socket.push = () => {};
        server.answer();
        server.socket.push = push;
      }
      cuts += 1;
      server.live = false;
      server.socket.drop(pick([1006, 1006, 4000, 4013]));
      server.spoken = Infinity;
    }
    await clock.advance(random() * 120);
    meet();
    if (random() < 0.7) server.answer();
    await settle();
  }

  // The storm is over: a few heartbeats.
  server.random = () => 0.5;
  for (let i = 0; i < 60; i += 1) {
    await clock.advance(500);
    meet();
    server.answer();
    if (i % 4 === 0 && server.live) server.socket.push({ up: 'hb', d: { heads: Object.fromEntries([...server.threads.values()].map(({ id, log }) => [id, log.length])) } });
  }
  return { haus, server, written, delivered, cuts };
}

const shown = ({ no, content, rev, reactions }) => ({ no, content, rev, reactions: reactions.map(({ emoji, count }) => `${emoji}${count}`) });

test('nothing is lost, doubled or reordered, whatever the network does', async () => {
  let cuts = 0;
  const first = Number(process.env.SEED ?? 1);
  for (let seed = first; seed < first + Number(process.env.SEEDS ?? 40); seed += 1) {
    const end = await history(seed);
    const where = `seed ${seed}`;
    cuts += end.cuts;
    assert.equal(end.haus.state, 'live', where);
    for (const id of THREADS) {
      const truth = end.server.threads.get(id);
      const held = end.haus.thread(id);
      assert.equal(held.stream.pos, truth.log.length, where);
      assert.equal(held.row.no, truth.messages.length, where);
      assert.equal(held.unread, truth.messages.length - Math.max(truth.readNo, held.row.lastReadNo), where);
      assert.deepEqual(end.haus.pending(id), [], where);
      assert.deepEqual(truth.messages.filter(({ senderId }) => senderId === ME).map(({ content }) => content.split(' r')[0]), end.written.get(id), where);
      const window = held.messages.map(shown);
      if (window.length > 0) assert.deepEqual(window, truth.messages.slice(window[0].no - 1).map(shown), where);
      const nos = end.delivered.get(id);
      assert.ok(nos.every((no, i) => i === 0 || no > nos[i - 1]), `${where}: told twice or out of order`);
    }
  }
  assert.ok(cuts > 100, `only ${cuts} sockets died`);
});
