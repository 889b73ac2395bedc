import assert from 'node:assert/strict';
import test from 'node:test';

import { Http } from '../http.js';
import { Session } from '../session.js';
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
