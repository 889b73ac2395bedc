import assert from 'node:assert/strict';
import test from 'node:test';

import { CAP_MS, closeAction, closeReason, jitterMs, reconnectDelayMs } from '../backoff.js';

const most = () => 0.999999;

test('the first delay after a session is spread, and none after a drain', () => {
  assert.equal(reconnectDelayMs({ failures: 0, code: 4000, spreadMs: 3000, random: most }), 0);
  for (const code of [1006, 4008, 4010, 4013]) {
    assert.equal(Math.ceil(reconnectDelayMs({ failures: 0, code, spreadMs: 3000, random: most })), 3000);
    assert.equal(reconnectDelayMs({ failures: 0, code, spreadMs: 3000, random: () => 0 }), 0);
  }
});

test('further delays double from half a second, with full jitter, up to the cap', () => {
  const delays = [1, 2, 3, 4, 7, 40].map((failures) => Math.ceil(reconnectDelayMs({ failures, random: most })));
  assert.deepEqual(delays, [500, 1000, 2000, 4000, CAP_MS, CAP_MS]);
  assert.equal(jitterMs(5, () => 0), 0);
});

test('what the server asks for is waited at least', () => {
  assert.equal(reconnectDelayMs({ failures: 0, code: 4029, retryAfterMs: 9000, random: () => 0.1 }), 9000);
  assert.equal(reconnectDelayMs({ failures: 0, code: 4000, retryAfterMs: 700, random: most }), 700);
});

test('close codes say what to do', () => {
  for (const code of [1000, 1001, 1006, 1009, 1011, 4000, 4008, 4010, 4013, 4029]) assert.equal(closeAction(code), 'reconnect', `${code}`);
  for (const code of [4400, 4403, 4409, 4426, 4499]) assert.equal(closeAction(code), 'stop', `${code}`);
  assert.equal(closeAction(4401), 'refresh');
});

test('a reason that is not ours is no reason', () => {
  assert.deepEqual(closeReason('{"c":"drain","ra":1200}'), { c: 'drain', ra: 1200 });
  for (const text of ['', 'bye', 'null', '5', '{']) assert.deepEqual(Object.keys(closeReason(text)), []);
});
