// The whole client against a scripted server: gaps, resume, snapshots, threads that come and go, sends across a reconnect.

import assert from 'node:assert/strict';
import test from 'node:test';

import { MemoryStorage } from '../storage.js';
import { ME, OTHER, THREAD, THREAD_2, answer, authOk, client, created, hello, live, row, settle, stored } from './support.js';

const texts = (haus, id = THREAD) => haus.thread(id).messages.map(({ content }) => content);
const resumed = (streams, more = {}) => ({ up: 'resumed', d: { streams, reset: [], denied: [], ...more } });
const user = (seq, up, d) => ({ up, s: 'user', seq, at: '', d });

async function reconnect({ Socket, clock }, ok) {
  Socket.last.drop(1006);
  await clock.advance(3000);
  Socket.last.push(hello);
  Socket.last.reply('auth', ok);
  await settle();
  return Socket.last;
}

test('a gap is held and asked for from the last position; nothing is shown twice or out of order', async () => {
  const { haus, Socket, clock } = await live();
  Socket.last.push(created(11, 6), created(13, 8), created(11, 6));
  assert.deepEqual(texts(haus), ['text 6']);
  await clock.advance(50);
  assert.deepEqual(Socket.last.commands('sync').map(({ d }) => d), [{ streams: { [THREAD]: 11 } }]);
  assert.equal(haus.state, 'catching-up');
  Socket.last.push(created(14, 9));
  await clock.advance(50);
  assert.equal(Socket.last.commands('sync').length, 1);
  Socket.last.reply('sync', {});
  Socket.last.push(created(12, 7), created(13, 8), created(14, 9), resumed({ [THREAD]: 14 }));
  assert.deepEqual(texts(haus), ['text 6', 'text 7', 'text 8', 'text 9']);
  assert.equal(haus.state, 'live');
});

test('a sync that brings nothing is repeated a few times, then the socket is left', async () => {
  const { Socket, clock } = await live();
  Socket.last.push(created(13, 8));
  for (let i = 1; i <= 3; i += 1) {
    await clock.advance(50);
    assert.equal(Socket.last.commands('sync').length, i);
    Socket.last.push(resumed({ [THREAD]: 13 }));
  }
  await clock.advance(50);
  assert.equal(Socket.all.length, 1);
  await clock.advance(3000);
  assert.equal(Socket.all.length, 2);
});

test('resume: what was missed arrives as updates, in order, before what is live', async () => {
  const parts = await live();
  const socket = await reconnect(parts, authOk({ threads: [row({ seq: 13, no: 8, unread: 3 })] }));
  assert.equal(parts.haus.thread(THREAD).unread, 3);
  socket.push(created(11, 6), created(12, 7), created(13, 8), resumed({ user: 3, [THREAD]: 13 }), created(14, 9));
  assert.deepEqual(texts(parts.haus), ['text 6', 'text 7', 'text 8', 'text 9']);
  assert.equal(parts.haus.thread(THREAD).unread, 4);
  await parts.clock.advance(100);
  assert.equal(socket.commands('sync').length, 0);
});

test('resume answered with a snapshot replaces what was held', async () => {
  const parts = await live();
  parts.Socket.last.push(created(11, 6));
  const socket = await reconnect(parts, authOk({ threads: [row({ seq: 1058, no: 900 })] }));
  socket.push({ up: 'snapshot', s: THREAD, seq: 1058, d: { thread: row({ seq: 1058, no: 900 }), messages: [stored(899), stored(900)], members: [], memberCount: 2 } });
  socket.push(resumed({ user: 3, [THREAD]: 1058 }), created(1059, 901));
  assert.deepEqual(texts(parts.haus), ['text 899', 'text 900', 'text 901']);
  assert.equal(parts.haus.state, 'live');
});

test('reset: messages are let go, live ones go on from where the socket is live, a shown thread loads again', async () => {
  const parts = await live();
  parts.haus.open(THREAD);
  parts.Socket.last.reply('thread.open', { thread: row(), seq: 10, no: 5, messages: [stored(5)], members: [] });
  await settle();
  const socket = await reconnect(parts, authOk({ threads: [row({ seq: 9000, no: 800 })] }));
  socket.reply('thread.open', { thread: row({ seq: 9000, no: 800 }), seq: 9000, no: 800, messages: [stored(800)], members: [] });
  await settle();
  socket.push(created(9001, 801), resumed({ user: 3 }, { reset: [THREAD] }));
  await settle();
  assert.equal(socket.commands('thread.open').length, 2);
  socket.reply('thread.open', { thread: row({ seq: 9001, no: 801 }), seq: 9001, no: 801, messages: [stored(800), stored(801)], members: [] });
  await settle();
  assert.deepEqual(texts(parts.haus), ['text 800', 'text 801']);
  assert.equal(parts.haus.thread(THREAD).stream.pos, 9001);
  assert.equal(parts.haus.state, 'live');
});

test('another epoch: everything is taken anew, and what came since is not thrown away', async () => {
  const parts = await live();
  parts.Socket.last.push(created(11, 6));
  const socket = await reconnect(parts, authOk({ epoch: 'e2', streams: { user: 1 }, threads: [row({ seq: 4, no: 2, lastReadNo: 2 })] }));
  assert.equal(parts.haus.thread(THREAD).stream.pos, 4);
  socket.push(created(5, 3), resumed({}, { reset: ['user', THREAD] }));
  assert.deepEqual(texts(parts.haus), ['text 3']);
  assert.equal(parts.haus.state, 'live');
});

test('updates of a thread that is not listed are kept, and those above its row applied', async () => {
  const { haus, Socket, clock } = await live();
  const other = (seq, no) => ({ ...created(seq, no), s: THREAD_2 });
  Socket.last.push(other(31, 21), other(32, 22));
  assert.equal(haus.thread(THREAD_2), null);
  await clock.advance(300);
  Socket.last.reply('threads.list', { threads: [row({ id: THREAD_2, seq: 31, no: 21, lastReadNo: 20 })], next: null });
  await settle();
  assert.equal(haus.thread(THREAD_2).stream.pos, 32);
  assert.equal(haus.thread(THREAD_2).unread, 2);
  assert.deepEqual(texts(haus, THREAD_2), ['text 22']);
});

test('thread.added and thread.removed, live and replayed late', async () => {
  const { haus, Socket } = await live();
  const removed = [];
  haus.on('removed', ({ threadId, reason }) => removed.push([threadId, reason]));
  Socket.last.push(user(4, 'thread.added', { thread: row({ id: THREAD_2, seq: 50, no: 30 }) }), { ...created(51, 31), s: THREAD_2 });
  assert.deepEqual(texts(haus, THREAD_2), ['text 31']);
  Socket.last.push(user(5, 'thread.added', { thread: row({ id: THREAD_2, seq: 50, no: 30 }) }));
  assert.deepEqual(texts(haus, THREAD_2), ['text 31']);
  Socket.last.push(user(6, 'thread.removed', { threadId: THREAD_2, seq: 40, reason: 'left' }));
  assert.notEqual(haus.thread(THREAD_2), null);
  Socket.last.push(user(7, 'thread.removed', { threadId: THREAD_2, seq: 51, reason: 'removed' }));
  assert.equal(haus.thread(THREAD_2), null);
  assert.deepEqual(removed, [[THREAD_2, 'removed']]);
});

test('joined again while away: what was held before is not mixed with what came after', async () => {
  const parts = await live();
  parts.Socket.last.push(created(11, 6));
  const socket = await reconnect(parts, authOk({ streams: { user: 5 }, threads: [row({ seq: 30, no: 20 })] }));
  socket.push(user(4, 'thread.removed', { threadId: THREAD, seq: 15, reason: 'left' }), user(5, 'thread.added', { thread: row({ seq: 25, no: 16 }) }));
  socket.push({ up: 'snapshot', s: THREAD, seq: 30, d: { thread: row({ seq: 30, no: 20 }), messages: [stored(17), stored(20)], members: [], memberCount: 2 } });
  socket.push(resumed({ user: 5, [THREAD]: 30 }), created(31, 21));
  assert.deepEqual(texts(parts.haus), ['text 17', 'text 20', 'text 21']);
});

test('denied threads go', async () => {
  const parts = await live();
  const socket = await reconnect(parts, authOk({ threads: [] }));
  socket.push(resumed({ user: 3 }, { denied: [THREAD] }));
  assert.equal(parts.haus.thread(THREAD), null);
  assert.equal(parts.haus.state, 'live');
});

test('a head above the position for two heartbeats asks for the rest', async () => {
  const { Socket, clock } = await live();
  const beat = (seq) => Socket.last.push({ up: 'hb', d: { heads: { [THREAD]: seq, user: 3 } } });
  beat(12);
  await clock.advance(100);
  assert.equal(Socket.last.commands('sync').length, 0);
  Socket.last.push(created(11, 6), created(12, 7));
  beat(14);
  await clock.advance(100);
  assert.equal(Socket.last.commands('sync').length, 0);
  beat(14);
  await clock.advance(100);
  assert.deepEqual(Socket.last.command('sync').d, { streams: { [THREAD]: 12 } });
});

test('lag shows as catching up until the server says otherwise', async () => {
  const { haus, Socket } = await live();
  Socket.last.push({ up: 'lag', d: { streams: [THREAD] } });
  assert.equal(haus.state, 'catching-up');
  Socket.last.push({ up: 'hb', d: { heads: { [THREAD]: 11 } } });
  assert.equal(haus.state, 'catching-up');
  Socket.last.push(created(11, 6), { up: 'hb', d: { heads: { [THREAD]: 11 } } });
  assert.equal(haus.state, 'live');
});

test('a send that was cut is repeated with its nonce, and shown once whichever comes first', async () => {
  const parts = await live();
  const { haus } = parts;
  const item = haus.send(THREAD, 'hi');
  const first = parts.Socket.last.command('message.send');
  assert.deepEqual(first.d, { threadId: THREAD, nonce: item.nonce, content: 'hi' });
  const socket = await reconnect(parts, authOk({ threads: [row({ seq: 11, no: 6 })] }));
  const again = socket.command('message.send');
  assert.deepEqual(again.d, first.d);
  assert.equal(haus.pending(THREAD).length, 1);
  socket.push(created(11, 6, { senderId: ME, nonce: item.nonce, content: 'hi' }), resumed({ user: 3, [THREAD]: 11 }));
  assert.equal(haus.pending(THREAD).length, 0);
  socket.reply('message.send', { messageId: 'm6', seq: 11, no: 6, sentAt: '', dup: true });
  await settle();
  assert.equal(haus.pending(THREAD).length, 0);
  assert.deepEqual(texts(haus), ['hi']);
  assert.equal(haus.thread(THREAD).unread, 0);
});

test('what was written offline survives a reload and goes out after it', async () => {
  const storage = new MemoryStorage();
  const before = await client({ storage });
  const item = before.haus.send(THREAD, 'kept');
  before.haus.disconnect();
  const after = await live({ storage });
  assert.equal(after.Socket.last.command('message.send').d.nonce, item.nonce);
  await after.haus.logout();
  assert.deepEqual([...Array(storage.length).keys()].map((i) => storage.key(i)), ['haus.device']);
});

test('an open thread is opened again on the next socket; a closed one is not', async () => {
  const parts = await live();
  const loading = parts.haus.open(THREAD);
  const socket = await reconnect(parts, authOk());
  socket.push(resumed({ user: 3, [THREAD]: 10 }));
  socket.reply('thread.open', { thread: row(), seq: 10, no: 5, messages: [stored(4), stored(5)], members: [{ profileId: OTHER, displayName: 'Other' }] });
  assert.equal((await loading).messages.length, 2);
  assert.equal(parts.haus.people.get(OTHER).displayName, 'Other');
  parts.haus.close(THREAD);
  const next = await reconnect(parts, authOk());
  assert.equal(next.commands('thread.open').length, 0);
});

test('older pages are asked for once at a time, and go in front', async () => {
  const { haus, Socket } = await live();
  haus.open(THREAD);
  Socket.last.reply('thread.open', { thread: row({ no: 9 }), seq: 10, no: 9, messages: [stored(8), stored(9)], members: [] });
  await settle();
  const both = Promise.all([haus.older(THREAD), haus.older(THREAD)]);
  assert.deepEqual(Socket.last.commands('history').map(({ d }) => d.before), [8]);
  Socket.last.push(created(11, 10));
  Socket.last.reply('history', { messages: [stored(6), stored(7)], hasMore: true, seq: 11 });
  await both;
  assert.deepEqual(texts(haus), ['text 6', 'text 7', 'text 8', 'text 9', 'text 10']);
});

test('a thread one may not see is refused to whoever opens it', async () => {
  const { haus, Socket } = await live();
  const opening = haus.open(THREAD_2);
  Socket.last.refuse('thread.open', { code: 'not_found' });
  await assert.rejects(opening, { code: 'not_found' });
});

test('reading moves the mark at once, and tells the server the last of several', async () => {
  const { haus, Socket, clock } = await live(undefined, authOk({ threads: [row({ no: 9, lastReadNo: 5 })] }));
  haus.read(THREAD, 7);
  haus.read(THREAD, 9);
  haus.read(THREAD, 8);
  assert.equal(haus.thread(THREAD).unread, 0);
  await clock.advance(300);
  assert.deepEqual(Socket.last.commands('read').map(({ d }) => d), [{ threadId: THREAD, no: 9, readRev: 0 }]);
  Socket.last.reply('read', { lastReadNo: 4, readRev: 1, unread: 5, mentions: 0 });
  await settle();
  assert.equal(haus.thread(THREAD).row.lastReadNo, 4);
});

test('names are asked for together, once', async () => {
  const { haus, Socket } = await live();
  let arrived = 0;
  haus.on('people', () => (arrived += 1));
  assert.equal(haus.people.get('p1'), null);
  assert.equal(haus.people.get('p2'), null);
  await settle();
  assert.deepEqual(Socket.last.commands('profiles.get').map(({ d }) => d.ids), [['p1', 'p2']]);
  assert.equal(haus.people.get('p1'), null);
  Socket.last.reply('profiles.get', { profiles: [{ id: 'p1', displayName: 'One' }, { id: 'p2', displayName: 'Two' }] });
  await settle();
  assert.equal(haus.people.get('p2').displayName, 'Two');
  assert.equal(arrived, 1);
  assert.equal(Socket.last.commands('profiles.get').length, 1);
});

test('typing is shown until it ends by itself or a message comes', async () => {
  const { haus, Socket, clock } = await live();
  const typing = { up: 'typing', d: { threadId: THREAD, profileIds: [OTHER, ME] } };
  Socket.last.push(typing);
  assert.deepEqual(haus.typists(THREAD), [OTHER]);
  Socket.last.push(created(11, 6));
  assert.deepEqual(haus.typists(THREAD), []);
  Socket.last.push(typing);
  for (let i = 0; i < 6; i += 1) {
    await clock.advance(1000);
    Socket.last.push({ up: 'hb', d: { heads: {} } });
  }
  assert.deepEqual(haus.typists(THREAD), []);
});

test('more than 500 threads are resumed by further syncs', async () => {
  const ids = Array.from({ length: 700 }, (_, i) => `0190cccc-0000-7000-8000-${String(i).padStart(12, '0')}`);
  const rows = ids.map((id) => row({ id }));
  const parts = await live(undefined, authOk({ threads: rows }));
  const socket = await reconnect(parts, authOk({ threads: rows }));
  assert.equal(Object.keys(socket.command('auth').d.resume.streams).length, 500);
  await parts.clock.advance(50);
  const synced = socket.commands('sync').flatMap(({ d }) => Object.keys(d.streams));
  assert.equal(synced.length, 201);
  assert.equal(new Set([...synced, ...Object.keys(socket.command('auth').d.resume.streams)]).size, 701);
});

test('an error in a listener does not stop the others, and is not hidden', async (t) => {
  const { haus } = await live();
  const later = t.mock.method(globalThis, 'queueMicrotask', () => {});
  const seen = [];
  haus.on('note', () => {
    throw new Error('mine');
  });
  haus.on('note', (detail) => seen.push(detail));
  haus.emit('note', 5);
  assert.deepEqual(seen, [5]);
  assert.throws(later.mock.calls[0].arguments[0], { message: 'mine' });
});

test('a server that is too busy is asked again a few times, a POST under one key; other refusals are told at once', async () => {
  const asked = [];
  let left = 2;
  const http = (path, { method, headers }) => {
    if (!path.startsWith('/v1/threads')) return undefined;
    asked.push([method, headers['idempotency-key']]);
    left -= 1;
    if (left < 0) return answer(201, { id: THREAD });
    return answer(503, { code: 'unavailable', detail: 'the database cannot be reached' });
  };
  const { haus, clock } = await live({ http });
  const made = haus.request('POST', '/v1/threads', { type: 'DIRECT', memberIds: [OTHER] });
  await clock.advance(10_000);
  assert.deepEqual(await made, { id: THREAD });
  assert.deepEqual([asked.length, new Set(asked.map(([, key]) => key)).size, asked[0][1].length], [3, 1, 36]);
  left = 100;
  const removed = haus.request('DELETE', `/v1/threads/${THREAD}/members/${OTHER}`).catch(({ code }) => code);
  await clock.advance(60_000);
  assert.deepEqual([await removed, asked.length], ['unavailable', 8]);
  assert.equal(asked.at(-1)[1], undefined);
  const { haus: refused } = await live({ http: (path) => (path.startsWith('/v1/threads') ? answer(403, { code: 'forbidden' }) : undefined) });
  await assert.rejects(refused.request('DELETE', `/v1/threads/${THREAD}`), { code: 'forbidden' });
});
