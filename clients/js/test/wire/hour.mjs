// A bad hour on the wire: the client against a running server, with a proxy between them that swallows answers, and the server
// stopped in its tracks (SIGSTOP). Exit 0 with a last line `PASS`, or 1 with what went wrong.
//
//   node --experimental-websocket hour.mjs URL PID E-MAIL-A PASSWORD-A E-MAIL-B PASSWORD-B
//
// A and B must share a thread.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';

import { Haus, MemoryStorage } from '../../haus.js';

const [url, pid, emailA, passwordA, emailB, passwordB] = process.argv.slice(2);
const upstream = new URL(url);
/** What is waited for comes within this, milliseconds; 15 s of it may be the deadline of a call. */
const SOON_MS = 40_000;

const LOOK_MS = 25;
/** Sleeps for a look; by how much too long, as the machine was busy with others. */
const look = async () => {
  const from = performance.now();
  await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  return Math.max(0, performance.now() - from - LOOK_MS);
};

const until = async (what, condition, withinMs = SOON_MS) => {
  for (let end = performance.now() + withinMs; performance.now() < end; end += await look()) {
    if (await condition()) return;
  }
  throw new Error(`waited in vain until ${what}`);
};

/** Whether every thread of the server stands still: on a busy machine some go on for a while after SIGSTOP. */
const isStopped = () => readdirSync(`/proc/${pid}/task`).every((task) => {
  const stat = readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T');
});

/** Waits until this process has its turns in time, so that nothing that came is still to be heard. */
const quiet = async () => {
  for (let calm = 0, looks = 0; calm < 20 && looks < 1_000; looks += 1) calm = (await look()) < LOOK_MS ? calm + 1 : 0;
};

/** Passes everything on, except answers to paths in `swallowed`, which are asked for and never given. */
const swallowed = new Set();
let swallowedCount = 0;
const proxy = http.createServer((request, response) => {
  const asked = http.request({ host: upstream.hostname, port: upstream.port, path: request.url, method: request.method, headers: request.headers }, (answer) => {
    if (swallowed.has(request.url)) {
      swallowedCount += 1;
      answer.resume();
    } else {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    }
  });
  asked.on('error', () => response.destroy());
  request.pipe(asked);
});
proxy.on('upgrade', (request, socket, head) => {
  const lines = request.rawHeaders.reduce((text, part, i) => text + part + (i % 2 ? '\r\n' : ': '), `${request.method} ${request.url} HTTP/1.1\r\n`);
  const other = net.connect(upstream.port, upstream.hostname, () => {
    other.write(`${lines}\r\n`);
    other.write(head);
    socket.pipe(other).pipe(socket);
  });
  for (const one of [socket, other]) one.on('error', () => (socket.destroy(), other.destroy()));
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
const through = `http://127.0.0.1:${proxy.address().port}`;

const opened = [];
function instance(storage, more = {}) {
  const haus = new Haus({ url: through, storage, kind: 'web', ...more });
  haus.ends = [];
  haus.on('signed-out', (reason) => haus.ends.push(reason));
  opened.push(haus);
  return haus;
}
const isLive = (haus) => () => haus.state === 'live';
const expire = (storage) => {
  const record = JSON.parse(storage.getItem('haus.session'));
  storage.setItem('haus.session', JSON.stringify({ ...record, accessEndsAt: 0 }));
};

let batch = 0;
const words = (count) => Array.from({ length: count }, (_, i) => `${process.pid} ${(batch += 1)} ${i}`);
/** These are in the log of the thread once each, in this order, sent by this profile. */
async function arrivedOnce(reader, threadId, contents, senderId) {
  const page = () => reader.request('GET', `/v1/threads/${threadId}/messages?limit=100`);
  const found = ({ messages }) => messages.filter(({ content }) => contents.includes(content)).sort((a, b) => a.no - b.no);
  await until(`${contents} are there`, async () => found(await page()).length >= contents.length);
  const all = found(await page());
  assert.deepEqual(all.map(({ content }) => content), contents);
  assert.ok(all.every((message) => message.senderId === senderId));
}

const storageA = new MemoryStorage();
const witness = instance(new MemoryStorage());
await witness.login(emailA, passwordA);
await until('the witness is live', isLive(witness));
const A = witness.profile.id;
const thread = witness.threads().find(({ row }) => row.canSend && row.type === 'GROUP').id;

const cases = {
  async 'a lost refresh answer: the spent token is answered again, and what is unsent arrives'() {
    const first = instance(storageA);
    await first.login(emailA, passwordA);
    await until('it is live', isLive(first));
    first.disconnect();
    const contents = words(5);
    const items = contents.map((content) => first.send(thread, content));
    expire(storageA);
    const spent = JSON.parse(storageA.getItem('haus.session')).refreshToken;
    swallowed.add('/v1/auth/refresh');
    const second = instance(storageA);
    second.restore();
    await until('the answer was swallowed', () => swallowedCount > 0);
    assert.equal(JSON.parse(storageA.getItem('haus.session')).refreshToken, spent);
    const started = Date.now();
    // Meanwhile nothing hangs: a log-in on another storage, a log-out.
    const other = instance(new MemoryStorage());
    await other.login(emailB, passwordB);
    assert.equal(await other.logout(), true);
    assert.ok(Date.now() - started < 10_000);
    await until('it is told', () => second.state === 'offline');
    swallowed.clear();
    await until('it is live again', isLive(second));
    assert.notEqual(JSON.parse(storageA.getItem('haus.session')).refreshToken, spent);
    await arrivedOnce(witness, thread, contents, A);
    assert.deepEqual(second.ends, []);
    assert.equal(items.length, 5);
    second.disconnect();
  },

  async 'two instances on one storage, both with a spent access token'() {
    expire(storageA);
    const both = [instance(storageA), instance(storageA)];
    for (const haus of both) assert.ok(haus.restore());
    await until('both are live', () => both.every((haus) => haus.state === 'live'));
    expire(storageA);
    await Promise.all(both.map((haus) => haus.request('GET', '/v1/me')));
    assert.deepEqual(both.map(({ ends }) => ends), [[], []]);
    for (const haus of both) haus.disconnect();
  },

  async 'a session revoked with messages unsent: the next log-in sends them, once, in order'() {
    const haus = instance(storageA);
    haus.restore();
    await until('it is live', isLive(haus));
    const { sessionId } = JSON.parse(storageA.getItem('haus.session'));
    haus.disconnect();
    const contents = words(5);
    const items = contents.map((content) => haus.send(thread, content));
    haus.setDraft(thread, 'half a sentence');
    await witness.request('DELETE', `/v1/sessions/${sessionId}`);
    haus.nudge();
    await until('it is told that it is over', () => haus.ends.length > 0);
    assert.ok(['revoked', 'expired'].includes(haus.ends[0]), haus.ends[0]);
    await haus.login(emailA, passwordA);
    assert.equal(haus.draft(thread), 'half a sentence');
    await until('all are sent', () => items.every(({ state }) => state === 'sent'));
    await arrivedOnce(witness, thread, contents, A);
    haus.disconnect();
  },

  async 'another person on the same storage gets nothing, and who was there ends'() {
    const mine = instance(storageA);
    mine.restore();
    await until('it is live', isLive(mine));
    mine.disconnect();
    const contents = words(3);
    for (const content of contents) mine.send(thread, content);
    mine.setDraft(thread, 'secret');
    const theirs = instance(storageA);
    await theirs.login(emailB, passwordB);
    await until('B is live', isLive(theirs));
    mine.nudge();
    assert.deepEqual(mine.ends, ['taken-over']);
    assert.deepEqual([theirs.pending(thread), theirs.draft(thread)], [[], '']);
    const open = theirs.threads().some(({ id }) => id === thread) ? await theirs.open(thread) : { messages: [] };
    assert.ok(!open.messages.some(({ content }) => contents.includes(content)));
    await theirs.logout();
    const again = instance(storageA);
    await again.login(emailA, passwordA);
    assert.equal(again.draft(thread), 'secret');
    await arrivedOnce(witness, thread, contents, A);
    again.disconnect();
  },

  async 'what is too large is refused with a reason, and the socket lives on'() {
    assert.throws(() => witness.send(thread, 'x'.repeat(witness.limits.contentChars + 1)), { code: 'too_large' });
    await assert.rejects(witness.command('profiles.get', { ids: ['x'.repeat(witness.limits.frameBytes)] }), { code: 'too_large' });
    const [content] = words(1);
    const full = content + '😀'.repeat(witness.limits.contentChars - content.length);
    const item = witness.send(thread, full);
    const cut = witness.send(thread, `${content} cut \ud83d`);
    await until('both are sent', () => item.state === 'sent' && cut.state === 'sent');
    await arrivedOnce(witness, thread, [full, `${content} cut \ufffd`], A);
    assert.equal(witness.state, 'live');
  },

  async 'a server that hangs is told within five seconds of waking, and what is sent meanwhile arrives once'() {
    const [content] = words(1);
    await quiet();
    process.kill(Number(pid), 'SIGSTOP');
    try {
      await until('the server stands still', isStopped);
      witness.wake();
      await until('it says so', () => witness.state !== 'live', 5_000);
      witness.send(thread, content);
    } finally {
      process.kill(Number(pid), 'SIGCONT');
    }
    await until('it is live', isLive(witness));
    await arrivedOnce(witness, thread, [content], A);
  },

  async 'a clock that is set by an hour, either way, leaves nothing stuck'() {
    let setBy = 0;
    const clock = {
      now: () => Date.now() + setBy,
      mono: () => performance.now(),
      setTimeout: (task, ms) => setTimeout(task, ms),
      clearTimeout: (timer) => clearTimeout(timer),
    };
    const haus = instance(new MemoryStorage(), { clock });
    await haus.login(emailA, passwordA);
    for (const hours of [1, -1, 0]) {
      setBy = hours * 3_600_000;
      haus.wake();
      await until('it is live', isLive(haus));
      const contents = words(3);
      for (const content of contents) haus.send(thread, content);
      await arrivedOnce(haus, thread, contents, A);
    }
    assert.deepEqual(haus.ends, []);
  },
};

let failed = false;
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (error) {
    failed = true;
    console.log(`NOT OK ${name}: ${error.stack}`);
  }
}
console.log(failed ? 'FAIL' : 'PASS');
process.exit(failed ? 1 : 0);
