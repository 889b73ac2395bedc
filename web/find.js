// Finding people: to start a conversation with one or several, or to let them into one.

import { isolate, paintAvatar } from './format.js';
import { composing } from './composer.js';
import { arrange, hide, remove, setText } from './stay.js';
import { errorText } from './words.js';

/** After the last key, milliseconds. */
const ASK_AFTER_MS = 250;
/** People of one answer. */
const ASKED = 20;

const byId = (id) => document.getElementById(id);

export class Find {
  #haus;
  #opened;
  #dialog = byId('find');
  #field = byId('find-input');
  #results = byId('find-results');
  #items = new Map();
  #chosen = new Map();
  #into = null;
  #timer = null;
  #asked = 0;
  #busy = false;

  /** @param {(threadId: string) => void} opened a conversation is there to be shown */
  constructor(haus, opened) {
    this.#haus = haus;
    this.#opened = opened;
    this.#field.addEventListener('input', () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#ask(), ASK_AFTER_MS);
    });
    this.#dialog.addEventListener('keydown', (event) => this.#keys(event));
    this.#results.addEventListener('click', ({ target }) => this.#toggle(target.closest('button')));
    byId('find-chosen').addEventListener('click', ({ target }) => this.#drop(target.closest('button')?.dataset.profileId));
    byId('find-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#go();
    });
    byId('find-cancel').addEventListener('click', () => this.#dialog.close());
  }

  /** @param {import('./js/thread.js').Thread | null} into let people into this thread; null: a new conversation */
  open(into = null) {
    this.#into = into;
    this.#chosen.clear();
    this.#asked += 1;
    byId('find-form').reset();
    byId('find-title').textContent = into === null ? 'Start a conversation' : 'Add people';
    this.#say('Type the first letters of a name.');
    this.#show([]);
    this.#paint();
    byId('find-error').textContent = '';
    this.#dialog.showModal();
    this.#field.focus();
  }

  async #ask() {
    const words = this.#field.value.trim();
    this.#asked += 1;
    const mine = this.#asked;
    if (words === '') {
      this.#show([]);
      this.#say('Type the first letters of a name.');
      return;
    }
    this.#say('Looking …');
    try {
      const { items } = await this.#haus.request('GET', `/v1/search/profiles?limit=${ASKED}&q=${encodeURIComponent(words)}`);
      if (mine !== this.#asked) return;
      const there = new Set(this.#into === null ? [] : this.#into.members.keys());
      const found = items.filter(({ id }) => id !== this.#haus.profile?.id && !there.has(id));
      this.#show(found);
      this.#say(found.length > 0 ? `${found.length} found` : items.length > 0 ? 'Nobody else by that name.' : 'Nobody by that name.');
    } catch (error) {
      if (mine !== this.#asked) return;
      this.#show([]);
      this.#say(errorText(error));
    }
  }

  #say(words) {
    byId('find-status').textContent = words;
  }

  // Who was found before and is found again stays, with the focus: an answer may come while somebody walks in the list.
  #show(found) {
    const ids = new Set(found.map(({ id }) => id));
    const gone = [...this.#items].filter(([id]) => !ids.has(id));
    for (const [id] of gone) this.#items.delete(id);
    arrange(this.#results, found.map((profile) => this.#result(profile)));
    remove(gone.map(([, item]) => item), this.#field);
  }

  #result(profile) {
    const item = this.#items.get(profile.id) ?? byId('person-template').content.firstElementChild.cloneNode(true);
    this.#items.set(profile.id, item);
    const button = item.querySelector('button');
    button.dataset.profileId = profile.id;
    button.profile = profile;
    paintAvatar(item.querySelector('.avatar'), profile.id, profile.displayName, true);
    setText(item.querySelector('.person-name bdi'), profile.displayName);
    setText(item.querySelector('.person-more'), [profile.ballroomName, profile.pronouns].filter(Boolean).map(isolate).join(' · '));
    button.setAttribute('aria-pressed', String(this.#chosen.has(profile.id)));
    return item;
  }

  #toggle(button) {
    if (!button) return;
    const { profile } = button;
    if (this.#chosen.has(profile.id)) this.#chosen.delete(profile.id);
    else this.#chosen.set(profile.id, profile);
    this.#paint();
  }

  #drop(profileId) {
    if (!this.#chosen.delete(profileId)) return;
    this.#paint();
    this.#field.focus();
  }

  #paint() {
    for (const button of this.#results.querySelectorAll('button')) {
      button.setAttribute('aria-pressed', String(this.#chosen.has(button.dataset.profileId)));
    }
    byId('find-chosen').replaceChildren(...[...this.#chosen.values()].map(({ id, displayName }) => {
      const item = document.createElement('li');
      const button = document.createElement('button');
      button.type = 'button';
      button.dataset.profileId = id;
      button.append(Object.assign(document.createElement('bdi'), { textContent: displayName }));
      button.setAttribute('aria-label', `Take ${isolate(displayName)} out`);
      item.append(button);
      return item;
    }));
    const several = this.#into === null && this.#chosen.size > 1;
    hide(byId('find-name-row'), !several, this.#field);
    byId('find-go').textContent = this.#into !== null ? 'Add' : several ? 'Start group' : 'Start';
  }

  // Down from the field into the list, up and down in it.
  #keys(event) {
    if (composing(event)) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...this.#results.querySelectorAll('button')];
    const at = buttons.indexOf(document.activeElement);
    if (step !== undefined && (at >= 0 || (document.activeElement === this.#field && step > 0))) {
      event.preventDefault();
      (buttons[at + step] ?? (step < 0 ? this.#field : buttons[at]))?.focus();
    } else if (event.key === 'Enter' && document.activeElement === this.#field && this.#chosen.size === 0) {
      event.preventDefault();
      buttons[0]?.focus();
    }
  }

  async #go() {
    if (this.#busy) return;
    const error = byId('find-error');
    const ids = [...this.#chosen.keys()];
    if (ids.length === 0) {
      error.textContent = 'Choose somebody first.';
      this.#field.focus();
      return;
    }
    const name = byId('find-name').value.trim();
    if (this.#into === null && ids.length > 1 && name === '') {
      error.textContent = 'Give the group a name.';
      byId('find-name').focus();
      return;
    }
    this.#busy = true;
    error.textContent = '';
    byId('find-go').setAttribute('aria-disabled', 'true');
    try {
      const threadId = await this.#make(ids, name);
      this.#dialog.close();
      this.#opened(threadId);
    } catch (failure) {
      error.textContent = errorText(failure, {
        forbidden: this.#into !== null ? 'Only admins of this conversation add people.'
          : ids.length > 1 ? 'Groups can be made once your account is approved.' : undefined,
        blocked: ids.length > 1 ? 'One of them does not take messages from you.' : 'This person does not take messages from you.',
        not_found: 'One of them is not there any more.',
      });
    } finally {
      this.#busy = false;
      byId('find-go').removeAttribute('aria-disabled');
    }
  }

  async #make(ids, name) {
    if (this.#into !== null) {
      await this.#haus.request('POST', `/v1/threads/${this.#into.id}/members`, { profileIds: ids });
      return this.#into.id;
    }
    const body = ids.length > 1 ? { type: 'GROUP', memberIds: ids, name } : { type: 'DIRECT', memberIds: ids };
    return (await this.#haus.request('POST', '/v1/threads', body)).id;
  }
}
