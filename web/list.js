// The list of conversations: names, last messages, unread counts. Reads the client; changes nothing but its own elements.

import { isolate, listTime, paintAvatar, systemText, threadName } from './format.js';
import { once } from './frame.js';
import { arrange, hide, remove, setText } from './stay.js';
import { errorText } from './words.js';

/** Of so many at the top a name that was changed is noticed while the list stands there; of others when they are opened. */
const NAMED = 30;

export class ThreadList {
  #haus;
  #list = document.getElementById('threads');
  #empty = document.getElementById('threads-empty');
  #more = document.getElementById('threads-more');
  #template = document.getElementById('thread-template');
  #items = new Map();
  #current = null;
  #focusWanted = false;
  #draw = once(() => this.render());
  // Previews are asked for where they can be seen.
  #seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) this.#haus.preview(target.dataset.threadId);
  });

  constructor(haus) {
    this.#haus = haus;
    for (const notice of ['threads', 'people', 'state']) haus.on(notice, this.#draw);
    this.#more.addEventListener('click', async () => {
      this.#more.textContent = 'Loading …';
      const failed = await haus.moreThreads().then(() => null, (error) => error);
      this.#more.textContent = failed === null ? 'Show more' : `${errorText(failed)} Try again`;
    });
    this.#list.addEventListener('keydown', (event) => this.#arrows(event));
  }

  /** Marks the conversation on screen. */
  select(threadId) {
    this.#current = threadId;
    this.render();
  }

  /** Puts the focus on a conversation of the list; the first one if that is not there, and once there is one. */
  focus(threadId) {
    const item = this.#items.get(threadId) ?? this.#list.firstElementChild;
    const heading = document.getElementById('threads-title');
    (item?.firstElementChild ?? heading).focus({ preventScroll: true });
    this.#focusWanted = !item;
  }

  /** The id `step` places after the one on screen. */
  neighbour(step) {
    const ids = [...this.#list.children].map((item) => item.firstElementChild.dataset.threadId);
    const at = ids.indexOf(this.#current);
    return ids[at < 0 ? 0 : at + step] ?? null;
  }

  render() {
    const threads = this.#haus.threads();
    const present = new Set(threads.map(({ id }) => id));
    for (const [id, item] of this.#items) if (!present.has(id)) this.#drop(id, item);
    arrange(this.#list, threads.map((thread, index) => {
      if (index < NAMED) this.#haus.people.get(thread.row.peer?.id);
      const item = this.#items.get(thread.id) ?? this.#make(thread);
      this.#fill(item, thread);
      return item;
    }));
    if (this.#focusWanted && threads.length > 0) {
      // Unless the person has gone elsewhere meanwhile.
      if (document.activeElement === document.getElementById('threads-title')) this.focus(null);
      this.#focusWanted = false;
    }
    this.#empty.hidden = threads.length > 0 || this.#haus.state === 'offline';
    hide(this.#more, !this.#haus.hasMoreThreads, () => this.#list.lastElementChild?.firstElementChild.focus());
  }

  #make(thread) {
    const item = this.#template.content.firstElementChild.cloneNode(true);
    const anchor = item.querySelector('.thread');
    anchor.dataset.threadId = thread.id;
    anchor.href = `#/t/${thread.id}`;
    this.#items.set(thread.id, item);
    this.#seen.observe(anchor);
    return item;
  }

  #drop(id, item) {
    this.#seen.unobserve(item.firstElementChild);
    this.#items.delete(id);
    const beside = item.nextElementSibling ?? item.previousElementSibling;
    remove([item], beside?.firstElementChild ?? document.getElementById('threads-title'));
  }

  #fill(item, thread) {
    const name = threadName(thread);
    const last = thread.last;
    const waiting = this.#haus.pending(thread.id).filter(({ state }) => state !== 'sent').at(-1);
    const [who, text] = waiting ? [waiting.state === 'failed' ? 'Not sent' : 'You', waiting.body.content]
      : last ? this.#lastText(thread, last) : ['', thread.row.no === 0 ? 'Nobody has walked yet' : ''];
    const shown = JSON.stringify([name, who, text, thread.unread, thread.row.lastMessageAt, thread.id === this.#current, new Date().getDate()]);
    const anchor = item.firstElementChild;
    if (item.dataset.shown === shown) return;
    item.dataset.shown = shown;
    anchor.dataset.type = thread.row.type;
    anchor.classList.toggle('unread', thread.unread > 0);
    if (thread.id === this.#current) anchor.setAttribute('aria-current', 'page');
    else anchor.removeAttribute('aria-current');
    paintAvatar(anchor.querySelector('.avatar'), thread.row.peer?.id ?? thread.id, name, thread.row.type === 'DIRECT');
    setText(anchor.querySelector('.thread-name'), name);
    anchor.querySelector('.thread-who').hidden = who === '';
    setText(anchor.querySelector('.thread-who bdi'), who);
    setText(anchor.querySelector('.thread-text'), text);
    const time = anchor.querySelector('.thread-time');
    time.textContent = listTime(thread.row.lastMessageAt);
    if (thread.row.lastMessageAt) time.dateTime = thread.row.lastMessageAt;
    const unread = anchor.querySelector('.thread-unread');
    unread.hidden = thread.unread === 0;
    unread.textContent = thread.unread > 99 ? '99+' : thread.unread;
    unread.setAttribute('aria-label', `${thread.unread} unread`);
    // In view without a message: it became so after the observer looked.
    if (last === null) queueMicrotask(() => this.#previewIfVisible(anchor));
  }

  #previewIfVisible(anchor) {
    const { top, bottom } = anchor.getBoundingClientRect();
    if (bottom > 0 && top < innerHeight) this.#haus.preview(anchor.dataset.threadId);
  }

  // Who says it, where that is told, and what.
  #lastText(thread, message) {
    if (message.isDeleted) return ['', 'Message deleted'];
    const own = message.senderId === this.#haus.profile?.id;
    const sender = own ? 'You' : this.#haus.people.get(message.senderId)?.displayName;
    const text = message.type === 'SYSTEM' ? systemText(message.content) : (message.content ?? 'Attachment');
    if (message.type === 'SYSTEM') return ['', sender ? `${isolate(sender)} ${text}` : text];
    return [own || (thread.row.type !== 'DIRECT' && sender) ? sender : '', text];
  }

  #arrows(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const item = document.activeElement.closest?.('#threads > li');
    if (step === undefined || !item) return;
    event.preventDefault();
    (step > 0 ? item.nextElementSibling : item.previousElementSibling)?.firstElementChild.focus();
  }
}
