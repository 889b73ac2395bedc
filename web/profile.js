// One's own profile: seen and changed, and the way out.

import { paintAvatar } from './format.js';
import { errorText } from './words.js';

const byId = (id) => document.getElementById(id);
const FIELDS = ['displayName', 'ballroomName', 'pronouns', 'bio'];

export class Profile {
  #haus;
  #changed;
  #dialog = byId('profile');
  #form = byId('profile-form');
  #known = {};
  #busy = false;
  /** Counts what was asked for: an answer to something earlier is too late. */
  #asked = 0;

  /** @param {(profile: object) => void} changed */
  constructor(haus, changed) {
    this.#haus = haus;
    this.#changed = changed;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#save();
    });
    byId('profile-close').addEventListener('click', () => this.#dialog.close());
  }

  async open() {
    this.#say('');
    this.#fill({ ...this.#haus.profile, ...this.#haus.people.get(this.#haus.profile.id) });
    this.#dialog.showModal();
    this.#field('displayName').focus();
    this.#asked += 1;
    const mine = this.#asked;
    try {
      const profile = await this.#haus.request('GET', '/v1/me');
      // Older than what was saved, or opened, meanwhile.
      if (mine !== this.#asked) return;
      const untouched = FIELDS.every((name) => this.#field(name).value === (this.#known[name] ?? ''));
      if (untouched) this.#fill(profile);
      this.#changed(profile);
    } catch (error) {
      if (mine === this.#asked) this.#say(errorText(error), true);
    }
  }

  close() {
    this.#dialog.close();
  }

  #field(name) {
    return this.#form.elements[name];
  }

  #fill(profile) {
    this.#known = profile;
    for (const name of FIELDS) {
      // Set anew, even to the same, it would move the caret.
      const value = profile[name] ?? '';
      if (this.#field(name).value !== value) this.#field(name).value = value;
    }
    paintAvatar(byId('profile-avatar'), profile.id, profile.displayName, true);
    byId('profile-standing').hidden = profile.status !== 'PENDING';
  }

  async #save() {
    if (this.#busy) return;
    const change = {};
    for (const name of FIELDS) {
      const value = this.#field(name).value.trim();
      if (value !== (this.#known[name] ?? '')) change[name] = value === '' && name !== 'displayName' ? null : value;
    }
    if (Object.keys(change).length === 0) {
      this.#dialog.close();
      return;
    }
    this.#setBusy(true);
    this.#asked += 1;
    this.#say('Saving …');
    try {
      const profile = await this.#haus.request('PATCH', '/v1/me', change);
      this.#fill(profile);
      this.#changed(profile);
      this.#dialog.close();
    } catch (error) {
      this.#say(errorText(error), true);
      const named = error.details?.errors?.[0]?.path;
      if (FIELDS.includes(named)) this.#field(named).focus();
    } finally {
      this.#setBusy(false);
    }
  }

  // What would be written while the answer is on its way would be lost with it.
  #setBusy(busy) {
    this.#busy = busy;
    for (const name of FIELDS) this.#field(name).readOnly = busy;
  }

  #say(words, wrong = false) {
    byId('profile-error').textContent = words;
    byId('profile-error').classList.toggle('wrong', wrong);
  }
}
