// Where one writes: the field, what is left of its length, and the draft of each conversation. What is written goes to the
// client's queue; nothing is sent here.

import { hide } from './stay.js';
import { errorText } from './words.js';

/** Left so many characters, the count shows. */
const COUNT_FROM = 300;
/** `typing` is told at most so often, milliseconds. */
const TYPING_EVERY_MS = 3_000;

const byId = (id) => document.getElementById(id);

/** Whether a key belongs to an input method, which is still putting a word together (Safari says so by 229 alone). */
export const composing = (event) => event.isComposing || event.keyCode === 229;

export class Composer {
  #haus;
  #sent;
  #threadId = null;
  #toldAt = 0;
  #form = byId('composer-form');
  #field = byId('composer');
  #grow = byId('composer-grow');
  #count = byId('composer-count');

  /** @param {() => void} sent called after a message went into the queue */
  constructor(haus, sent) {
    this.#haus = haus;
    this.#sent = sent;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#field.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || composing(event)) return;
      event.preventDefault();
      this.#send();
    });
    this.#field.addEventListener('input', () => this.#typed());
  }

  /** Takes up the draft of a conversation; null: none is open. */
  show(threadId) {
    this.#threadId = threadId;
    this.#field.value = threadId === null ? '' : this.#haus.draft(threadId);
    this.#measure();
  }

  /** Closed with a reason, or open to write. */
  close(reason) {
    hide(this.#form, reason !== '', byId('title'));
    byId('closed').hidden = reason === '';
    byId('closed').textContent = reason;
  }

  get open() {
    return !this.#form.hidden;
  }

  get empty() {
    return this.#field.value.trim() === '';
  }

  focus() {
    this.#field.focus();
  }

  #send() {
    const content = this.#field.value.trim();
    if (content === '' || this.#threadId === null) return;
    const over = [...content].length - this.#max;
    if (over > 0) {
      this.#say(`Too long by ${over} ${over === 1 ? 'character' : 'characters'}: it was not sent.`, true);
      return;
    }
    try {
      this.#haus.send(this.#threadId, content);
    } catch (error) {
      this.#say(errorText(error), true);
      return;
    }
    this.#field.value = '';
    this.#haus.setDraft(this.#threadId, '');
    this.#measure();
    this.#sent();
    this.#field.focus();
  }

  get #max() {
    return this.#haus.limits.contentChars;
  }

  #typed() {
    this.#measure();
    this.#haus.setDraft(this.#threadId, this.#field.value);
    if (this.#field.value === '' || Date.now() - this.#toldAt < TYPING_EVERY_MS) return;
    this.#toldAt = Date.now();
    this.#haus.typing(this.#threadId, true);
  }

  // The element behind the field has its text and makes room for it, so the field need not shrink to be measured.
  #measure() {
    const text = this.#field.value;
    this.#grow.dataset.text = text;
    const left = this.#max - [...text.trim()].length;
    this.#say(left < 0 ? `${-left} too many` : left <= COUNT_FROM ? `${left} left` : '', left < 0);
    byId('send').disabled = text.trim() === '' || left < 0;
  }

  #say(words, wrong) {
    this.#count.textContent = words;
    this.#count.classList.toggle('over', wrong);
  }
}
