// The strip that says how the connection is: three colours when live, moving while catching up, a notice when offline.

import { hide } from './stay.js';

const byId = (id) => document.getElementById(id);

export class Strip {
  #strip = byId('connection');
  #text = byId('connection-text');
  #retry = byId('connection-retry');
  #countdown = null;
  #tried = false;
  #home;

  /** @param {() => void} home takes whoever pressed the button back to what they were at, once it goes */
  constructor(haus, home) {
    this.#home = home;
    haus.on('state', (change) => this.#show(change));
    this.#retry.addEventListener('click', () => haus.nudge());
  }

  #show({ state, retryInMs, code, reason }) {
    this.#strip.dataset.state = state;
    clearInterval(this.#countdown);
    const retrying = retryInMs !== undefined;
    const stopped = code >= 4400 && code <= 4499 && !retrying;
    hide(this.#retry, state !== 'offline' || !(retrying || stopped || this.#tried), this.#home);
    this.#retry.textContent = stopped ? 'Connect again' : 'Try now';
    if (state === 'live') this.#text.textContent = 'Connected';
    else if (state === 'catching-up') this.#text.textContent = 'Catching up';
    else if (code === 4409) this.#text.textContent = 'Opened on too many devices. This one was let go.';
    else if (code === 4426) this.#text.textContent = 'There is a newer version of this page. Please load it again.';
    else if (stopped) this.#text.textContent = `The connection was ended${typeof reason === 'string' ? ` (${reason})` : ''}.`;
    else if (retrying || this.#tried) this.#countDown(retryInMs ?? 0);
    else this.#text.textContent = 'Connecting …';
    this.#tried = state === 'offline' && (this.#tried || retrying);
    this.#strip.classList.toggle('notice', this.#tried || stopped);
  }

  // Said once to a screen reader: the seconds are not announced.
  #countDown(retryInMs) {
    const endsAt = performance.now() + retryInMs;
    if (!this.#text.querySelector('span')) {
      const seconds = document.createElement('span');
      seconds.setAttribute('aria-hidden', 'true');
      this.#text.replaceChildren('Offline. What you write is kept and sent later. ', seconds);
    }
    const seconds = this.#text.querySelector('span');
    const tick = () => {
      const left = Math.ceil((endsAt - performance.now()) / 1000);
      seconds.textContent = left > 1 ? `Next try in ${left} s` : 'Trying now …';
    };
    tick();
    this.#countdown = setInterval(tick, 1000);
  }
}
