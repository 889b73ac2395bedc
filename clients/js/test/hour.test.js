// A bad hour, seen through the whole client: sessions that end, other people on the same storage, frames that are too large,
// clocks that jump, devices that sleep, storages that fail.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Haus } from '../haus.js';
import { MemoryStorage } from '../storage.js';
import { ME, OTHER, THREAD, THREAD_2, answer, authOk, client, created, hello, live, row, settle, tokenAnswer } from './support.js';

const sends = (Socket) => Socket.all.flatMap((socket) => socket.commands('message.send')).map(({ d }) => d);
const texts = (Socket) => sends(Socket).map(({ content }) => content);
const accepted = (no) => ({ messageId: `m${no}`, seq: no + 5, no, sentAt: '', dup: false });

/** Answers every send there is, as the server does: reply, then update. */
async function acceptAll(socket) {
  for (let no = 6, told = -1; told !== socket.commands('message.send').length; ) {
    told = socket.commands('message.send').length;
    const { id, d } = socket.command('message.send') ?? {};
    if (id === undefined) return;
    socket.push({ id, ok: accepted(no) }, created(no + 5, no, { senderId: ME, nonce: d.nonce, content: d.content }));
    no += 1;
    await settle();
  }
}

async function goLive({ Socket }, ok = authOk(), greeting = hello) {
  await settle();
  Socket.last.push(greeting);
  Socket.last.reply('auth', ok);
  await settle();
}

/** Log-ins by address: `b@…` is another person. */
const people = (path, { body }) => {
  if (path !== '/v1/auth/login') return undefined;
  const other = JSON.parse(body).email.startsWith('b');
  return answer(200, tokenAnswer(other ? { profile: { id: OTHER, displayName: 'Other' }, sessionId: 'other' } : {}));
};

test('what is unsent when a session is revoked goes out at the next log-in of that person, once, in order', async () => {
  const parts = await live({ http: people });
  const { haus, Socket, clock } = parts;
  Socket.last.drop(1006);
  const items = ['1', '2', '3', '4', '5'].map((content) => haus.send(THREAD, content));
  haus.setDraft(THREAD, 'half a');
  await clock.advance(5_000);
  Socket.last.push(hello);
  Socket.last.refuse('auth', { code: 'forbidden' });
  assert.equal(haus.profile, null);
  assert.throws(() => haus.send(THREAD, 'nobody'), { code: 'signed_out' });
  assert.equal(haus.draft(THREAD), '');

  await haus.login('b@haus.test', 'secret');
  await goLive(parts, authOk({ profile: { id: OTHER, displayName: 'Other' } }));
  assert.deepEqual([texts(Socket), haus.pending(THREAD), haus.draft(THREAD)], [[], [], '']);

  await haus.login('a@haus.test', 'secret');
  await goLive(parts);
  assert.equal(haus.draft(THREAD), 'half a');
  await acceptAll(Socket.last);
  assert.deepEqual(texts(Socket), ['1', '2', '3', '4', '5']);
  assert.deepEqual(haus.pending(THREAD), []);
  assert.equal(new Set(sends(Socket).map(({ nonce }) => nonce)).size, 5);
  assert.equal(items.length, 5);
});

test('the objects of unsent messages end as sent, also over the end of a session and when the update comes first', async () => {
  const parts = await live({ http: people });
  const { haus, Socket } = parts;
  const before = haus.send(THREAD, 'before');
  Socket.last.drop(4403);
  assert.equal(before.state, 'queued');
  await haus.login('a@haus.test', 'secret');
  await goLive(parts);
  const after = haus.send(THREAD, 'after');
  Socket.last.push(created(11, 6, { senderId: ME, nonce: before.nonce, content: 'before' }));
  Socket.last.push({ id: Socket.last.command('message.send').id, ok: accepted(6) });
  await acceptAll(Socket.last);
  assert.deepEqual([before.state, after.state, before.ok.no], ['sent', 'sent', 6]);
});

test('a log-out by wish forgets what is unsent, in every tab; keepUnsent does not', async () => {
  for (const keepUnsent of [false, true]) {
    const storage = new MemoryStorage();
    const one = await client({ storage });
    one.haus.send(THREAD, 'from one');
    const two = await client({ storage });
    two.haus.send(THREAD, 'from two');
    one.haus.setDraft(THREAD, 'draft');
    await two.haus.logout({ keepUnsent });
    const left = Array.from({ length: storage.length }, (_, i) => storage.key(i)).filter((key) => /send|draft/.test(key));
    assert.equal(left.length, keepUnsent ? 3 : 0);
    assert.throws(() => one.haus.send(THREAD, 'x'), { code: 'signed_out' });
  }
});

test('what a log-out would forget is counted: unsent and failed messages, and drafts, of every tab', async () => {
  const storage = new MemoryStorage();
  const { haus, Socket } = await live({ storage });
  assert.deepEqual(haus.unsent, { messages: 0, drafts: 0 });
  haus.send(THREAD, 'refused');
  await settle();
  Socket.last.refuse('message.send', { code: 'forbidden' });
  await settle();
  haus.send(THREAD, 'on its way');
  haus.setDraft(THREAD, 'begun');
  haus.setDraft(THREAD_2, '  \n');
  assert.deepEqual(haus.unsent, { messages: 2, drafts: 1 });
  const other = new Haus({ url: 'http://haus.test', storage, WebSocket: Socket, fetch: async () => answer(200, null), locks: undefined });
  other.restore();
  other.setDraft(THREAD_2, 'in another tab');
  assert.deepEqual(haus.unsent, { messages: 2, drafts: 2 });
  other.disconnect();
  await acceptAll(Socket.all[0]);
  assert.deepEqual(haus.unsent, { messages: 1, drafts: 2 });
  haus.logout();
  assert.deepEqual(haus.unsent, { messages: 0, drafts: 0 });
});

test('an instance whose storage another person takes over ends itself and sends nothing more', async () => {
  for (const notices of [(haus) => haus.wake(), (haus) => haus.nudge(), (_, socket) => socket.push({ up: 'hb', d: {} }), (haus) => assert.throws(() => haus.send(THREAD, 'x'), { code: 'signed_out' })]) {
    const storage = new MemoryStorage();
    const mine = await live({ storage, http: people });
    const reasons = [];
    mine.haus.on('signed-out', (reason) => reasons.push(reason));
    mine.Socket.last.drop(1006);
    mine.haus.send(THREAD, 'mine');
    await mine.clock.advance(4_000);
    const theirs = await client({ storage, http: people });
    await theirs.haus.login('b@haus.test', 'secret');
    await goLive(theirs, authOk({ profile: { id: OTHER, displayName: 'Other' } }));
    notices(mine.haus, mine.Socket.last);
    await mine.clock.advance(60_000);
    assert.deepEqual([reasons, texts(mine.Socket), texts(theirs.Socket)], [['taken-over'], [], []]);
    assert.equal(mine.haus.state, 'offline');
    assert.equal(theirs.haus.profile.id, OTHER);
  }
});

test('a reply to auth of another person is not believed', async () => {
  const parts = await client();
  parts.haus.send(THREAD, 'mine');
  await goLive(parts, authOk({ profile: { id: OTHER, displayName: 'Other' } }));
  assert.deepEqual([texts(parts.Socket), parts.haus.state], [[], 'offline']);
});

test('what the server can never take is refused at once, with the reason', async () => {
  const small = { ...hello, d: { ...hello.d, limits: { frameBytes: 2_000, contentChars: 1_000 } } };
  const parts = await client();
  assert.throws(() => parts.haus.send(THREAD, 'x'.repeat(4_001)), { code: 'too_large' }, 'before hello: as the protocol says');
  parts.Socket.last.push(small);
  parts.Socket.last.reply('auth', authOk());
  await settle();
  const { haus, Socket } = parts;
  assert.throws(() => haus.send(THREAD, 'x'.repeat(1_001)), { code: 'too_large', details: { chars: 1_001, contentChars: 1_000 } });
  assert.throws(() => haus.send(THREAD, '😀'.repeat(600)), { code: 'too_large' }, 'bytes');
  assert.throws(() => haus.send(THREAD, { content: 'x', mediaUrl: 'y'.repeat(2_000) }), { code: 'too_large' });
  await assert.rejects(haus.command('profiles.get', { ids: ['x'.repeat(2_000)] }), { code: 'too_large', retryable: false });
  assert.deepEqual([haus.pending(THREAD), haus.state], [[], 'live']);
  haus.send(THREAD, '😀'.repeat(400));
  haus.send(THREAD_2, 'x'.repeat(1_000));
  assert.equal(sends(Socket).length, 2);
});

test('1009 fails what was under way, and backs off more each time', async () => {
  const parts = await live({ random: () => 0 });
  const { haus, Socket, clock } = parts;
  const waits = [];
  for (let i = 0; i < 3; i += 1) {
    const item = haus.send(THREAD, `large ${i}`);
    const asked = haus.command('history', { threadId: THREAD, before: 1, limit: 1 });
    Socket.last.drop(1009);
    await assert.rejects(asked, { code: 'too_large' });
    assert.deepEqual([item.state, item.error.code], ['failed', 'too_large']);
    const opened = Socket.all.length;
    let waited = 0;
    for (; Socket.all.length === opened; waited += 100) await clock.advance(100);
    waits.push(waited);
    await goLive(parts);
  }
  assert.ok(waits[0] >= 900 && waits[1] >= 2 * waits[0] - 200 && waits[2] >= 2 * waits[1] - 200, `${waits}`);
  assert.equal(sends(Socket).length, 3);
});

test('a resume that fits into no frame is split, and everything is asked for', async () => {
  const ids = Array.from({ length: 400 }, (_, i) => `0190cccc-0000-7000-8000-${String(i).padStart(12, '0')}`);
  const rows = ids.map((id) => row({ id }));
  const parts = await live(undefined, authOk({ threads: rows }));
  const small = { ...hello, d: { ...hello.d, limits: { frameBytes: 4_096 } } };
  parts.Socket.last.drop(1006);
  await parts.clock.advance(3_000);
  const socket = parts.Socket.last;
  socket.push(small);
  socket.reply('auth', authOk({ threads: rows }));
  for (let i = 0; i < 50; i += 1) await parts.clock.advance(20);
  assert.ok(socket.sent.every((frame) => JSON.stringify(frame).length <= 4_096));
  const asked = [socket.command('auth').d.resume, ...socket.commands('sync').map(({ d }) => d)].flatMap(({ streams }) => Object.keys(streams));
  assert.deepEqual([asked.length, new Set(asked).size], [401, 401]);
  assert.equal(parts.haus.state, 'catching-up');
});

test('something that takes smaller frames than hello said gets smaller ones', async () => {
  const ids = Array.from({ length: 100 }, (_, i) => `0190cccc-0000-7000-8000-${String(i).padStart(12, '0')}`);
  const parts = await live(undefined, authOk({ threads: ids.map((id) => row({ id })) }));
  parts.Socket.last.drop(1006);
  const named = [];
  for (let i = 0; i < 4; i += 1) {
    await parts.clock.advance(40_000);
    parts.Socket.last.push(hello);
    named.push(Object.keys(parts.Socket.last.command('auth').d.resume.streams).length);
    parts.Socket.last.drop(1009);
  }
  assert.deepEqual(named, [101, 51, 26, 13]);
});

test('after waking a dead socket is left within five seconds, and a living one is kept', async () => {
  const { haus, Socket, clock } = await client();
  const slow = { ...hello, d: { ...hello.d, heartbeatMs: 25_000 } };
  await goLive({ Socket }, authOk(), slow);
  haus.wake();
  assert.equal(Socket.last.sent.at(-1).cmd, 'ping');
  Socket.last.reply('ping', {});
  await clock.advance(2_000);
  haus.wake();
  Socket.last.push({ up: 'hb', d: {} });
  await clock.advance(2_000);
  assert.deepEqual([haus.state, Socket.all.length], ['live', 1]);
  haus.wake();
  await clock.advance(2_000);
  Socket.last.push({ up: 'hb', d: {} });
  await clock.advance(2_000);
  assert.deepEqual([haus.state, Socket.all.length], ['live', 1], 'a slow one that still gives is no dead one');
  haus.wake();
  Socket.last.push({ up: 'hb', d: {} });
  await clock.advance(3_000);
  assert.deepEqual([haus.state, Socket.all.length], ['offline', 2], 'what was on its way before proves nothing');
  await goLive({ Socket }, authOk(), slow);
  Socket.last.push({ up: 'resumed', d: { streams: { user: 3, [THREAD]: 10 } } });
  haus.wake();
  haus.wake();
  await clock.advance(3_000);
  assert.deepEqual([haus.state, Socket.all.length], ['offline', 3]);
  await goLive({ Socket });
  Socket.last.push({ up: 'resumed', d: { streams: { user: 3, [THREAD]: 10 } } });
  assert.equal(haus.state, 'live');
});

test('waking while waiting to try again, or while a dead socket opens, tries at once', async () => {
  const { haus, Socket, clock } = await live({ random: () => 0.99 });
  Socket.last.drop(1006);
  haus.wake();
  await settle();
  assert.equal(Socket.all.length, 2);
  haus.wake();
  await clock.advance(3_000);
  assert.equal(Socket.all.length, 3);
});

test('a sleep is noticed by the clocks alone; a clock that is set leaves nothing stuck', async () => {
  const asleep = await live();
  await asleep.clock.advance(500);
  asleep.clock.jump(3_600_000);
  await asleep.clock.advance(2_000);
  assert.equal(asleep.Socket.last.sent.at(-1).cmd, 'ping');

  for (const ms of [-3_600_000, 3_600_000]) {
    const parts = await live();
    const { haus, Socket, clock } = parts;
    const alive = async (seconds) => {
      for (let i = 0; i < seconds; i += 1) {
        await clock.advance(1_000);
        Socket.last.push({ up: 'hb', d: {} });
      }
    };
    haus.send(THREAD, 'paced');
    Socket.last.refuse('message.send', { code: 'rate_limited', retryable: true, retryAfterMs: 4_000 });
    Socket.last.push({ up: 'typing', d: { threadId: THREAD, profileIds: [OTHER] } });
    clock.jump(ms);
    await alive(5);
    assert.deepEqual([haus.state, Socket.all.length, texts(Socket)], ['live', 1, ['paced', 'paced']], `${ms}`);
    assert.deepEqual(haus.typists(THREAD), [OTHER]);
    await alive(3);
    assert.deepEqual(haus.typists(THREAD), []);
    Socket.last.drop(1006);
    clock.jump(-2 * ms);
    await clock.advance(3_000);
    assert.equal(Socket.all.length, 2, `${ms}`);
    await goLive(parts);
    await clock.advance(2_500);
    assert.equal(haus.state, 'offline', 'silence is noticed as before');
  }
});

test('a command without a reply on a living socket fails in time; a send is repeated under its nonce', async () => {
  const { haus, Socket, clock } = await live();
  const asked = haus.command('ping', {}).catch((error) => error);
  const item = haus.send(THREAD, 'lost in the server');
  for (let i = 0; i < 45; i += 1) {
    await clock.advance(1_000);
    Socket.last.push({ up: 'hb', d: {} });
  }
  const error = await asked;
  assert.deepEqual([error.code, error.retryable], ['timeout', true]);
  assert.deepEqual(sends(Socket).map(({ nonce }) => nonce), [item.nonce, item.nonce]);
});

test('with a storage that forbids everything it works from memory, and says so once', async () => {
  const forbidden = new Proxy({}, { get: () => { throw new DOMException('no', 'SecurityError'); } });
  const parts = await live({ storage: forbidden, http: people });
  const { haus, Socket } = parts;
  haus.send(THREAD, 'kept in memory');
  Socket.last.drop(4403);
  assert.equal(haus.profile, null);
  await haus.login('a@haus.test', 'secret');
  await goLive(parts);
  assert.deepEqual(texts(Socket), ['kept in memory', 'kept in memory']);
  assert.deepEqual(parts.troubles, ['This browser keeps nothing right now: what is unsent is lost when the page closes.']);
});

test('a storage that fills up while one writes is told, and what is written goes out', async () => {
  const storage = new MemoryStorage();
  const { haus, Socket } = await live({ storage });
  const told = [];
  haus.on('storage', (error) => told.push(error.code));
  storage.setItem = () => {
    throw new DOMException('full', 'QuotaExceededError');
  };
  haus.setDraft(THREAD, 'a');
  haus.send(THREAD, 'b');
  haus.send(THREAD, 'cut \ud83d');
  await acceptAll(Socket.last);
  await settle();
  assert.deepEqual([told, haus.draft(THREAD), texts(Socket)], [['storage'], 'a', ['b', 'cut \ufffd']]);
});

test('letting go leaves no timer and no listener', async (t) => {
  const counts = new Map();
  globalThis.addEventListener = (name) => counts.set(name, (counts.get(name) ?? 0) + 1);
  globalThis.removeEventListener = (name) => counts.set(name, counts.get(name) - 1);
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  const { haus, clock } = await live();
  assert.equal(counts.get('online'), 1);
  assert.equal(counts.get('storage'), 1);
  haus.disconnect();
  assert.deepEqual(new Set(counts.values()), new Set([0]));
  await clock.advance(100);
  assert.equal(clock.timers, 0);
});

test('a catch-up whose end never comes is given up with its socket', async () => {
  const { haus, Socket, clock } = await live();
  Socket.last.push(created(13, 8));
  const beat = async (seconds) => {
    for (let i = 0; i < seconds; i += 1) {
      await clock.advance(1_000);
      Socket.last.push({ up: 'hb', d: {} });
    }
  };
  await beat(40);
  Socket.last.push(created(11, 6));
  await beat(40);
  assert.deepEqual([haus.state, Socket.all.length], ['catching-up', 1], 'something came in between');
  await beat(60);
  assert.ok(Socket.all.length > 1);
});

test('waking does not press a server that asked to be left alone; a person may', async () => {
  const { haus, Socket, clock } = await live();
  Socket.last.drop(4029, '{"c":"too_many","ra":60000}');
  await clock.advance(1_000);
  haus.wake();
  await clock.advance(1_000);
  assert.equal(Socket.all.length, 1);
  haus.nudge();
  await settle();
  assert.equal(Socket.all.length, 2);
});
