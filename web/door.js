// The door: log in, or make an account where this deployment lets people do so by themselves.

import { hide } from './stay.js';
import { errorText } from './words.js';

const byId = (id) => document.getElementById(id);
const visible = (element) => element.getClientRects().length > 0;

export class Door {
  #haus;
  #entered;
  #busy = false;

  /** @param {() => void} entered somebody is signed in */
  constructor(haus, entered) {
    this.#haus = haus;
    this.#entered = entered;
    byId('login-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#enter(event.target, () => haus.login(byId('login-email').value.trim(), byId('login-password').value), {
        unauthenticated: 'That e-mail and password do not go together.',
        rate_limited: 'Too many tries. Please wait a moment.',
      });
    });
    byId('register-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const name = byId('register-name').value.trim();
      this.#enter(event.target, () => haus.register(byId('register-email').value.trim(), byId('register-password').value, name), {
        conflict: 'There is an account with this e-mail already. Log in instead?',
        forbidden: 'New accounts are not open right now. Ask somebody of the house to let you in.',
        rate_limited: 'Too many tries. Please wait a moment.',
      });
    });
    byId('to-register').addEventListener('click', () => this.#side('register'));
    byId('to-login').addEventListener('click', () => this.#side('login'));
  }

  /** Shows the door, with a word about why one stands before it. */
  open(message = '') {
    byId('login').hidden = false;
    this.#side('login');
    byId('login-error').textContent = message;
    this.#ask();
  }

  close() {
    byId('login').hidden = true;
    for (const form of [byId('login-form'), byId('register-form')]) form.reset();
  }

  #side(which) {
    for (const side of ['login', 'register']) {
      byId(`${side}-form`).hidden = side !== which;
      byId(`${side}-error`).textContent = '';
    }
    // What was typed on one side is taken along.
    const other = which === 'login' ? 'register' : 'login';
    if (byId(`${other}-email`).value !== '') byId(`${which}-email`).value = byId(`${other}-email`).value;
    byId(`${which}-form`).querySelector('input').focus();
  }

  // Which way to an account there is. Unknown: the way is shown, and the server has the last word.
  async #ask() {
    const answer = await fetch('/v1/system-settings', { signal: AbortSignal.timeout(10_000) })
      .then((response) => (response.ok ? response.json() : null)).catch(() => null);
    const mode = answer?.items?.find(({ key }) => key === 'registration.mode')?.value;
    hide(byId('to-register'), mode === 'closed', byId('login-email'));
    byId('register-closed').hidden = mode !== 'closed';
  }

  async #enter(form, attempt, special) {
    if (this.#busy) return;
    const error = form.querySelector('[role="alert"]');
    const empty = [...form.querySelectorAll('input')].find((input) => input.value.trim() === '');
    if (empty) {
      error.textContent = 'Please fill in every field.';
      empty.focus();
      return;
    }
    const submit = form.querySelector('[type="submit"]');
    const words = submit.textContent;
    this.#busy = true;
    // Not disabled: a disabled button loses the focus of whoever pressed it.
    submit.setAttribute('aria-disabled', 'true');
    submit.textContent = 'One moment …';
    error.textContent = '';
    try {
      await attempt();
      this.#entered();
    } catch (failure) {
      error.textContent = errorText(failure, special);
      const path = failure.details?.errors?.[0]?.path;
      const named = path && form.querySelector(`[name="${CSS.escape(path)}"]`);
      const field = named || form.querySelector('[type="password"]');
      if (visible(field)) field.select();
    } finally {
      this.#busy = false;
      submit.removeAttribute('aria-disabled');
      submit.textContent = words;
    }
  }
}
