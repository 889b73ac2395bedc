// The conversation on screen: loading, scrolling, reading. How messages look is in messages.js, writing in composer.js.

import { Composer } from './composer.js';
import { isolate, paintAvatar, threadName } from './format.js';
import { once } from './frame.js';
import { MessageView } from './messages.js';
import { hide, setText } from './stay.js';

/** Nearer to the end than this counts as at the end, pixels. */
const AT_END_PX = 60;
/** More messages are shown, or asked for, when an end of the list is nearer than this, pixels. */
const NEAR_PX = 600;
/** Members named under the title. */
const NAMES_SHOWN = 3;
/** So long after a touch, a key or an opening somebody is taken to be there, even if another window has the focus. */
const PRESENT_MS = 30_000;

const byId = (id) => document.getElementById(id);

export class Conversation {
  #haus;
  #view;
  #composer;
  #thread = null;
  #id = null;
  #freshAfter = null;
  #atEnd = true;
  #missed = 0;
  #sizeSeen = '';
  #olderFailed = false;
  #loadingOlder = false;
  #actedAt = 0;
  #draw = once(() => this.#render());

  #section = byId('conversation');
  #scroller = byId('scroller');
  #jump = byId('jump');

  constructor(haus) {
    this.#haus = haus;
    this.#view = new MessageView(haus, () => this.focus());
    this.#composer = new Composer(haus, () => {
      this.#freshAfter = null;
      this.#toEnd();
      this.#render();
    });
    haus.on('thread', (id) => id === this.#id && this.#draw());
    haus.on('people', this.#draw);
    haus.on('message', (arrival) => this.#arrived(arrival));
    haus.on('removed', ({ threadId }) => threadId === this.#id && this.#gone());
    this.#scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    // The room changes: a longer text is written, a keyboard comes up, the window is another size.
    const room = new ResizeObserver(() => this.#atEnd && this.#toEnd());
    room.observe(this.#scroller);
    room.observe(byId('messages'));
    this.#jump.addEventListener('click', () => {
      this.#toEnd();
      this.#render();
      this.focus();
    });
    byId('top-retry').addEventListener('click', () => this.#older());
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

  /** Whether something is written that was not sent. */
  get writing() {
    return this.#id !== null && this.#composer.open && !this.#composer.empty;
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
    this.#composer.show(threadId);
    if (threadId === null) return;
    this.#freshAfter = null;
    this.#actedAt = Date.now();
    this.#atEnd = true;
    this.#missed = 0;
    this.#olderFailed = false;
    this.#blank();
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
    if (matchMedia('(hover: hover)').matches && this.#composer.open) this.#composer.focus();
    else byId('title').focus();
  }

  /** Draws all of it again: a new day, another name. */
  refresh() {
    this.#draw();
  }

  #leave() {
    this.#haus.close(this.#id);
    this.#haus.focus(null, false);
    this.#view.clear();
  }

  #gone() {
    byId('gone').hidden = false;
    hide(this.#section, true, byId('gone-title'));
    this.#view.clear();
  }

  // Until the thread is known, nothing of the one before may stand there.
  #blank() {
    byId('title').textContent = 'Opening …';
    byId('subtitle').textContent = '';
    byId('top-text').textContent = 'Loading messages …';
    byId('top-retry').hidden = true;
    byId('typing').hidden = true;
    byId('members-open').hidden = true;
    this.#composer.close('');
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
      this.#view.follow(this.#atEnd);
      this.#keepingPlace(() => {
        this.#view.render(thread, this.#freshAfter);
        this.#typing(thread);
        this.#top(thread);
      });
      this.#haus.reading(thread.id, this.#view.from);
      this.#jumpState();
      if (!this.#atEnd && this.#toCome < NEAR_PX && this.#view.later(thread)) this.#draw();
    } else this.#top(thread);
    this.#read();
  }

  // At the end one stays there; elsewhere the first message in sight stays where it is on the screen.
  #keepingPlace(change) {
    if (this.#atEnd) {
      change();
      this.#toEnd();
      return;
    }
    const { top } = this.#scroller.getBoundingClientRect();
    const inSight = [...byId('messages').children].find((element) => element.getBoundingClientRect().bottom > top);
    const before = inSight?.getBoundingClientRect().top;
    change();
    if (inSight?.isConnected) this.#scroller.scrollTop += inSight.getBoundingClientRect().top - before;
  }

  #head(thread) {
    const { row, id } = thread;
    // Asks for it where it has grown old.
    this.#haus.people.get(row.peer?.id);
    const name = threadName(thread);
    setText(byId('title'), name);
    paintAvatar(byId('title-avatar'), row.peer?.id ?? id, name, row.type === 'DIRECT');
    const kind = { DIRECT: 'Just the two of you', HOUSE: 'House', ANNOUNCE: 'Announcements' }[row.type];
    setText(byId('subtitle'), row.type === 'DIRECT' ? kind : [kind, this.#memberNames(thread)].filter(Boolean).join(' · '));
    byId('members-open').hidden = false;
    this.#composer.close(row.isArchived ? 'This conversation is closed.' : row.canSend ? '' : 'Only moderators write here.');
  }

  #memberNames({ members, row, selfId }) {
    const others = [...members.values()].filter(({ profileId }) => profileId !== selfId).slice(0, NAMES_SHOWN);
    const shown = others.map(({ profileId, displayName }) => this.#haus.people.get(profileId)?.displayName ?? displayName).filter(Boolean).map(isolate);
    const rest = row.memberCount - 1 - shown.length;
    if (shown.length === 0) return row.memberCount === 1 ? '1 person' : `${row.memberCount} people`;
    return rest > 0 ? `${shown.join(', ')} and ${rest} more` : shown.join(', ');
  }

  #top(thread) {
    const words = !thread.loaded ? 'Loading messages …'
      : this.#olderFailed ? 'Earlier messages could not be loaded.'
      : thread.hasOlder && thread.messages.length > 0 ? 'Loading earlier messages …'
      : thread.messages.length === 0 ? 'Nobody has walked yet. Open the floor.'
      : thread.row.type === 'DIRECT' ? `This is the beginning of your conversation with ${isolate(threadName(thread))}.`
      : `This is where ${isolate(threadName(thread))} begins.`;
    setText(byId('top-text'), words);
    this.#scroller.classList.toggle('bare', thread.loaded && thread.messages.length === 0 && this.#haus.pending(thread.id).length === 0);
    hide(byId('top-retry'), !this.#olderFailed, this.#scroller);
  }

  #typing(thread) {
    const names = this.#haus.typists(thread.id).map((id) => this.#haus.people.get(id)?.displayName).filter(Boolean).map(isolate);
    byId('typing').hidden = names.length === 0;
    byId('typing-text').textContent = names.length > 2 ? 'Several people are typing' : `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} typing`;
  }

  // What the thread holds first, then what the server has.
  async #older() {
    const thread = this.#thread;
    if (!thread?.loaded || this.#loadingOlder || this.#scroller.scrollTop > NEAR_PX) return;
    if (this.#view.holdsEarlier(thread)) {
      if (this.#atEnd) return;
      this.#view.earlier(thread);
      this.#render();
      return;
    }
    if (!thread.hasOlder) return;
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
    if (!this.#atEnd) this.#view.earlier(thread);
    this.#render();
    if (!this.#olderFailed) requestAnimationFrame(() => this.#older());
  }

  /** Pixels of messages below what is in sight. */
  get #toCome() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  #scrolled() {
    // Whoever is at the end and is moved by a change of room, not by a hand, stays there.
    if (this.#atEnd && this.#size !== this.#sizeSeen) {
      this.#toEnd();
      return;
    }
    this.#sizeSeen = this.#size;
    const toCome = this.#toCome;
    const moved = toCome < NEAR_PX && this.#thread !== null && this.#view.later(this.#thread);
    if (moved) this.#draw();
    this.#atEnd = toCome < AT_END_PX && !moved;
    this.#view.follow(this.#atEnd);
    if (this.#id !== null) this.#haus.reading(this.#id, this.#view.from);
    if (this.#atEnd) {
      this.#missed = 0;
      this.#read();
    }
    this.#jumpState();
    if (!this.#olderFailed) this.#older();
  }

  /** How much there is to scroll, and the room for it. */
  get #size() {
    return `${this.#scroller.scrollHeight} ${this.#scroller.clientHeight}`;
  }

  #toEnd() {
    this.#atEnd = true;
    this.#missed = 0;
    this.#view.follow(true);
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#sizeSeen = this.#size;
    this.#jumpState();
  }

  #jumpState() {
    hide(this.#jump, this.#atEnd, this.#scroller);
    this.#jump.classList.toggle('has-new', this.#missed > 0);
    byId('jump-text').textContent = this.#missed > 0 ? `${this.#missed} new` : 'Latest';
  }

  #arrived({ thread, message }) {
    if (thread.id !== this.#id || message.senderId === this.#haus.profile?.id) return;
    if (!this.#attentive() && this.#freshAfter === null) this.#freshAfter = message.no - 1;
    if (!this.#atEnd) this.#missed += 1;
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
}
