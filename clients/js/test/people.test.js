import assert from 'node:assert/strict';
import test from 'node:test';

import { FRESH_MS, KEPT_MAX, LOOK_MS, WOKE_MS } from '../people.js';
import { ME, OTHER, THREAD, authOk, live, row, settle } from './support.js';

const asked = (Socket) => Socket.last.commands('profiles.get').map(({ d }) => d.ids);
const heartbeat = (Socket) => Socket.last.push({ up: 'hb', d: { heads: {} } });
const direct = () => authOk({ threads: [row({ type: 'DIRECT', name: null, peer: { id: OTHER, displayName: 'Bo' } })] });

/** A page: looks at these names whenever it is told to draw. */
function drawing(haus, ...ids) {
  const seen = [];
  const draw = () => seen.push(ids.map((id) => haus.people.get(id)?.displayName ?? null).join());
  haus.on('people', draw);
  draw();
  return seen;
}

/** Time passes on a living socket. */
async function pass({ clock, Socket }, ms) {
  for (let left = ms; left > 0; left -= 1_000) {
    await clock.advance(Math.min(left, 1_000));
    heartbeat(Socket);
  }
  await settle();
}

test('a name that is shown is asked for again when it is old, and told when it is another one', async () => {
  const parts = await live(undefined, direct());
  const { haus, Socket } = parts;
  const seen = drawing(haus, OTHER);
  await pass(parts, FRESH_MS - 2_000);
  assert.deepEqual([asked(Socket), new Set(seen)], [[], new Set(['Bo'])]);
  await pass(parts, LOOK_MS + 4_000);
  assert.deepEqual(asked(Socket), [[OTHER]]);
  Socket.last.reply('profiles.get', { profiles: [{ id: OTHER, displayName: 'Bodil' }] });
  await settle();
  assert.equal(seen.at(-1), 'Bodil');
  assert.equal(haus.thread(THREAD).row.peer.displayName, 'Bodil');
  await pass(parts, 10_000);
  assert.equal(asked(Socket).length, 1);
});

test('names that are not shown are not asked for', async () => {
  const parts = await live(undefined, direct());
  await pass(parts, FRESH_MS * 2);
  assert.deepEqual(asked(parts.Socket), []);
});

test('after waking, what is shown is asked for, but not at every glance', async () => {
  const parts = await live(undefined, direct());
  const { haus, Socket } = parts;
  drawing(haus, OTHER);
  haus.wake();
  await settle();
  assert.deepEqual(asked(Socket), []);
  await pass(parts, WOKE_MS + 1_000);
  haus.wake();
  haus.wake();
  await settle();
  assert.deepEqual(asked(Socket), [[OTHER]]);
});

test('a thread that is opened brings the present names of its members', async () => {
  const { haus, Socket } = await live(undefined, direct());
  const seen = drawing(haus, OTHER);
  haus.open(THREAD);
  const members = [{ profileId: OTHER, displayName: 'Bodil' }, { profileId: ME, displayName: 'Me' }];
  Socket.last.reply('thread.open', { thread: row({ type: 'DIRECT', name: null, peer: { id: OTHER, displayName: 'Bodil' } }), seq: 10, no: 5, messages: [], members });
  await settle();
  assert.deepEqual(seen, ['Bo', 'Bodil']);
});

test('what a reply leaves out is no change', async () => {
  const { haus } = await live(undefined, direct());
  haus.people.learn({ id: OTHER, displayName: 'Bo', avatar: null, pronouns: 'they' });
  const seen = drawing(haus, OTHER);
  haus.people.learn({ id: OTHER, displayName: 'Bo', avatar: undefined });
  await settle();
  assert.deepEqual([seen, haus.people.get(OTHER).pronouns], [['Bo'], 'they']);
});

test('an answer that was asked for earlier does not take back what was told since', async () => {
  const parts = await live(undefined, direct());
  const { haus, Socket } = parts;
  const seen = drawing(haus, OTHER);
  await pass(parts, FRESH_MS + LOOK_MS + 2_000);
  haus.people.learn({ id: OTHER, displayName: 'Bodil' });
  Socket.last.reply('profiles.get', { profiles: [{ id: OTHER, displayName: 'Bo' }] });
  await settle();
  assert.equal(seen.at(-1), 'Bodil');
  assert.equal(haus.people.get(OTHER).displayName, 'Bodil');
});

test('a refresh that fails leaves what is known', async () => {
  const parts = await live(undefined, direct());
  const { haus, Socket } = parts;
  drawing(haus, OTHER);
  await pass(parts, FRESH_MS + LOOK_MS + 2_000);
  Socket.last.refuse('profiles.get', { code: 'invalid' });
  await settle();
  assert.equal(haus.people.get(OTHER).displayName, 'Bo');
});

test('of more people than are kept, the one told longest ago goes', async () => {
  const { haus } = await live(undefined, direct());
  for (let n = 0; n < KEPT_MAX - 3; n += 1) haus.people.learn({ id: `p${n}`, displayName: `P ${n}` });
  haus.people.learn({ id: 'p0', displayName: 'P 0' });
  for (let n = 0; n < 10; n += 1) haus.people.learn({ id: `q${n}`, displayName: `Q ${n}` });
  assert.equal(haus.people.get('p0')?.displayName, 'P 0');
  assert.equal(haus.people.get('p3'), null);
});
