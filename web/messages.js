// The messages of one conversation as elements: a window of them, grouped, with day headings and the mark where unread ones
// begin. Elements are kept by key, so what is on screen is changed and not made anew. Loads and sends nothing.
//
// However many messages a thread holds, a few are elements. The window follows the newest, or stands where somebody reads
// and moves with them (`earlier`, `later`).

import { clockTime, dayKey, dayName, hue, isolate, onlyEmoji, paintAvatar, systemText } from './format.js';
import { fillText } from './links.js';
import { hide, remove, setText } from './stay.js';
import { failureText } from './words.js';

/** Messages of one person within this time stand together under one name, milliseconds. */
const GROUP_MS = 5 * 60_000;
/** Messages that are elements, at most. */
export const SHOWN_MAX = 200;
/** Of them while the newest is followed: room for a step back. */
const FOLLOWED = 150;
/** The window moves by so many. */
const STEP = 50;

export class MessageView {
  #haus;
  #list = document.getElementById('messages');
  #scroller = document.getElementById('scroller');
  #template = document.getElementById('message-template');
  #elements = new Map();
  // The first and the last `no` shown; null: the window follows the newest.
  #span = null;
  #shown = null;

  /** @param {() => void} acted a failed message was sent again or given up: its buttons go */
  constructor(haus, acted) {
    this.#haus = haus;
    this.#list.addEventListener('click', ({ target }) => {
      const nonce = target.closest('.message')?.dataset.nonce;
      if (!target.matches('.retry, .discard')) return;
      if (target.matches('.retry')) haus.retry(nonce);
      else haus.discard(nonce);
      acted();
    });
  }

  clear() {
    this.#elements.clear();
    this.#list.replaceChildren();
    this.#span = null;
    this.#shown = null;
  }

  /** Follows the newest message, or stays where it is. */
  follow(on) {
    if (on) this.#span = null;
    else this.#span ??= this.#shown;
  }

  /** The first message of a window that stands; null: it follows the newest. */
  get from() {
    return this.#span?.first ?? null;
  }

  /** Whether the thread holds older messages than those shown. */
  holdsEarlier(thread) {
    return this.#bounds(thread.messages)[0] > 0;
  }

  /** Moves the window towards older messages. */
  earlier(thread) {
    const [start, end] = this.#bounds(thread.messages);
    if (start === 0) return;
    const first = Math.max(0, start - STEP);
    this.#stand(thread.messages, first, Math.min(end, first + SHOWN_MAX));
  }

  /** Moves the window towards newer messages. False if it reaches the newest. */
  later(thread) {
    const { length } = thread.messages;
    const [start, end] = this.#bounds(thread.messages);
    if (end === length) return false;
    const last = Math.min(length, end + STEP);
    this.#stand(thread.messages, Math.max(start, last - SHOWN_MAX), last);
    return true;
  }

  /**
   * Shows a thread.
   * @param {number | null} freshAfter the mark "New" stands before the first message of others above this `no`
   */
  render(thread, freshAfter) {
    const rows = this.#rows(thread, freshAfter);
    const keys = new Set(rows.map(({ key }) => key));
    const gone = [...this.#elements].filter(([key]) => !keys.has(key));
    remove(gone.map(([, { element }]) => element), this.#scroller);
    for (const [key] of gone) this.#elements.delete(key);
    const first = this.#list.childElementCount === 0;
    let at = this.#list.firstElementChild;
    for (const row of rows) {
      const element = this.#element(row, first);
      if (element === at) at = at.nextElementSibling;
      else this.#list.insertBefore(element, at);
    }
  }

  #stand(messages, start, end) {
    this.#span = { first: messages[start].no, last: messages[end - 1].no };
  }

  // Places in `messages`: from, and up to but not with. A window whose messages are gone follows the newest.
  #bounds(messages) {
    if (this.#span !== null) {
      const start = placeOf(messages, this.#span.first);
      const end = placeOf(messages, this.#span.last + 1);
      if (start < end) return [start, Math.min(end, start + SHOWN_MAX)];
      this.#span = null;
    }
    return [Math.max(0, messages.length - FOLLOWED), messages.length];
  }

  #rows(thread, freshAfter) {
    const selfId = this.#haus.profile?.id;
    const { messages } = thread;
    const [start, end] = this.#bounds(messages);
    this.#shown = end > start ? { first: messages[start].no, last: messages[end - 1].no } : null;
    // The oldest unsent ones go with the newest messages; a long queue is not all elements.
    const unsent = end === messages.length ? this.#unsent(messages.slice(start), thread.id, selfId).slice(0, SHOWN_MAX - (end - start)) : [];
    const all = [...messages.slice(start, end).map((message) => arrived(message, selfId)), ...unsent];
    const rows = [];
    let previous = null;
    let marked = false;
    for (const row of all) {
      const newDay = previous === null || dayKey(previous.sentAt) !== dayKey(row.sentAt);
      if (newDay) rows.push({ key: `day ${dayKey(row.sentAt)}`, kind: 'day', text: dayName(row.sentAt) });
      const unseen = freshAfter !== null && !marked && row.no > freshAfter && !row.own;
      // The first unseen one may stand before the window.
      const fresh = unseen && !(previous === null && start > 0 && messages[start - 1].no > freshAfter);
      if (fresh) rows.push({ key: 'fresh', kind: 'fresh', text: 'New' });
      if (unseen) marked = true;
      row.joined = !newDay && !fresh && previous.kind === row.kind && previous.senderId === row.senderId
        && new Date(row.sentAt) - new Date(previous.sentAt) < GROUP_MS;
      rows.push(row);
      previous = row;
    }
    all.forEach((row, index) => {
      row.last = !all[index + 1]?.joined;
      row.quoted = row.replyToId ? messages.find(({ id }) => id === row.replyToId)?.content ?? '…' : null;
      row.name = row.kind === 'message' && row.own ? '' : this.#haus.people.get(row.senderId)?.displayName ?? '';
    });
    return rows;
  }

  // Acknowledged ones whose update has not come yet stay, unless the thread has them by now.
  #unsent(shown, threadId, selfId) {
    const held = new Set(shown.filter(({ senderId }) => senderId === selfId).map(({ nonce }) => nonce));
    return this.#haus.pending(threadId).filter(({ nonce }) => !held.has(nonce)).map((item) => ({
      key: item.nonce, kind: 'message', own: true, senderId: selfId, nonce: item.nonce, no: item.ok?.no ?? Infinity,
      sentAt: item.ok?.sentAt ?? new Date(item.at).toISOString(), text: item.body.content ?? '', reactions: [],
      state: item.state === 'queued' ? 'sending' : item.state, failure: item.error ? failureText(item.error) : '',
      replyToId: item.body.replyToId ?? null,
    }));
  }

  #element(row, first) {
    const held = this.#elements.get(row.key);
    const shown = JSON.stringify(row);
    if (held?.shown === shown) return held.element;
    const element = held?.element ?? (row.kind === 'message' ? this.#template.content.firstElementChild.cloneNode(true) : document.createElement('li'));
    if (row.kind === 'message') this.#fill(element, row);
    else {
      element.className = row.kind;
      setText(element, row.kind === 'system' && row.name !== '' ? `${isolate(row.name)} ${row.text}` : row.text);
    }
    if (!held && !first && row.kind === 'message' && row.last) element.classList.add('arriving');
    this.#elements.set(row.key, { element, shown });
    return element;
  }

  #fill(element, row) {
    element.dataset.state = row.state;
    element.dataset.hue = hue(row.senderId, row.name);
    if (row.no !== Infinity) element.dataset.no = row.no;
    if (row.nonce) element.dataset.nonce = row.nonce;
    const flags = { own: row.own, joined: row.joined, deleted: row.isDeleted, emoji: !row.isDeleted && onlyEmoji(row.text) };
    for (const [name, on] of Object.entries(flags)) element.classList.toggle(name, Boolean(on));
    if (!row.own) {
      paintAvatar(element.querySelector('.avatar'), row.senderId, row.name, true);
      setText(element.querySelector('.message-name'), row.name || 'Somebody');
    }
    const time = element.querySelector('time');
    setText(time, clockTime(row.sentAt));
    time.dateTime = row.sentAt;
    element.querySelector('.bubble').title = new Date(row.sentAt).toLocaleString();
    const words = row.isDeleted ? 'Message deleted' : row.text;
    // Only what was changed is made anew: in the rest somebody may be selecting, or stand on a link.
    if (element.words !== words) fillText(element.querySelector('.text'), words);
    element.words = words;
    const quote = element.querySelector('.quote');
    quote.hidden = row.quoted === null;
    setText(quote, row.quoted ?? '');
    setText(element.querySelector('.status'), statusText(row));
    for (const name of ['retry', 'discard']) hide(element.querySelector(`.${name}`), row.state !== 'failed', this.#scroller);
    this.#reactions(element.querySelector('.reactions'), row.reactions);
  }

  #reactions(list, reactions) {
    list.hidden = reactions.length === 0;
    while (list.childElementCount > reactions.length) list.lastElementChild.remove();
    reactions.forEach(({ emoji, count, mine }, index) => {
      const item = list.children[index] ?? list.appendChild(document.createElement('li'));
      setText(item, `${emoji} ${count}`);
      item.classList.toggle('mine', mine);
    });
  }
}

/** How many messages stand before this `no`. */
function placeOf(messages, no) {
  let [low, high] = [0, messages.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (messages[middle].no < no) low = middle + 1;
    else high = middle;
  }
  return low;
}

function arrived(message, selfId) {
  const own = message.senderId === selfId;
  const system = message.type === 'SYSTEM';
  return {
    key: own && message.nonce ? message.nonce : message.id,
    kind: system ? 'system' : 'message',
    own,
    senderId: message.senderId,
    nonce: own ? message.nonce : null,
    no: message.no,
    sentAt: message.sentAt,
    text: system ? systemText(message.content) : (message.content ?? (message.mediaUrl ? 'Attachment' : '')),
    isDeleted: message.isDeleted,
    isEdited: message.isEdited,
    reactions: message.reactions,
    replyToId: message.replyToId,
    state: 'sent',
    failure: '',
  };
}

function statusText(row) {
  if (row.state === 'failed') return row.failure;
  if (row.state === 'sending') return 'Sending …';
  const parts = [row.isEdited && !row.isDeleted ? 'edited' : '', row.own && row.last ? `${clockTime(row.sentAt)} · Sent` : ''];
  return parts.filter(Boolean).join(' · ');
}
