// What is kept on the device: a storage that fails, messages and drafts that belong to a person, text as the server counts it.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Drafts } from '../drafts.js';
import { HausError, LOCAL, explain } from '../haus.js';
import { Keep, MemoryStorage, defaultStorage } from '../storage.js';
import { bytesOf, charsOf, decode, encode, wellFormed } from '../text.js';

/** A storage whose calls throw while `broken` names them. */
function fragile() {
  const inner = new MemoryStorage();
  const broken = new Set();
  const storage = new Proxy(inner, {
    get(_, name) {
      if (broken.has(name) || broken.has('all')) throw new DOMException(`${String(name)} is not allowed`, 'SecurityError');
      const value = inner[name];
      return typeof value === 'function' ? value.bind(inner) : value;
    },
  });
  return { inner, broken, storage };
}

test('a storage that stops working is replaced by memory, told once', () => {
  const { inner, broken, storage } = fragile();
  const told = [];
  const keep = new Keep(storage, (cause) => told.push(cause.name));
  keep.setItem('a.1', 'one');
  broken.add('setItem');
  keep.setItem('a.1', 'uno');
  keep.setItem('a.2', 'two');
  assert.deepEqual([keep.getItem('a.1'), keep.getItem('a.2'), keep.works], ['uno', 'two', false]);
  assert.equal(inner.getItem('a.1'), null, 'an old value would be read after a reload');
  assert.deepEqual(keep.keys('a.').sort(), ['a.1', 'a.2']);
  broken.add('all');
  assert.deepEqual([keep.getItem('a.1'), keep.keys('a.').sort().length], ['uno', 2]);
  keep.removeItem('a.2');
  assert.deepEqual([keep.getItem('a.2'), keep.keys('a.')], [null, ['a.1']]);
  broken.clear();
  assert.equal(keep.getItem('a.2'), null);
  keep.setItem('a.2', 'again');
  assert.equal(inner.getItem('a.2'), 'again');
  assert.deepEqual(told, ['SecurityError']);
});

test('what another tab writes or removes is seen', () => {
  const shared = new MemoryStorage();
  const [one, two] = [new Keep(shared, assert.fail), new Keep(shared, assert.fail)];
  one.setItem('x', '1');
  assert.equal(two.getItem('x'), '1');
  two.removeItem('x');
  assert.deepEqual([one.getItem('x'), one.keys('x')], [null, []]);
});

test('a storage that removes nothing does not bring back what was removed', () => {
  const { broken, storage } = fragile();
  const keep = new Keep(storage, () => {});
  keep.setItem('x', '1');
  broken.add('removeItem');
  keep.removeItem('x');
  assert.deepEqual([keep.getItem('x'), keep.keys('')], [null, []]);
});

test('no storage at all is memory, and said', () => {
  const told = [];
  const keep = new Keep(null, () => told.push('told'));
  keep.setItem('x', '1');
  assert.deepEqual([keep.getItem('x'), keep.keys(''), told], ['1', ['x'], ['told']]);
  assert.ok(defaultStorage() instanceof MemoryStorage || globalThis.localStorage !== undefined);
});

test('drafts live per thread and person, across instances', () => {
  const storage = new Keep(new MemoryStorage(), assert.fail);
  const mine = new Drafts({ storage });
  assert.equal(mine.set('t1', 'lost', 0), false, 'nobody is signed in');
  mine.load('me');
  assert.equal(mine.set('t1', 'half a sent', 1), true);
  assert.equal(mine.set('t1', 'half a sentence', 2), false);
  mine.set('t2', 'another', 3);
  const reloaded = new Drafts({ storage });
  reloaded.load('me');
  assert.deepEqual([reloaded.get('t1'), reloaded.get('t2'), reloaded.get('t3')], ['half a sentence', 'another', '']);
  reloaded.load('somebody else');
  assert.equal(reloaded.get('t1'), '');
  reloaded.set('t1', 'theirs', 4);
  reloaded.load('me');
  assert.equal(reloaded.get('t1'), 'half a sentence');
  assert.equal(reloaded.set('t1', '', 5), true);
  reloaded.clear();
  assert.deepEqual(storage.keys(''), ['haus.draft.somebody else.t1']);
});

test('drafts that are no drafts are passed over', () => {
  const storage = new Keep(new MemoryStorage(), assert.fail);
  for (const [i, bad] of ['{', 'null', '5', '{"text":5}', '""'].entries()) storage.setItem(`haus.draft.me.t${i}`, bad);
  const drafts = new Drafts({ storage });
  drafts.load('me');
  assert.equal(drafts.get('t0'), '');
});

test('text is measured as the server measures it', () => {
  for (const text of ['', 'a', 'ä', '€', '😀', 'a😀b', '👨‍👩‍👧', 'e\u0301', '\u0000"\\']) {
    assert.equal(charsOf(text), [...text].length, text);
    assert.equal(bytesOf(text), new TextEncoder().encode(text).length, text);
  }
});

test('halves of pairs are replaced, and whole ones are not', () => {
  assert.equal(wellFormed('a\ud83d b\ude00 😀 \ud83d\ud83d\ude00'), 'a\ufffd b\ufffd 😀 \ufffd😀');
  const sent = encode({ content: 'cut \ud83d', list: ['\ude00'], literal: '\\ud83d' });
  assert.ok(!/[^\\]\\ud/.test(sent), sent);
  assert.deepEqual(JSON.parse(sent), { content: 'cut \ufffd', list: ['\ufffd'], literal: '\\ud83d' });
  assert.equal(decode('{'), null);
});

test('every code has a sentence, and an unknown one too', () => {
  const codes = ['unauthenticated', 'forbidden', 'not_found', 'invalid', 'too_large', 'conflict', 'nonce_conflict', 'rate_limited', 'slow_mode',
    'thread_archived', 'read_only', 'blocked', 'unavailable', 'unknown_cmd', 'internal', ...Object.values(LOCAL)];
  const unknown = explain('something_new');
  for (const code of codes) {
    const { text } = new HausError(code);
    assert.match(text, /^[A-Z].{10,}[.]$/);
    assert.ok(text !== unknown && !text.includes('_'), code);
  }
  for (const odd of [undefined, null, 'toString', new TypeError('x')]) assert.equal(explain(odd), unknown);
});
