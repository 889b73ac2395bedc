import assert from 'node:assert/strict';
import test from 'node:test';

import { HELD_MAX, Stream } from '../stream.js';

const seqs = (updates) => updates.map(({ seq }) => seq);

test('next is applied, old is ignored, early is held', () => {
  const stream = new Stream(5);
  assert.deepEqual(seqs(stream.offer({ seq: 6 })), [6]);
  assert.deepEqual(seqs(stream.offer({ seq: 6 })), []);
  assert.deepEqual(seqs(stream.offer({ seq: 3 })), []);
  assert.deepEqual(seqs(stream.offer({ seq: 8 })), []);
  assert.equal(stream.pos, 6);
  assert.equal(stream.gap, true);
  assert.deepEqual(seqs(stream.offer({ seq: 7 })), [7, 8]);
  assert.equal(stream.gap, false);
});

test('any order with any repeats comes out once and in order', () => {
  let state = 12345;
  const random = (below) => (state = (state * 1103515245 + 12345) % 2 ** 31) % below;
  for (let round = 0; round < 200; round += 1) {
    const stream = new Stream(100);
    const total = 1 + random(40);
    const offers = [];
    for (let seq = 101; seq <= 100 + total; seq += 1) for (let copy = 0; copy <= random(3); copy += 1) offers.push({ seq });
    for (let i = offers.length - 1; i > 0; i -= 1) {
      const j = random(i + 1);
      [offers[i], offers[j]] = [offers[j], offers[i]];
    }
    const out = offers.flatMap((update) => seqs(stream.offer(update)));
    assert.deepEqual(out, Array.from({ length: total }, (_, i) => 101 + i));
    assert.equal(stream.heldCount, 0);
  }
});

test('without a position everything is held until one is given', () => {
  const stream = new Stream();
  for (const seq of [7, 9, 8, 5]) assert.deepEqual(stream.offer({ seq }), []);
  assert.deepEqual(seqs(stream.rebase(6)), [7, 8, 9]);
  assert.equal(stream.pos, 9);
});

test('what is held has a limit, and what fell over it is a gap', () => {
  const stream = new Stream();
  for (let seq = 2; seq <= HELD_MAX + 5; seq += 1) stream.offer({ seq });
  assert.equal(stream.heldCount, HELD_MAX);
  assert.equal(stream.rebase(1).length, HELD_MAX);
  assert.equal(stream.gap, true);
  stream.syncing();
  assert.equal(stream.gap, false);
});
