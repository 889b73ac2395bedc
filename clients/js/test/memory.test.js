// How much is held, whatever arrives and however many threads were open.

import assert from 'node:assert/strict';
import test from 'node:test';

import { SHELF_MAX } from '../shelf.js';
import { CLOSED_MAX, OPEN_KEPT, OPEN_MAX, WINDOW_MAX } from '../thread.js';
import { THREAD, authOk, created, live, row, settle, stored } from './support.js';

test('5,000 messages in a thread that is not open: at most 200 held, told in few notices, quickly', async () => {
  const { haus, Socket, clock } = await live();
  const notices = { thread: 0, threads: 0, message: 0 };
  for (const name of Object.keys(notices)) haus.on(name, () => (notices[name] += 1));
  let most = 0;
  haus.on('message', ({ thread }) => (most = Math.max(most, thread.messages.length)));
  const started = performance.now();
  for (let i = 1; i <= 5_000; i += 1) {
    Socket.last.push(created(10 + i, 5 + i));
    if (i % 100 === 0) await settle();
  }
  const tookMs = performance.now() - started;
  await clock.advance(100);
  assert.deepEqual([notices.message, haus.thread(THREAD).unread, haus.thread(THREAD).last.no], [5_000, 5_000, 5_005]);
  assert.ok(most <= CLOSED_MAX, `${most} held`);
  assert.ok(notices.thread <= 3 && notices.threads <= 3, JSON.stringify(notices));
  assert.ok(tookMs < 5_000, `${tookMs} ms`);
});

test('above a gap, too, no more is held; all of it arrives', async () => {
  const { haus, Socket, clock } = await live();
  for (let i = 2; i <= 2_000; i += 1) Socket.last.push(created(10 + i, 5 + i));
  await clock.advance(50);
  assert.equal(Socket.last.commands('sync').length, 1);
  assert.ok(haus.thread(THREAD).stream.heldCount <= CLOSED_MAX);
  for (let i = 1; i <= 2_000; i += 1) Socket.last.push(created(10 + i, 5 + i));
  Socket.last.push({ up: 'resumed', d: { streams: { [THREAD]: 2_010 } } });
  assert.equal(haus.thread(THREAD).stream.pos, 2_010);
  assert.equal(haus.state, 'live');
});

test('an open thread lets go what stands far before the screen, and reads it again', async () => {
  const { haus, Socket } = await live();
  haus.open(THREAD);
  Socket.last.reply('thread.open', { thread: row(), seq: 10, no: 5, messages: [stored(4), stored(5)], members: [] });
  await settle();
  const thread = haus.thread(THREAD);
  const flood = (from, to) => {
    for (let i = from; i <= to; i += 1) Socket.last.push(created(10 + i, 5 + i));
  };
  flood(1, 3_000);
  assert.ok(thread.messages.length <= OPEN_MAX && thread.messages.length >= OPEN_KEPT, `${thread.messages.length} held`);
  assert.equal(thread.hasOlder, true);
  const oldest = thread.messages[0].no;
  haus.older(THREAD);
  assert.equal(Socket.last.command('history').d.before, oldest);
  // Somebody reads there: nothing of it goes, whatever arrives.
  haus.reading(THREAD, oldest + 10);
  flood(3_001, 9_000);
  assert.ok(thread.messages.some(({ no }) => no === oldest + 10));
  assert.ok(thread.messages.every(({ no }, i) => i === 0 || no === thread.messages[i - 1].no + 1));
  haus.reading(THREAD, null);
  flood(9_001, 9_001);
  assert.ok(thread.messages.length <= OPEN_MAX, `${thread.messages.length} held`);
  haus.close(THREAD);
  assert.equal(thread.messages.length, WINDOW_MAX);
});

test('threads that are not open hold so many messages together; the longest untouched keep their newest alone', async () => {
  const ids = Array.from({ length: 300 }, (_, i) => `0190bbbb-0000-7000-8000-${String(i).padStart(12, '0')}`);
  const { haus, Socket } = await live(undefined, authOk({ threads: ids.map((id) => row({ id })) }));
  const held = () => ids.map((id) => haus.thread(id)?.messages.length ?? 0);
  for (const id of ids) for (let i = 1; i <= 150; i += 1) Socket.last.push({ ...created(10 + i, 5 + i), s: id });
  const sum = held().reduce((all, count) => all + count, 0);
  assert.ok(sum <= SHELF_MAX + ids.length, `${sum} held`);
  assert.equal(haus.thread(ids[0]).last.no, 155);
  assert.deepEqual([held()[0], held().at(-1)], [1, 150]);
  // Opened again, its page is read; meanwhile it does not count, and closed it is the one touched last.
  haus.open(ids[0]);
  const messages = Array.from({ length: 50 }, (_, i) => stored(106 + i));
  Socket.last.reply('thread.open', { thread: row({ id: ids[0], seq: 160, no: 155 }), seq: 160, no: 155, messages, members: [] });
  await settle();
  assert.deepEqual([haus.thread(ids[0]).messages.length, haus.thread(ids[0]).hasOlder], [50, true]);
  haus.close(ids[0]);
  for (let i = 1; i <= 50; i += 1) Socket.last.push({ ...created(160 + i, 155 + i), s: ids[1] });
  assert.ok(held().reduce((all, count) => all + count, 0) <= SHELF_MAX + ids.length);
  assert.equal(held()[0], 50);
  // Gone threads count no more.
  for (const id of ids.slice(100)) Socket.last.push({ up: 'thread.removed', s: 'user', seq: 4 + ids.indexOf(id) - 100, d: { threadId: id, seq: 1_000, reason: 'left' } });
  assert.equal(haus.threads().length, 100);
  for (let i = 51; i <= 100; i += 1) Socket.last.push({ ...created(160 + i, 155 + i), s: ids[1] });
  assert.deepEqual([held().slice(0, 1), haus.thread(ids[1]).messages.length], [[50], 101]);
});

test('replaying what is held costs no sorting each time', async () => {
  const parts = await live();
  const { haus, Socket } = parts;
  haus.open(THREAD);
  Socket.last.reply('thread.open', { thread: row(), seq: 10, no: 5, messages: [], members: [] });
  await settle();
  Socket.last.push(created(11, 6));
  haus.reading(THREAD, 6);
  for (let i = 2; i <= 20_000; i += 1) Socket.last.push(created(10 + i, 5 + i));
  const thread = haus.thread(THREAD);
  assert.equal(thread.messages.length, 20_000);
  const started = performance.now();
  for (let i = 1; i <= 20_000; i += 1) thread.apply(created(20_010 + i, 5 + i, { rev: 2 }));
  assert.ok(performance.now() - started < 5_000);
  assert.ok(thread.messages.every(({ rev }, i) => rev === 2 && (i === 0 || thread.messages[i - 1].no < thread.messages[i].no)));
});
