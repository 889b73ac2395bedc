import assert from 'node:assert/strict';
import test from 'node:test';

import { HausError } from '../errors.js';
import { QUEUE_MAX, SendQueue } from '../queue.js';
import { Keep, MemoryStorage } from '../storage.js';
import { TestClock, settle } from './support.js';

function queue(storage = new MemoryStorage()) {
  const clock = new TestClock();
  const sent = [];
  const transmit = (item) => new Promise((resolve, reject) => sent.push({ item, resolve, reject }));
  const position = { of: 0 };
  const made = new SendQueue({ storage: new Keep(storage, () => {}), transmit, changed: () => {}, position: () => position.of, clock, random: () => 0.5 });
  made.load('me');
  return { made, sent, clock, storage, position };
}

const texts = (items) => items.map(({ body }) => body.content);
const ok = (no) => ({ messageId: `m${no}`, seq: no + 10, no, sentAt: '2026-01-01T00:00:00.000Z' });

test('one send of a thread is under way at a time, in order; threads do not wait for each other', async () => {
  const { made, sent } = queue();
  for (const content of ['a', 'b', 'c']) made.add('t1', { content });
  made.add('t2', { content: 'x' });
  assert.equal(sent.length, 0);
  made.setLive(true);
  assert.deepEqual(texts(sent.map(({ item }) => item)), ['a', 'x']);
  sent[0].resolve(ok(1));
  await settle();
  assert.deepEqual(texts(sent.map(({ item }) => item)), ['a', 'x', 'b']);
});

test('a cut send is repeated under its nonce once the connection is back', async () => {
  const { made, sent } = queue();
  made.setLive(true);
  const item = made.add('t1', { content: 'a' });
  made.setLive(false);
  sent[0].reject(new HausError('disconnected'));
  await settle();
  assert.equal(item.state, 'queued');
  assert.equal(sent.length, 1);
  made.setLive(true);
  assert.equal(sent[1].item.nonce, item.nonce);
  assert.match(item.nonce, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test('a refusal for now is repeated after its time, and what is behind it waits', async () => {
  const { made, sent, clock } = queue();
  made.setLive(true);
  made.add('t1', { content: 'a' });
  made.add('t1', { content: 'b' });
  sent[0].reject(new HausError('rate_limited', '', { retryAfterMs: 4000 }));
  await clock.advance(3900);
  assert.equal(sent.length, 1);
  await clock.advance(200);
  assert.deepEqual(texts(sent.map(({ item }) => item)), ['a', 'a']);
});

test('a refusal for good fails that message alone; it can be tried again or dropped', async () => {
  const { made, sent, storage } = queue();
  made.setLive(true);
  const first = made.add('t1', { content: 'a' });
  made.add('t1', { content: 'b' });
  sent[0].reject(new HausError('read_only', 'no'));
  await settle();
  assert.equal(first.state, 'failed');
  assert.equal(first.error.code, 'read_only');
  assert.deepEqual(texts(sent.map(({ item }) => item)), ['a', 'b']);
  sent[1].resolve(ok(1));
  await settle();
  made.retry(first.nonce);
  assert.equal(sent[2].item.nonce, first.nonce);
  sent[2].reject(new HausError('read_only', 'no'));
  await settle();
  made.discard(first.nonce);
  assert.deepEqual(texts(made.of('t1')), ['b']);
  assert.equal(storage.length, 0);
});

test('an acknowledged message is shown until its update is applied, but is not kept for a reload', async () => {
  const { made, sent, storage } = queue();
  made.setLive(true);
  made.add('t1', { content: 'a' });
  assert.equal(storage.length, 1);
  sent[0].resolve(ok(7));
  await settle();
  assert.equal(storage.length, 0);
  assert.equal(made.of('t1')[0].state, 'sent');
  made.settle('t1', 16);
  assert.equal(made.of('t1').length, 1);
  made.settle('t1', 17);
  assert.equal(made.of('t1').length, 0);
});

test('one whose update is applied already goes with its reply (another tab had sent it)', async () => {
  const { made, sent, position } = queue();
  made.setLive(true);
  made.add('t1', { content: 'a' });
  position.of = 17;
  sent[0].resolve({ ...ok(7), dup: true });
  await settle();
  assert.equal(made.of('t1').length, 0);
});

test('the update may come before the reply', async () => {
  const { made, sent } = queue();
  made.setLive(true);
  const item = made.add('t1', { content: 'a' });
  made.add('t1', { content: 'b' });
  made.confirm(item.nonce);
  assert.deepEqual(texts(made.of('t1')), ['b']);
  sent[0].resolve(ok(7));
  await settle();
  assert.deepEqual(texts(made.of('t1')), ['b']);
  assert.equal(sent.at(-1).item.body.content, 'b');
});

test('what is unsent survives a reload, in order, per person', async () => {
  const { made, sent, storage } = queue();
  for (const content of ['a', 'b', 'c', 'd']) made.add('t1', { content });
  made.setLive(true);
  sent[0].resolve(ok(1));
  await settle();
  sent[1].reject(new HausError('too_large', 'too long'));
  await settle();
  const again = queue(storage);
  assert.deepEqual(texts(again.made.of('t1')), ['b', 'c', 'd']);
  assert.deepEqual(again.made.of('t1').map(({ state }) => state), ['failed', 'queued', 'queued']);
  assert.equal(again.made.of('t1')[0].error.code, 'too_large');
  const other = new SendQueue({ storage: new Keep(storage, () => {}), transmit: () => {}, changed: () => {}, clock: new TestClock(), random: () => 0 });
  other.load('somebody else');
  assert.equal(other.of('t1').length, 0);
});

test('there is a limit', () => {
  const { made } = queue();
  for (let i = 0; i < QUEUE_MAX; i += 1) made.add('t1', { content: `${i}` });
  assert.throws(() => made.add('t1', { content: 'one more' }), { code: 'overloaded' });
});
