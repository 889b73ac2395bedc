import assert from 'node:assert/strict';
import test from 'node:test';

import { HTTP_DEADLINE_MS, Http } from '../http.js';
import { LOCK_WAIT_MS, Session } from '../session.js';
import { Keep, MemoryStorage } from '../storage.js';
import { TestClock, answer, settle, tokenAnswer } from './support.js';

/** The server's side of rotation: each refresh token is good once; a second use ends the session. */
function rotatingServer() {
  const server = { valid: null, refreshes: 0, down: false, ended: false };
  const issue = () => {
    const given = tokenAnswer();
    server.valid = given;
    return answer(200, given);
  };
  server.fetch = async (url, { body, headers }) => {
    await new Promise((resolve) => setImmediate(resolve));
    if (server.down) throw new TypeError('network');
    const path = new URL(url).pathname;
    if (path === '/v1/auth/login') return issue();
    if (path === '/v1/auth/refresh') {
      server.refreshes += 1;
      server.ended ||= JSON.parse(body).refreshToken !== server.valid.refreshToken;
      return server.ended ? answer(401, { code: 'unauthenticated' }) : issue();
    }
    return headers.authorization === `Bearer ${server.valid.accessToken}` && !server.ended
      ? answer(200, { path }) : answer(401, { code: 'unauthenticated', detail: 'expired' });
  };
  return server;
}

function session(server, storage = new MemoryStorage(), clock = new TestClock(), locks = undefined) {
  const ends = [];
  const http = new Http({ url: 'http://haus.test/', fetch: server.fetch, clock });
  const made = new Session({ http, storage: new Keep(storage, () => {}), locks, clock, onEnd: (reason) => ends.push(reason) });
  return { made, ends, storage, clock };
}

test('many callers share one rotation', async () => {
  const server = rotatingServer();
  const { made, clock } = session(server);
  await made.login('a', 'b');
  await clock.advance(599_000);
  const got = await Promise.all([made.token(), made.token(), made.refresh(), made.request('GET', '/v1/me')]);
  assert.equal(server.refreshes, 1);
  assert.equal(new Set(got.slice(0, 3)).size, 1);
  assert.deepEqual(got[3], { path: '/v1/me' });
});

test('a token that is refused is renewed once and the call repeated', async () => {
  const server = rotatingServer();
  const { made } = session(server);
  await made.login('a', 'b');
  server.valid = { ...server.valid, accessToken: 'another' };
  assert.deepEqual(await made.request('GET', '/v1/me'), { path: '/v1/me' });
  assert.equal(server.refreshes, 1);
});

test('two tabs do not use one refresh token twice', async () => {
  const server = rotatingServer();
  const storage = new MemoryStorage();
  const clock = new TestClock();
  let tail = Promise.resolve();
  const locks = { request: (_, __, task) => (tail = tail.then(task, task)) };
  const one = session(server, storage, clock, locks);
  await one.made.login('a', 'b');
  const two = session(server, storage, clock, locks);
  assert.equal(two.made.restore(), true);
  await clock.advance(599_000);
  const [first, second] = await Promise.all([one.made.token(), two.made.token()]);
  assert.equal(first, second);
  assert.equal(server.refreshes, 1);
  assert.deepEqual([...one.ends, ...two.ends], []);
});

test('a refused refresh ends the session and forgets it; an unreachable server does not', async () => {
  const server = rotatingServer();
  const { made, ends, storage } = session(server);
  await made.login('a', 'b');
  server.down = true;
  await assert.rejects(made.refresh(), { code: 'network', retryable: true });
  assert.equal(made.signedIn, true);
  server.down = false;
  server.ended = true;
  await assert.rejects(made.refresh(), { code: 'unauthenticated', status: 401 });
  assert.deepEqual(ends, ['expired']);
  assert.equal(storage.getItem('haus.session'), null);
});

test('refusals carry code, status and the time to wait', async () => {
  const fetch = async () => answer(429, { code: 'rate_limited', detail: 'slowly' }, { 'retry-after': '7' });
  const { made } = session({ fetch });
  await assert.rejects(made.login('a', 'b'), { code: 'rate_limited', status: 429, retryAfterMs: 7000, message: 'slowly', retryable: true });
  const proxy = session({ fetch: async () => ({ ...answer(502), text: async () => '<html>' }) });
  await assert.rejects(proxy.made.login('a', 'b'), { code: 'unavailable', status: 502 });
});

test('logging out forgets the session even if nobody answers', async () => {
  const server = rotatingServer();
  const { made, ends, storage } = session(server);
  await made.login('a', 'b');
  server.down = true;
  await made.logout();
  assert.deepEqual(ends, ['logout']);
  assert.equal(storage.length, 0);
});

test('an answer that never comes holds neither the promise nor the lock, and says why', async () => {
  const server = rotatingServer();
  const storage = new MemoryStorage();
  const clock = new TestClock();
  const locks = fairLocks();
  let hung = 0;
  const swallow = async (url, init) => {
    if (!url.endsWith('/refresh')) return server.fetch(url, init);
    hung += 1;
    return new Promise(() => {});
  };
  const one = session({ fetch: swallow }, storage, clock, locks);
  await one.made.login('a', 'b');
  const two = session(server, storage, clock, locks);
  two.made.restore();
  await clock.advance(599_000);
  const waiting = [one.made.token(), one.made.request('GET', '/v1/me')].map((promise) => promise.catch((error) => error));
  await settle();
  const other = two.made.token();
  await clock.advance(HTTP_DEADLINE_MS);
  for (const error of await Promise.all(waiting)) {
    assert.deepEqual([error.code, error.retryable, error.cause.name], ['network', true, 'TimeoutError']);
  }
  assert.equal(hung, 1);
  assert.match(await other, /^access /);
  assert.deepEqual([...one.ends, ...two.ends], []);
  assert.equal(await one.made.token(), await other);
});

test('every call has a deadline, also when only the body does not come', async () => {
  const clock = new TestClock();
  const body = session({ fetch: async () => ({ ...answer(200), text: () => new Promise(() => {}) }) }, undefined, clock);
  const login = body.made.login('a', 'b').catch((error) => error);
  await clock.advance(HTTP_DEADLINE_MS);
  assert.equal((await login).cause.name, 'TimeoutError');
});

test('a frozen tab that holds the lock is not waited for longer than that', async () => {
  const server = rotatingServer();
  const clock = new TestClock();
  const locks = { request: (_, { signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))) };
  const { made } = session(server, undefined, clock, locks);
  await made.login('a', 'b');
  const refreshed = made.refresh();
  await clock.advance(LOCK_WAIT_MS);
  assert.match(await refreshed, /^access /);
  const refusing = session(server, undefined, clock, { request: () => Promise.reject(new DOMException('no', 'SecurityError')) });
  await refusing.made.login('a', 'b');
  assert.match(await refusing.made.refresh(), /^access /);
});

test('what comes after the end of a session does not bring it back', async () => {
  for (const next of ['logout', 'login']) {
    const server = rotatingServer();
    const held = [];
    const late = (url, init) => (url.endsWith('/refresh') ? new Promise((resolve) => held.push(() => resolve(answer(200, tokenAnswer())))) : server.fetch(url, init));
    const { made, storage, ends } = session({ fetch: late });
    await made.login('a', 'b');
    const refreshing = made.refresh().catch((error) => error);
    await settle();
    await (next === 'logout' ? made.logout() : made.login('c', 'd'));
    const stored = storage.getItem('haus.session');
    held[0]();
    assert.equal((await refreshing).code, 'signed_out', next);
    assert.equal(storage.getItem('haus.session'), stored, next);
    assert.deepEqual(ends, next === 'logout' ? ['logout'] : []);
  }
});

test('logging out does not wait for anybody, and tells whether the server knows', async () => {
  const server = rotatingServer();
  const clock = new TestClock();
  const paths = [];
  const hang = { fetch: (url, init) => (paths.push(new URL(url).pathname), url.endsWith('/login') ? server.fetch(url, init) : new Promise(() => {})) };
  const { made, ends } = session(hang, undefined, clock);
  await made.login('a', 'b');
  made.refresh().catch(() => {});
  const told = made.logout();
  assert.deepEqual([ends, made.signedIn], [['logout'], false]);
  await clock.advance(5_000);
  assert.equal(await told, false);
  const good = session(server, undefined, clock);
  await good.made.login('a', 'b');
  await clock.advance(700_000);
  assert.equal(await good.made.logout(), true);
  assert.equal(server.refreshes, 1, 'an expired access token is renewed for it');
});

test('a storage taken over by another person ends the session here and stays theirs', async () => {
  const server = rotatingServer();
  const storage = new MemoryStorage();
  const mine = session(server, storage);
  await mine.made.login('a', 'b');
  const theirs = session({ fetch: async () => answer(200, tokenAnswer({ profile: { id: 'p2', displayName: 'B' }, sessionId: 's2' })) }, storage);
  await theirs.made.login('c', 'd');
  await assert.rejects(mine.made.request('POST', '/v1/posts', {}), { code: 'signed_out' });
  assert.deepEqual(mine.ends, ['taken-over']);
  assert.equal(JSON.parse(storage.getItem('haus.session')).profile.id, 'p2');
});

test('another log-in of the same person is gone on with', async () => {
  const server = rotatingServer();
  const storage = new MemoryStorage();
  const one = session(server, storage);
  await one.made.login('a', 'b');
  const two = session({ fetch: async () => answer(200, tokenAnswer({ sessionId: 's2' })) }, storage);
  await two.made.login('a', 'b');
  assert.equal(one.made.revoked(), true);
  assert.equal(await one.made.token(), await two.made.token());
  assert.equal(one.made.revoked(), false);
  assert.deepEqual(one.ends, ['revoked']);
});

test('a clock that is set costs one renewal at most, in memory and in the storage', async () => {
  for (const ms of [-3_600_000, 3_600_000, -86_400_000]) {
    const server = rotatingServer();
    const storage = new MemoryStorage();
    const { made, clock } = session(server, storage);
    await made.login('a', 'b');
    clock.jump(ms);
    const before = server.refreshes;
    for (let minute = 0; minute < 9; minute += 1) {
      await clock.advance(60_000);
      await made.token();
    }
    assert.ok(server.refreshes - before <= 1, `${ms}`);
    await clock.advance(600_000);
    const token = await made.token();
    assert.equal(token, server.valid.accessToken, `${ms}: expired tokens are not used`);
    const reloaded = session(server, storage, clock);
    clock.jump(-ms * 2);
    reloaded.made.restore();
    await clock.advance(600_000);
    assert.equal(await reloaded.made.token(), server.valid.accessToken);
  }
});

test('a stored session that is none is no session', () => {
  for (const bad of ['', '{', '5', 'null', '{"refreshToken":"x"}', '{"refreshToken":"x","accessToken":"y","accessEndsAt":"soon","profile":{"id":"p"}}']) {
    const storage = new MemoryStorage();
    storage.setItem('haus.session', bad);
    assert.equal(session({}, storage).made.restore(), false, bad);
  }
});

test('a refusal that is not the server\'s ends no session', async () => {
  for (const status of [401, 403]) {
    const server = rotatingServer();
    let portal = false;
    const { made, ends } = session({ fetch: (url, init) => (portal ? { ...answer(status), text: async () => '<html>' } : server.fetch(url, init)) });
    await made.login('a', 'b');
    portal = true;
    await assert.rejects(made.refresh(), { code: 'network', retryable: true, status: 0 });
    await assert.rejects(made.request('GET', '/v1/me'), { code: 'network' });
    portal = false;
    assert.match(await made.refresh(), /^access /);
    assert.deepEqual(ends, []);
  }
});

/** Web Locks, as far as one name needs. */
function fairLocks() {
  let tail = Promise.resolve();
  return { request: (_, __, task) => (tail = tail.then(task, task)) };
}
