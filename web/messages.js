// The messages of one conversation as elements: grouped, with day headings and the mark where unread ones begin. Elements
// are kept by key, so what is on screen is changed and not made anew. Loads and sends nothing.

import { clockTime, dayKey, dayName, failureText, fillText, hue, onlyEmoji, paintAvatar, systemText } from './format.js';

/** Messages of one person within this time stand together under one name, milliseconds. */
const GROUP_MS = 5 * 60_000;

export class MessageView {
  #haus;
  #list = document.getElementById('messages');
  #template = document.getElementById('message-template');
  #elements = new Map();

  constructor(haus) {
    this.#haus = haus;
    this.#list.addEventListener('click', ({ target }) => {
      const nonce = target.closest('.message')?.dataset.nonce;
      if (target.matches('.retry')) haus.retry(nonce);
      if (target.matches('.discard')) haus.discard(nonce);
    });
  }

  clear() {
    this.#elements.clear();
    this.#list.replaceChildren();
  }

  /**
   * Shows a thread.
   * @param {number | null} freshAfter the mark "New" stands before the first message of others above this `no`
   */
  render(thread, freshAfter) {
    const rows = this.#rows(thread, freshAfter);
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, { element }] of this.#elements) {
      if (keys.has(key)) continue;
      element.remove();
      this.#elements.delete(key);
    }
    const first = this.#list.childElementCount === 0;
    let at = this.#list.firstElementChild;
    for (const row of rows) {
      const element = this.#element(row, first);
      if (element === at) at = at.nextElementSibling;
      else this.#list.insertBefore(element, at);
    }
  }

  #rows(thread, freshAfter) {
    const selfId = this.#haus.profile?.id;
    const rows = [];
    let previous = null;
    let marked = false;
    const all = [...thread.messages.map((message) => arrived(message, selfId)), ...this.#unsent(thread, selfId)];
    for (const row of all) {
      const newDay = previous === null || dayKey(previous.sentAt) !== dayKey(row.sentAt);
      if (newDay) rows.push({ key: `day ${dayKey(row.sentAt)}`, kind: 'day', text: dayName(row.sentAt) });
      const fresh = freshAfter !== null && !marked && row.no > freshAfter && !row.own;
      if (fresh) {
        rows.push({ key: 'fresh', kind: 'fresh', text: 'New' });
        marked = true;
      }
      row.joined = !newDay && !fresh && previous.kind === row.kind && previous.senderId === row.senderId
        && new Date(row.sentAt) - new Date(previous.sentAt) < GROUP_MS;
      rows.push(row);
      previous = row;
    }
    all.forEach((row, index) => {
      row.last = !all[index + 1]?.joined;
      row.quoted = row.replyToId ? thread.messages.find(({ id }) => id === row.replyToId)?.content ?? '…' : null;
      row.name = row.kind === 'message' && row.own ? '' : this.#haus.people.get(row.senderId)?.displayName ?? '';
    });
    return rows;
  }

  // Acknowledged ones whose update has not come yet stay, unless the thread has them by now.
  #unsent(thread, selfId) {
    const held = new Set(thread.messages.filter(({ senderId }) => senderId === selfId).map(({ nonce }) => nonce));
    return this.#haus.pending(thread.id).filter(({ nonce }) => !held.has(nonce)).map((item) => ({
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
      element.textContent = row.kind === 'system' ? `${row.name} ${row.text}`.trim() : row.text;
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
      element.querySelector('.message-name').textContent = row.name || 'Somebody';
    }
    const time = element.querySelector('time');
    time.textContent = clockTime(row.sentAt);
    time.dateTime = row.sentAt;
    element.querySelector('.bubble').title = new Date(row.sentAt).toLocaleString();
    fillText(element.querySelector('.text'), row.isDeleted ? 'Message deleted' : row.text);
    const quote = element.querySelector('.quote');
    quote.hidden = row.quoted === null;
    quote.textContent = row.quoted ?? '';
    element.querySelector('.status').textContent = statusText(row);
    for (const name of ['retry', 'discard']) element.querySelector(`.${name}`).hidden = row.state !== 'failed';
    this.#reactions(element.querySelector('.reactions'), row.reactions);
  }

  #reactions(list, reactions) {
    list.hidden = reactions.length === 0;
    list.replaceChildren(...reactions.map(({ emoji, count, mine }) => {
      const item = document.createElement('li');
      item.textContent = `${emoji} ${count}`;
      item.classList.toggle('mine', mine);
      return item;
    }));
  }
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
