// One thread as this device knows it: its row, and a window of its newest messages. Pure: no I/O and no clock.
//
// The window is unbroken from its oldest message to the newest; older ones are added in front by `history`. Every message
// remembers the seq it is known at (`asOf`), so what a reply already contained is not applied a second time.

import { Stream } from './stream.js';

/** Messages a thread that is not open keeps when it is trimmed … */
export const WINDOW_MAX = 100;
/** … which it is when it holds more than this. In between lies the room that makes trimming cheap. */
export const CLOSED_MAX = 200;

/** The same of one that is open: it is trimmed to so many, or to what is on the screen … */
export const OPEN_KEPT = 1_000;
/** … when it holds more than this, or as many more than what is on the screen. */
export const OPEN_MAX = 2_000;

/** Own mentions remembered above the last known count. */
const MENTIONS_MAX = 1_000;

export class Thread {
  /** Messages, oldest first. */
  messages = [];
  /** Whether the window is known to reach the newest message, and not only what arrived live. */
  loaded = false;
  /** Whether `history` may have older ones. */
  hasOlder = true;
  /** Members by profile id, as far as told (at most 100 by `thread.open`). */
  members = new Map();
  stream = new Stream();

  #byId = new Map();
  #rowSeq = 0;
  #mentionNos = [];
  #mentionsAtNo = 0;
  #mentionsBase = 0;
  #reads = new Map();

  constructor(id, selfId) {
    this.id = id;
    this.selfId = selfId;
    this.row = { id, name: null, type: 'GROUP', peer: null, memberCount: 0, canSend: true, isArchived: false,
      no: 0, lastReadNo: 0, readRev: 0, lastMessageAt: null, mutedUntil: null };
  }

  get unread() {
    return Math.max(0, this.row.no - this.row.lastReadNo);
  }

  get mentions() {
    if (this.unread === 0) return 0;
    return this.#mentionsBase + this.#mentionNos.filter((no) => no > this.#mentionsAtNo && no > this.row.lastReadNo).length;
  }

  /** The newest message, or null while it is not known. */
  get last() {
    const last = this.messages.at(-1);
    return last !== undefined && last.no === this.row.no ? last : null;
  }

  /** A row of `auth`, `threads.list`, `thread.added`, `thread.open` or a snapshot. Counters never move back by an old one. */
  setRow(row) {
    const old = this.row;
    if (row.seq < this.#rowSeq) return;
    this.#rowSeq = row.seq;
    this.row = { ...old, ...row, no: Math.max(old.no, row.no), lastMessageAt: later(old.lastMessageAt, row.lastMessageAt) };
    this.setRead({ lastReadNo: row.lastReadNo, readRev: row.readRev, mentions: row.mentions, atNo: row.no }, old);
  }

  /** Somebody has another name or face. Whether it shows here. */
  named(id, { displayName, avatar }) {
    const { peer } = this.row;
    const member = this.members.get(id);
    if (peer?.id === id) this.row = { ...this.row, peer: { ...peer, displayName, avatar } };
    if (member !== undefined) this.members.set(id, { ...member, displayName, avatar });
    return peer?.id === id || member !== undefined;
  }

  /** Own read mark (`thread.state`, a reply to `read`, a row). A later `readRev` may move it back, the same may not. */
  setRead({ lastReadNo, readRev = this.row.readRev, mentions, atNo, mutedUntil }, old = this.row) {
    if (readRev < old.readRev) {
      this.row = { ...this.row, lastReadNo: old.lastReadNo, readRev: old.readRev };
      return;
    }
    this.row = { ...this.row, readRev, lastReadNo: readRev > old.readRev ? lastReadNo : Math.max(old.lastReadNo, lastReadNo) };
    if (mutedUntil !== undefined) this.row.mutedUntil = mutedUntil;
    if (mentions !== undefined && atNo !== undefined && atNo >= this.#mentionsAtNo) {
      this.#mentionsBase = mentions;
      this.#mentionsAtNo = atNo;
      this.#mentionNos = this.#mentionNos.filter((no) => no > atNo);
    }
  }

  /** Replaces everything (`snapshot`). Returns the held updates that follow it. */
  replace({ thread, messages, members, memberCount }, seq) {
    this.dropMessages();
    if (thread) this.setRow({ ...thread, seq });
    if (memberCount !== undefined) this.row.memberCount = memberCount;
    this.#setMembers(members);
    this.messages = messages.map((message) => this.#full(message, seq)).sort((a, b) => a.no - b.no);
    this.#index();
    this.loaded = true;
    this.hasOlder = this.messages.length > 0;
    return this.stream.rebase(seq);
  }

  /** Empties the window; it is loaded again when shown. */
  dropMessages() {
    this.messages = [];
    this.#byId.clear();
    this.loaded = false;
    this.hasOlder = true;
  }

  /** Before a command that reads messages is sent: its thread's updates are kept until the reply. @returns a handle */
  beginRead() {
    const handle = Symbol('read');
    this.#reads.set(handle, []);
    return handle;
  }

  abandonRead(handle) {
    this.#reads.delete(handle);
  }

  /** Reply of `thread.open`. Returns the held updates that follow it, if the position was unknown. */
  finishOpen(handle, ok) {
    const ready = this.stream.pos === null ? this.stream.rebase(ok.seq) : [];
    this.setRow({ ...ok.thread, seq: ok.seq });
    this.#setMembers(ok.members);
    const page = this.#finishRead(handle, ok);
    // A hole between the window and what came: older messages are a scroll away.
    if (page.length > 0 && this.messages.length > 0 && this.messages.at(-1).no < page[0].no - 1) this.dropMessages();
    const reachesBack = this.messages.length > 0 && page.length > 0 && this.messages[0].no < page[0].no;
    this.#merge(page);
    if (!reachesBack) this.hasOlder = page.length > 0 && page[0].no > 1;
    this.loaded = true;
    return ready;
  }

  /** Reply of `history` with this `before`: goes in front of the window, unless that was replaced meanwhile. */
  finishOlder(handle, ok, before) {
    const page = this.#finishRead(handle, ok);
    if (this.messages[0]?.no !== before) return;
    this.#merge(page);
    this.hasOlder = ok.hasMore && page.length > 0;
  }

  /** The newest message alone, for a list: taken only if nothing is held, so that the window has no hole. */
  finishPreview(handle, ok) {
    const page = this.#finishRead(handle, ok);
    if (this.messages.length === 0) this.#merge(page);
    return this.stream.pos === null ? this.stream.rebase(ok.seq) : [];
  }

  /** Keeps the newest `kept` messages alone, if there are more than `above`. */
  trim(above = WINDOW_MAX, kept = WINDOW_MAX) {
    if (this.messages.length <= above) return;
    this.messages = this.messages.slice(-kept);
    this.#index();
    this.hasOlder = true;
  }

  /** The same for one on a screen: from message `from` on nothing is let go, nor of what stands close before it. */
  trimOpen(from) {
    if (this.messages.length <= OPEN_MAX) return;
    const needed = from === Infinity ? 0 : this.messages.at(-1).no - from + 1;
    const kept = Math.max(OPEN_KEPT, needed + WINDOW_MAX);
    this.trim(kept + OPEN_MAX - OPEN_KEPT, kept);
  }

  /** Applies one update whose turn it is. Returns the message it created, if it did. */
  apply(update) {
    // What was created meanwhile is applied here; only changes may concern a message that a reply brings.
    if (update.up !== 'message.created') for (const kept of this.#reads.values()) kept.push(update);
    const created = update.up === 'message.created' ? this.#created(update) : null;
    if (created === null) this.#touch(this.#byId.get(update.d.messageId), update);
    if (update.seq > this.#rowSeq) this.#changeRow(update);
    return created;
  }

  #created({ d, seq, at }) {
    const message = this.#full({ sentAt: at, ...d.message }, seq);
    const { row } = this;
    row.no = Math.max(row.no, message.no);
    row.lastMessageAt = later(row.lastMessageAt, message.sentAt);
    if (message.senderId === this.selfId) row.lastReadNo = Math.max(row.lastReadNo, message.no);
    else if (message.mentions.includes(this.selfId)) this.#mentioned(message.no);
    const last = this.messages.at(-1);
    if (last === undefined || message.no > last.no) {
      this.messages.push(message);
      this.#byId.set(message.id, message);
    } else this.#replace(message);
    return message;
  }

  // A replay of a message that a page has brought already: looked up, since a long replay may consist of such.
  #replace(message) {
    const held = this.#byId.get(message.id);
    if (held === undefined || message.rev < held.rev || message.asOf < held.asOf) return;
    let low = 0;
    for (let high = this.messages.length - 1; low < high; ) {
      const middle = (low + high) >> 1;
      if (this.messages[middle].no < held.no) low = middle + 1;
      else high = middle;
    }
    this.messages[low] = message;
    this.#byId.set(message.id, message);
  }

  #mentioned(no) {
    if (this.#mentionNos.length < MENTIONS_MAX && !this.#mentionNos.includes(no)) this.#mentionNos.push(no);
  }

  // A change to one message, whether in the window or in a page that has just come.
  #touch(message, { up, d, seq }) {
    if (message === undefined || seq <= message.asOf) return;
    message.asOf = seq;
    if (up === 'message.edited' && d.rev >= message.rev) {
      Object.assign(message, { content: d.content ?? null, mentions: d.mentions ?? [], rev: d.rev, isEdited: true, editedAt: d.editedAt });
    } else if (up === 'message.deleted') {
      Object.assign(message, { content: null, mediaUrl: null, mediaType: null, type: 'DELETED', isDeleted: true, rev: d.rev ?? message.rev });
      message.reactions = [];
    } else if (up === 'message.pinned' || up === 'message.unpinned') {
      message.isPinned = up === 'message.pinned';
    } else if (up === 'reaction.added' || up === 'reaction.removed') {
      this.#react(message, d, up === 'reaction.added');
    }
  }

  #react(message, { emoji, profileId, count = 0 }, added) {
    const old = message.reactions.find((reaction) => reaction.emoji === emoji) ?? { emoji, mine: false, profileIds: [] };
    const others = old.profileIds.filter((id) => id !== profileId);
    const next = {
      ...old,
      count,
      mine: profileId === this.selfId ? added : old.mine,
      profileIds: added ? [...others, profileId].slice(0, 20) : others,
    };
    const at = message.reactions.indexOf(old);
    const rest = message.reactions.filter((reaction) => reaction !== old);
    message.reactions = count === 0 ? rest : rest.toSpliced(at < 0 ? rest.length : at, 0, next);
  }

  #changeRow({ up, d }) {
    if (up === 'thread.changed') this.row = { ...this.row, ...d.thread };
    if (up === 'member.joined') this.row.memberCount += d.profileIds.length;
    if (up === 'member.left') {
      this.row.memberCount = Math.max(0, this.row.memberCount - d.profileIds.length);
      for (const id of d.profileIds) this.members.delete(id);
    }
    if (up === 'member.changed') {
      this.members.set(d.profileId, { ...this.members.get(d.profileId), ...d });
      if (d.profileId === this.selfId && d.role) this.row.role = d.role;
    }
  }

  #finishRead(handle, ok) {
    const kept = this.#reads.get(handle) ?? [];
    this.#reads.delete(handle);
    const page = ok.messages.map((message) => this.#full(message, ok.seq)).sort((a, b) => a.no - b.no);
    for (const update of kept) if (update.seq > ok.seq) this.#touch(page.find(({ id }) => id === update.d.messageId), update);
    return page;
  }

  #merge(page) {
    if (page.length === 0) return;
    for (const message of page) {
      const held = this.#byId.get(message.id);
      const newer = held === undefined || (message.rev >= held.rev && message.asOf >= held.asOf);
      if (newer) this.#byId.set(message.id, message);
    }
    this.messages = [...this.#byId.values()].sort((a, b) => a.no - b.no);
  }

  #index() {
    this.#byId = new Map(this.messages.map((message) => [message.id, message]));
  }

  #setMembers(members) {
    if (!members) return;
    this.members = new Map(members.map((member) => [member.profileId, member]));
  }

  // What updates leave out is null, false or empty.
  #full(message, asOf) {
    return {
      threadId: this.id, type: 'TEXT', content: null, mediaUrl: null, mediaType: null, replyToId: null, nonce: null,
      isEdited: false, isDeleted: false, isPinned: false, rev: 1, editedAt: null, mentions: [], reactions: [], seq: asOf,
      ...message, asOf,
    };
  }
}

function later(a, b) {
  if (!a || !b) return a ?? b ?? null;
  return a > b ? a : b;
}
