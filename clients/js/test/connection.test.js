// The socket's life, seen through the whole client: hello, auth, reconnect, tokens, heartbeat, commands.

import assert from 'node:assert/strict';
import test from 'node:test';

import { THREAD, answer, authOk, client, created, hello, live, settle, tokenAnswer } from './support.js';

test('hello is answered with auth, and auth makes it live', async () => {
  const { haus, Socket, states } = await client();
  const socket = Socket.last;
  assert.equal(socket.url, 'ws://haus.test/v1/ws');
  assert.deepEqual(socket.protocols, ['haus.v1']);
  assert.equal(socket.sent.length, 0);
  socket.push(hello);
  const { d } = socket.command('auth');
  assert.match(d.token, /^access /);
  assert.equal(d.device.kind, 'web');
  assert.deepEqual(d.caps, ['typing']);
  assert.equal(d.resume, undefined);
  socket.reply('auth', authOk());
  await settle();
  assert.deepEqual(states, ['offline', 'catching-up', 'live']);
  assert.equal(haus.threads()[0].id, THREAD);
});

test('after a loss: spread, then back-off with jitter, then resume from every position', async () => {
  const { haus, Socket, clock, states } = await live();
  Socket.last.push(created(11, 6));
  Socket.last.drop(1006);
  await clock.advance(1499);
  assert.equal(Socket.all.length, 1);
  await clock.advance(1);
  assert.equal(Socket.all.length, 2);
  Socket.last.drop(1006);
  await clock.advance(249);
  assert.equal(Socket.all.length, 2);
  await clock.advance(1);
  Socket.last.push(hello);
  assert.deepEqual(Socket.last.command('auth').d.resume, { epoch: 'e1', streams: { user: 3, [THREAD]: 11 } });
  Socket.last.reply('auth', authOk());
  await settle();
  assert.equal(haus.state, 'catching-up');
  Socket.last.push({ up: 'resumed', d: { streams: { user: 3, [THREAD]: 11 }, reset: [], denied: [] } });
  assert.equal(haus.state, 'live');
  assert.deepEqual(states, ['offline', 'catching-up', 'live', 'offline', 'catching-up', 'live']);
});

test('a drain reconnects at once, and waits as long as it is told', async () => {
  const { Socket, clock } = await live();
  Socket.last.push({ up: 'reconnect', d: { afterMs: 500, reason: 'drain' } });
  Socket.last.drop(4000, '{"c":"drain"}');
  await clock.advance(0);
  assert.equal(Socket.all.length, 2);
  Socket.last.push(hello);
  Socket.last.reply('auth', authOk());
  await settle();
  Socket.last.drop(4029, '{"c":"too_many","ra":60000}');
  await clock.advance(59_999);
  assert.equal(Socket.all.length, 2);
  await clock.advance(1);
  assert.equal(Socket.all.length, 3);
});

test('a server that announces its end and stays is left', async () => {
  const { Socket, clock } = await live();
  const keep = setHeartbeats(Socket.last);
  Socket.last.push({ up: 'reconnect', d: { afterMs: 500 } });
  for (let ms = 0; ms < 2400; ms += 400) {
    await clock.advance(400);
    keep();
  }
  assert.equal(Socket.all.length, 1);
  await clock.advance(101);
  assert.equal(Socket.all.length, 2);
});

test('44xx stops for good; a nudge begins again', async () => {
  for (const code of [4400, 4409, 4426]) {
    const { haus, Socket, clock } = await live();
    const told = [];
    haus.on('state', (state) => told.push(state));
    Socket.last.drop(code, '{"c":"why"}');
    await clock.advance(120_000);
    assert.equal(Socket.all.length, 1, `${code}`);
    assert.deepEqual([told.at(-1).code, told.at(-1).reason], [code, 'why']);
    haus.nudge();
    await settle();
    assert.equal(Socket.all.length, 2, `${code}`);
  }
});

test('4403 is the end of the session, told once', async () => {
  const { haus, Socket, clock } = await live();
  const reasons = [];
  haus.on('signed-out', (reason) => reasons.push(reason));
  Socket.last.drop(4403, '{"c":"revoked"}');
  await clock.advance(120_000);
  assert.deepEqual([reasons, haus.profile, haus.state, Socket.all.length], [['revoked'], null, 'offline', 1]);
});

test('4401 takes a new token first; a token that is always refused ends it', async () => {
  const { haus, Socket, clock, calls } = await live();
  for (let i = 0; i < 3; i += 1) {
    const used = Socket.last.command('auth').d.token;
    Socket.last.drop(4401, '{"c":"unauthenticated"}');
    await clock.advance(10_000);
    Socket.last.push(hello);
    assert.notEqual(Socket.last.command('auth').d.token, used);
  }
  assert.equal(calls.filter((path) => path === '/v1/auth/refresh').length, 3);
  Socket.last.drop(4401);
  await clock.advance(120_000);
  assert.equal(Socket.all.length, 4);
  assert.equal(haus.state, 'offline');
});

test('a refused refresh signs out', async () => {
  let over = false;
  const { haus, Socket, clock } = await live({ http: () => (over ? answer(401, { code: 'unauthenticated' }) : answer(200, tokenAnswer())) });
  const reasons = [];
  haus.on('signed-out', (reason) => reasons.push(reason));
  over = true;
  Socket.last.drop(4401);
  await clock.advance(60_000);
  assert.deepEqual(reasons, ['expired']);
  assert.equal(Socket.all.length, 1);
  assert.deepEqual(haus.threads(), []);
});

test('auth.expiring renews the token in place', async () => {
  const { haus, Socket, calls } = await live();
  const before = Socket.last.command('auth').d.token;
  Socket.last.push({ up: 'auth.expiring', d: { inMs: 60_000 } });
  await settle();
  assert.equal(calls.at(-1), '/v1/auth/refresh');
  const again = Socket.last.commands('auth')[1].d;
  assert.notEqual(again.token, before);
  assert.equal(again.resume, undefined);
  Socket.last.reply('auth', { expiresAt: 'later' });
  await settle();
  assert.equal(haus.state, 'live');
  assert.equal(Socket.all.length, 1);
});

test('with the database down auth is repeated on the same socket', async () => {
  const { haus, Socket, clock } = await client();
  Socket.last.push(hello);
  Socket.last.refuse('auth', { code: 'unavailable', retryable: true, retryAfterMs: 800 });
  await clock.advance(799);
  assert.equal(Socket.last.commands('auth').length, 1);
  await clock.advance(1);
  assert.equal(Socket.last.commands('auth').length, 2);
  Socket.last.reply('auth', authOk());
  await settle();
  assert.equal(haus.state, 'live');
});

test('silence for two and a half heartbeats is a dead socket; any frame is a sign of life', async () => {
  const { Socket, clock, haus } = await live();
  await clock.advance(2000);
  Socket.last.push({ up: 'hb', d: { heads: {} } });
  await clock.advance(2499);
  assert.equal(haus.state, 'live');
  await clock.advance(1);
  assert.equal(haus.state, 'offline');
  assert.notEqual(Socket.all[0].closedWith, null);
});

test('a socket that says nothing is given up, and after three the reason is asked for over HTTP', async () => {
  const { Socket, clock, calls } = await client({
    http: (path) => (path === '/v1/ws/ticket' ? answer(503, { code: 'unavailable' }, { 'retry-after': '40' }) : answer(200, tokenAnswer())),
  });
  for (let i = 0; i < 2; i += 1) {
    await clock.advance(10_000);
    Socket.last.drop(1006);
    await clock.advance(1500);
  }
  await clock.advance(12_000);
  const opened = Socket.all.length;
  await clock.advance(30_000);
  assert.ok(calls.includes('/v1/ws/ticket'));
  assert.equal(Socket.all.length, opened);
});

test('a ticket that is given is used for auth', async () => {
  const { Socket, clock } = await client({
    http: (path) => (path === '/v1/ws/ticket' ? answer(201, { ticket: 'once', expiresInMs: 30_000 }) : answer(200, tokenAnswer())),
  });
  for (let i = 0; i < 3; i += 1) {
    Socket.last.drop(1006);
    await clock.advance(2000);
  }
  Socket.last.push(hello);
  assert.equal(Socket.last.command('auth').d.ticket, 'once');
  assert.equal(Socket.last.command('auth').d.token, undefined);
});

test('commands wait for a socket, and are repeated after a reconnect until there is a reply', async () => {
  const { haus, Socket, clock } = await client();
  const asked = haus.command('history', { threadId: THREAD, before: 5, limit: 1 });
  const once = haus.command('ping', {}, { repeat: false });
  await assert.rejects(once, { code: 'disconnected', retryable: true });
  Socket.last.push(hello);
  Socket.last.reply('auth', authOk());
  await settle();
  const first = Socket.last.command('history');
  const cut = haus.command('ping', {}, { repeat: false });
  Socket.last.drop(1006);
  await assert.rejects(cut, { code: 'disconnected' });
  await clock.advance(3000);
  Socket.last.push(hello);
  Socket.last.reply('auth', authOk());
  await settle();
  assert.deepEqual(Socket.last.command('history').d, first.d);
  Socket.last.reply('history', { messages: [], hasMore: false, seq: 10 });
  assert.deepEqual(await asked, { messages: [], hasMore: false, seq: 10 });
});

test('replies in any order, in batches, reach who asked; refusals are errors with their code', async () => {
  const { haus, Socket } = await live();
  const one = haus.command('ping', { n: 1 });
  const two = haus.command('ping', { n: 2 });
  const three = haus.command('ping', { n: 3 });
  const [a, b, c] = Socket.last.commands('ping').map(({ id }) => id);
  Socket.last.push([{ id: c, err: { code: 'rate_limited', message: 'slow', retryable: true, retryAfterMs: 9 } }, { id: b, ok: { n: 2 } }, { id: a, ok: { n: 1 } }]);
  assert.deepEqual(await Promise.all([one, two]), [{ n: 1 }, { n: 2 }]);
  await assert.rejects(three, { code: 'rate_limited', message: 'slow', retryAfterMs: 9 });
});

test('frames that are no JSON, replies nobody waits for and unknown updates are passed over', async () => {
  const { haus, Socket } = await live();
  Socket.last.onmessage({ data: '{broken' });
  Socket.last.push({ id: 999, ok: {} }, { up: 'something.new', d: {} }, { up: 'something.durable', s: THREAD, seq: 11, d: {} }, created(12, 6));
  assert.equal(haus.thread(THREAD).stream.pos, 12);
  assert.equal(haus.state, 'live');
});

function setHeartbeats(socket) {
  return () => socket.push({ up: 'hb', d: { heads: {} } });
}
