import assert from 'node:assert/strict';
import test from 'node:test';

import { Thread, WINDOW_MAX } from '../thread.js';
import { ME, OTHER, THREAD, created, row, stored } from './support.js';

function thread(more) {
  const made = new Thread(THREAD, ME);
  made.setRow(row(more));
  made.stream.rebase(row(more).seq);
  return made;
}

const nos = ({ messages }) => messages.map(({ no }) => no);
const edited = (seq, no, rev, content) => ({ up: 'message.edited', s: THREAD, seq, d: { messageId: `m${no}`, no, rev, content, editedAt: 'now' } });

test('unread is what came after the mark; an own message moves the mark', () => {
  const t = thread();
  t.apply(created(11, 6));
  t.apply(created(12, 7));
  assert.equal(t.unread, 2);
  t.apply(created(13, 8, { senderId: ME }));
  assert.equal(t.unread, 0);
});

test('a row that is newer than a replay is not counted twice', () => {
  const t = thread({ seq: 12, no: 7, unread: 2, memberCount: 3 });
  t.apply({ up: 'member.joined', s: THREAD, seq: 10, d: { profileIds: [OTHER] } });
  t.apply(created(11, 6));
  t.apply(created(12, 7));
  assert.equal(t.unread, 2);
  assert.equal(t.row.memberCount, 3);
  t.apply({ up: 'member.joined', s: THREAD, seq: 13, d: { profileIds: [OTHER] } });
  assert.equal(t.row.memberCount, 4);
});

test('the mark moves back only by a higher revision', () => {
  const t = thread({ no: 9, lastReadNo: 5 });
  t.setRead({ lastReadNo: 8, readRev: 0 });
  t.setRead({ lastReadNo: 6, readRev: 0 });
  assert.equal(t.row.lastReadNo, 8);
  t.setRead({ lastReadNo: 3, readRev: 1 });
  assert.equal(t.row.lastReadNo, 3);
  t.setRead({ lastReadNo: 9, readRev: 0 });
  assert.equal(t.row.lastReadNo, 3);
});

test('mentions are those told, and those that came after', () => {
  const t = thread({ no: 5, lastReadNo: 3, mentions: 1 });
  t.apply(created(11, 6, { mentions: [ME] }));
  t.apply(created(12, 7, { mentions: [OTHER] }));
  assert.equal(t.mentions, 2);
  t.setRead({ lastReadNo: 3, readRev: 0, mentions: 2, atNo: 6 });
  assert.equal(t.mentions, 2);
  t.setRead({ lastReadNo: 7, readRev: 0 });
  assert.equal(t.mentions, 0);
});

test('content is applied only when its revision is not older', () => {
  const t = thread();
  t.apply(created(11, 6, { rev: 3, content: 'third' }));
  t.apply(edited(12, 6, 2, 'second'));
  assert.equal(t.messages[0].content, 'third');
  t.apply(edited(13, 6, 4, 'fourth'));
  assert.equal(t.messages[0].content, 'fourth');
  t.apply({ up: 'message.deleted', s: THREAD, seq: 14, d: { messageId: 'm6', no: 6, rev: 5 } });
  assert.deepEqual([t.messages[0].content, t.messages[0].isDeleted, t.messages[0].type], [null, true, 'DELETED']);
});

test('reactions are absolute counts, and mine is known', () => {
  const t = thread();
  t.apply(created(11, 6));
  const react = (seq, up, profileId, count) => t.apply({ up: `reaction.${up}`, s: THREAD, seq, d: { messageId: 'm6', no: 6, emoji: '🔥', profileId, count } });
  react(12, 'added', ME, 1);
  react(13, 'added', OTHER, 2);
  assert.deepEqual(t.messages[0].reactions, [{ emoji: '🔥', count: 2, mine: true, profileIds: [ME, OTHER] }]);
  react(14, 'removed', ME, 1);
  assert.deepEqual(t.messages[0].reactions, [{ emoji: '🔥', count: 1, mine: false, profileIds: [OTHER] }]);
  react(15, 'removed', OTHER, 0);
  assert.deepEqual(t.messages[0].reactions, []);
});

test('updates that arrive between a read and its reply are applied to what it brings', () => {
  const t = thread();
  t.apply(created(11, 6));
  const read = t.beginRead();
  t.apply(edited(12, 2, 2, 'edited meanwhile'));
  t.apply(edited(13, 3, 2, 'edited before the reply was read'));
  t.finishOlder(read, { seq: 12, hasMore: true, messages: [stored(2, { content: 'as of 12', rev: 2 }), stored(3), stored(4), stored(5)] }, 6);
  assert.deepEqual(nos(t), [2, 3, 4, 5, 6]);
  assert.equal(t.messages[0].content, 'as of 12');
  assert.equal(t.messages[1].content, 'edited before the reply was read');
  assert.equal(t.hasOlder, true);
});

test('what a reply already had is not applied again when it comes by the stream', () => {
  const t = thread();
  const read = t.beginRead();
  const reactions = [{ emoji: '🔥', count: 2, mine: false, profileIds: [OTHER] }];
  t.finishOpen(read, { thread: row({ seq: 13, no: 6 }), seq: 13, messages: [stored(5), stored(6, { reactions })], members: [] });
  t.apply(created(11, 6));
  t.apply({ up: 'reaction.added', s: THREAD, seq: 12, d: { messageId: 'm6', no: 6, emoji: '🔥', profileId: OTHER, count: 1 } });
  assert.equal(t.messages[1].reactions[0].count, 2);
  assert.deepEqual(nos(t), [5, 6]);
  t.apply({ up: 'reaction.added', s: THREAD, seq: 14, d: { messageId: 'm6', no: 6, emoji: '🔥', profileId: ME, count: 3 } });
  assert.equal(t.messages[1].reactions[0].count, 3);
});

test('the window never has a hole: what is far below a new page is let go', () => {
  const t = thread();
  t.apply(created(11, 6));
  const read = t.beginRead();
  t.finishOpen(read, { thread: row({ seq: 90, no: 52 }), seq: 90, messages: [stored(50), stored(51), stored(52)], members: [] });
  assert.deepEqual(nos(t), [50, 51, 52]);
  t.apply(created(12, 7));
  assert.deepEqual(nos(t), [50, 51, 52]);
  t.apply(created(91, 53));
  assert.deepEqual(nos(t), [50, 51, 52, 53]);
});

test('an older page for a window that was replaced meanwhile is not put in front of it', () => {
  const t = thread();
  t.apply(created(11, 6));
  const read = t.beginRead();
  t.replace({ thread: row({ no: 80 }), messages: [stored(80)], members: [], memberCount: 2 }, 200);
  t.finishOlder(read, { seq: 11, hasMore: false, messages: [stored(4), stored(5)] }, 6);
  assert.deepEqual(nos(t), [80]);
});

test('a snapshot replaces everything and lets go what was held after it', () => {
  const t = thread();
  t.apply(created(11, 6));
  t.stream.offer(created(1060, 901));
  const ready = t.replace({ thread: row({ no: 900 }), messages: [stored(899), stored(900)], members: [{ profileId: ME }], memberCount: 2 }, 1059);
  assert.deepEqual(ready.map(({ seq }) => seq), [1060]);
  assert.deepEqual(nos(t), [899, 900]);
  assert.equal(t.stream.pos, 1060);
});

test('a thread that is put away keeps its newest messages', () => {
  const t = thread();
  for (let i = 1; i <= WINDOW_MAX + 20; i += 1) t.apply(created(10 + i, 5 + i));
  t.trim();
  assert.equal(t.messages.length, WINDOW_MAX);
  assert.equal(t.last.no, 5 + WINDOW_MAX + 20);
  assert.equal(t.hasOlder, true);
});
