// The conversation on screen: loading, scrolling, reading, writing. How messages look is in messages.js.

import { paintAvatar, threadName } from './format.js';
import { MessageView } from './messages.js';

/** Nearer to the end than this counts as at the end, pixels. */
const AT_END_PX = 60;
/** Older messages are asked for when the top is nearer than this, pixels. */
const NEAR_TOP_PX = 600;
/** Characters of one message (protocol: `contentChars`). */
const CONTENT_MAX = 4_000;
/** Left so many characters, the count shows. */
const COUNT_FROM = 300;
/** `typing` is told at most so often, milliseconds. */
const TYPING_EVERY_MS = 3_000;
/** Members named under the title. */
const NAMES_SHOWN = 3;

/** So long after a touch, a key or an opening somebody is taken to be there, even if another window has the focus. */
const PRESENT_MS = 30_000;

const byId = (id) => document.getElementById(id);

export class Conversation {
  #haus;
  #view;
  #thread = null;
  #id = null;
  #freshAfter = null;
  #atEnd = true;
  #missed = 0;
  #olderFailed = false;
  #loadingOlder = false;
  #typingToldAt = 0;
  #actedAt = 0;
  #drafts = new Map();

  #section = byId('conversation');
  #scroller = byId('scroller');
  #composer = byId('composer');
  #jump = byId('jump');

  constructor(haus) {
    this.#haus = haus;
    this.#view = new MessageView(haus);
    haus.on('thread', (id) => id === this.#id && this.#render());
    haus.on('people', () => this.#render());
    haus.on('message', (arrival) => this.#arrived(arrival));
    haus.on('removed', ({ threadId }) => threadId === this.#id && this.#gone());
    this.#scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#atEnd && this.#toEnd()).observe(this.#scroller);
    this.#jump.addEventListener('click', () => {
      this.#toEnd();
      this.#composer.focus();
    });
    byId('top-retry').addEventListener('click', () => this.#older());
    byId('composer-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#composer.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    this.#composer.addEventListener('input', () => this.#typed());
    document.addEventListener('visibilitychange', () => this.#attention());
    window.addEventListener('focus', () => this.#attention());
    window.addEventListener('blur', () => this.#attention());
    for (const act of ['pointerdown', 'keydown', 'input', 'wheel']) {
      this.#section.addEventListener(act, () => (this.#actedAt = Date.now()), { passive: true, capture: true });
    }
  }

  get id() {
    return this.#id;
  }

  /** Shows a conversation; null: none. */
  async show(threadId) {
    if (threadId === this.#id) return;
    if (this.#id !== null) this.#leave();
    this.#id = threadId;
    this.#thread = null;
    byId('gone').hidden = true;
    byId('nothing').hidden = threadId !== null;
    this.#section.hidden = threadId === null;
    if (threadId === null) return;
    this.#freshAfter = null;
    this.#actedAt = Date.now();
    this.#atEnd = true;
    this.#missed = 0;
    this.#olderFailed = false;
    this.#composer.value = this.#drafts.get(threadId) ?? '';
    this.#typed(false);
    this.#render();
    this.#attention();
    try {
      await this.#haus.open(threadId);
    } catch (error) {
      if (this.#id === threadId && error.code !== 'signed_out') this.#gone();
      return;
    }
    if (this.#id !== threadId) return;
    this.#render();
    this.#older();
  }

  focus() {
    if (matchMedia('(hover: hover)').matches && !byId('composer-form').hidden) this.#composer.focus();
    else byId('title').focus();
  }

  #leave() {
    this.#drafts.set(this.#id, this.#composer.value);
    this.#haus.close(this.#id);
    this.#haus.focus(null, false);
    this.#view.clear();
  }

  #gone() {
    this.#section.hidden = true;
    byId('gone').hidden = false;
    this.#view.clear();
  }

  #render() {
    const thread = this.#id === null ? null : this.#haus.thread(this.#id);
    if (thread === null) return;
    if (this.#thread !== thread) {
      this.#thread = thread;
      this.#freshAfter = thread.unread > 0 ? thread.row.lastReadNo : null;
    }
    this.#head(thread);
    if (thread.loaded || this.#haus.pending(thread.id).length > 0) {
      const { scrollHeight, scrollTop } = this.#scroller;
      const oldest = thread.messages[0]?.no;
      const grewInFront = oldest < Number(this.#section.dataset.oldest);
      this.#section.dataset.oldest = oldest ?? '';
      this.#view.render(thread, this.#freshAfter);
      this.#typing(thread);
      this.#top(thread);
      if (this.#atEnd) this.#toEnd();
      else if (grewInFront) this.#scroller.scrollTop = scrollTop + this.#scroller.scrollHeight - scrollHeight;
    } else this.#top(thread);
    this.#read();
  }

  #head(thread) {
    const { row, id } = thread;
    const name = threadName(thread);
    byId('title').textContent = name;
    paintAvatar(byId('title-avatar'), row.peer?.id ?? id, name, row.type === 'DIRECT');
    const kind = { DIRECT: 'Just the two of you', HOUSE: 'House', ANNOUNCE: 'Announcements' }[row.type];
    byId('subtitle').textContent = row.type === 'DIRECT' ? kind : [kind, this.#memberNames(thread)].filter(Boolean).join(' · ');
    const closed = row.isArchived ? 'This conversation is closed.' : row.canSend ? '' : 'Only moderators write here.';
    byId('composer-form').hidden = closed !== '';
    byId('closed').hidden = closed === '';
    byId('closed').textContent = closed;
    this.#composer.placeholder = row.type === 'DIRECT' ? `Say something to ${name}` : 'Say something';
  }

  #memberNames({ members, row, selfId }) {
    const names = [...members.values()].filter(({ profileId }) => profileId !== selfId).map(({ displayName }) => displayName).filter(Boolean);
    const shown = names.slice(0, NAMES_SHOWN);
    const rest = row.memberCount - 1 - shown.length;
    if (shown.length === 0) return row.memberCount === 1 ? '1 person' : `${row.memberCount} people`;
    return rest > 0 ? `${shown.join(', ')} and ${rest} more` : shown.join(', ');
  }

  #top(thread) {
    const words = !thread.loaded ? 'Loading messages …'
      : this.#olderFailed ? 'Earlier messages could not be loaded.'
      : thread.hasOlder && thread.messages.length > 0 ? 'Loading earlier messages …'
      : thread.messages.length === 0 ? 'Nobody has walked yet. Open the floor.'
      : `This is where ${threadName(thread)} begins.`;
    byId('top-text').textContent = words;
    this.#scroller.classList.toggle('bare', thread.loaded && thread.messages.length === 0 && this.#haus.pending(thread.id).length === 0);
    byId('top-retry').hidden = !this.#olderFailed;
  }

  #typing(thread) {
    const names = this.#haus.typists(thread.id).map((id) => this.#haus.people.get(id)?.displayName).filter(Boolean);
    byId('typing').hidden = names.length === 0;
    byId('typing-text').textContent = names.length > 2 ? 'Several people are typing' : `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} typing`;
  }

  async #older() {
    const thread = this.#thread;
    if (!thread?.loaded || !thread.hasOlder || this.#loadingOlder || this.#scroller.scrollTop > NEAR_TOP_PX) return;
    this.#loadingOlder = true;
    this.#olderFailed = false;
    this.#top(thread);
    try {
      await this.#haus.older(thread.id);
    } catch {
      this.#olderFailed = true;
    }
    this.#loadingOlder = false;
    if (this.#thread !== thread) return;
    this.#render();
    if (!this.#olderFailed) requestAnimationFrame(() => this.#older());
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < AT_END_PX;
    if (this.#atEnd) {
      this.#missed = 0;
      this.#read();
    }
    this.#jumpState();
    if (!this.#olderFailed) this.#older();
  }

  #toEnd() {
    this.#atEnd = true;
    this.#missed = 0;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#jumpState();
  }

  #jumpState() {
    this.#jump.hidden = this.#atEnd;
    this.#jump.classList.toggle('has-new', this.#missed > 0);
    byId('jump-text').textContent = this.#missed > 0 ? `${this.#missed} new` : 'Latest';
  }

  #arrived({ thread, message }) {
    if (thread.id !== this.#id || message.senderId === this.#haus.profile?.id) return;
    if (!this.#attentive() && this.#freshAfter === null) this.#freshAfter = message.no - 1;
    if (!this.#atEnd) this.#missed += 1;
    this.#jumpState();
  }

  #attentive() {
    return document.visibilityState === 'visible' && (document.hasFocus() || Date.now() - this.#actedAt < PRESENT_MS);
  }

  #attention() {
    if (this.#id === null) return;
    this.#haus.focus(this.#id, this.#attentive());
    this.#read();
  }

  #read() {
    if (this.#thread?.loaded && this.#atEnd && this.#attentive()) this.#haus.read(this.#id, this.#thread.row.no);
  }

  #send() {
    const content = this.#composer.value.trim();
    if (content === '' || [...content].length > CONTENT_MAX || this.#thread === null) return;
    try {
      this.#haus.send(this.#id, content);
    } catch (error) {
      byId('composer-count').textContent = error.message;
      return;
    }
    this.#composer.value = '';
    this.#freshAfter = null;
    this.#typed(false);
    this.#toEnd();
    this.#composer.focus();
  }

  #typed(tell = true) {
    const text = this.#composer.value;
    const left = CONTENT_MAX - [...text.trim()].length;
    const count = byId('composer-count');
    count.textContent = left <= COUNT_FROM ? left : '';
    count.classList.toggle('over', left < 0);
    byId('send').disabled = text.trim() === '' || left < 0;
    this.#composer.style.height = 'auto';
    this.#composer.style.height = `${this.#composer.scrollHeight + 4}px`;
    if (!tell || text === '' || Date.now() - this.#typingToldAt < TYPING_EVERY_MS) return;
    this.#typingToldAt = Date.now();
    this.#haus.typing(this.#id, true);
  }
}
