// Where the page starts: signing in and out, which view shows, the connection strip. The parts are list.js and
// conversation.js; everything that talks to the server is in /js/haus.js.
//
// The session lives in localStorage (haus.session), so that a reload and a second tab stay signed in. The price: script that
// ran in this origin could read it. Hence the strict content security policy, no foreign script, and text that is never markup.

import { Haus } from './js/haus.js';
import { Conversation } from './conversation.js';
import { threadName, paintAvatar } from './format.js';
import { ThreadList } from './list.js';

const TITLE = 'Haus of Basquiat';
const byId = (id) => document.getElementById(id);

const haus = new Haus();
const list = new ThreadList(haus);
const conversation = new Conversation(haus);

let signedIn = false;

// Views

function showHub() {
  signedIn = true;
  byId('login').hidden = true;
  byId('hub').hidden = false;
  byId('me-name').textContent = haus.profile.displayName;
  paintAvatar(byId('me-avatar'), haus.profile.id, haus.profile.displayName, true);
  route();
}

function showLogin(message = '') {
  signedIn = false;
  byId('hub').hidden = true;
  byId('login').hidden = false;
  byId('login-error').textContent = message;
  document.title = TITLE;
  byId('login-email').focus();
}

function route() {
  if (!signedIn) return;
  const threadId = /^#\/t\/([0-9a-f-]{36})$/.exec(location.hash)?.[1] ?? null;
  byId('hub').dataset.pane = threadId === null ? 'list' : 'conversation';
  const before = conversation.id;
  list.select(threadId);
  conversation.show(threadId);
  if (threadId !== null) conversation.focus();
  else list.focus(before);
  title();
}

function title() {
  if (!signedIn) return;
  const unread = haus.threads().reduce((sum, thread) => sum + thread.unread, 0);
  const open = conversation.id ? haus.thread(conversation.id) : null;
  document.title = `${unread > 0 ? `(${unread}) ` : ''}${open ? `${threadName(open)} · ` : ''}${TITLE}`;
}

addEventListener('hashchange', route);
haus.on('threads', title);

// Signing in and out

byId('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const email = byId('login-email').value.trim();
  const password = byId('login-password').value;
  if (email === '' || password === '') {
    byId('login-error').textContent = 'Please fill in both fields.';
    byId(email === '' ? 'login-email' : 'login-password').focus();
    return;
  }
  const submit = event.target.querySelector('button');
  submit.disabled = true;
  byId('login-error').textContent = '';
  try {
    await haus.login(email, password);
    byId('login-password').value = '';
    showHub();
  } catch (error) {
    byId('login-error').textContent = loginError(error);
    byId('login-password').select();
  } finally {
    submit.disabled = false;
  }
});

function loginError(error) {
  if (error.code === 'unauthenticated') return 'That e-mail and password do not go together.';
  if (error.code === 'rate_limited') return 'Too many tries. Please wait a moment.';
  if (error.code === 'network' || error.code === 'unavailable') return 'The server cannot be reached right now. Please try again.';
  return error.message;
}

byId('logout').addEventListener('click', () => {
  const unsent = haus.unanswered;
  if (unsent === 0) {
    haus.logout();
    return;
  }
  byId('leave-text').textContent = unsent === 1
    ? 'One message has not been sent yet. It will be lost.'
    : `${unsent} messages have not been sent yet. They will be lost.`;
  byId('leave').returnValue = 'stay';
  byId('leave').showModal();
});

byId('leave').addEventListener('close', () => {
  if (byId('leave').returnValue === 'leave') haus.logout();
});

haus.on('signed-out', (reason) => {
  conversation.show(null);
  history.replaceState(null, '', '#/');
  const ended = reason === 'logout' || reason === 'elsewhere';
  showLogin(ended ? '' : 'Your session has ended. Please log in again.');
});

// Another tab signed out, or another person in.
addEventListener('storage', ({ key, oldValue, newValue }) => {
  const profileId = (text) => JSON.parse(text ?? 'null')?.profile?.id;
  if (key === 'haus.session' && profileId(oldValue) !== profileId(newValue)) location.reload();
});

// The connection strip

const strip = byId('connection');
const stripText = byId('connection-text');
const stripRetry = byId('connection-retry');
let countdown = null;
let retrying = false;
let tried = false;

function showState({ state, retryAt, code, reason }) {
  strip.dataset.state = state;
  clearInterval(countdown);
  retrying = retryAt !== undefined;
  const stopped = code >= 4400 && code <= 4499 && !retrying;
  stripRetry.hidden = state !== 'offline' || (!retrying && !stopped);
  stripRetry.textContent = stopped ? 'Connect again' : 'Try now';
  if (state === 'live') stripText.textContent = 'Connected';
  else if (state === 'catching-up') stripText.textContent = 'Catching up';
  else if (code === 4403) haus.logout();
  else if (code === 4409) stripText.textContent = 'Opened on too many devices. This one was let go.';
  else if (stopped) stripText.textContent = `Connection ended (${reason ?? code}).`;
  else if (retryAt !== undefined || tried) countDown(retryAt ?? Date.now());
  else stripText.textContent = 'Connecting …';
  tried = state === 'offline' && (tried || retrying);
  strip.classList.toggle('notice', tried || stopped);
}

// Said once to a screen reader: the seconds are not announced.
function countDown(retryAt) {
  if (!stripText.querySelector('span')) {
    const seconds = document.createElement('span');
    seconds.setAttribute('aria-hidden', 'true');
    stripText.replaceChildren('Offline. What you write is kept and sent later. ', seconds);
  }
  const seconds = stripText.querySelector('span');
  const tick = () => {
    const left = Math.ceil((retryAt - Date.now()) / 1000);
    seconds.textContent = left > 1 ? `Next try in ${left} s` : 'Trying now …';
  };
  tick();
  countdown = setInterval(tick, 1000);
}

haus.on('state', showState);
stripRetry.addEventListener('click', () => haus.nudge());
addEventListener('online', () => retrying && haus.nudge());
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible' && retrying) haus.nudge();
});

// What arrives is read out, without the list being read again.

haus.on('message', ({ thread, message }) => {
  if (message.senderId === haus.profile?.id || haus.state !== 'live' || message.type === 'SYSTEM') return;
  const sender = haus.people.get(message.senderId)?.displayName ?? 'Somebody';
  const where = thread.id === conversation.id ? '' : ` in ${threadName(thread)}`;
  byId('announcer').textContent = `${sender}${where}: ${message.content ?? ''}`;
});

// Keys: Alt+↑ and Alt+↓ step through conversations, Escape goes back to the list.

addEventListener('keydown', (event) => {
  if (!signedIn || byId('leave').open) return;
  if (event.altKey && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
    const id = list.neighbour(event.key === 'ArrowDown' ? 1 : -1);
    if (id !== null) location.hash = `#/t/${id}`;
    event.preventDefault();
  } else if (event.key === 'Escape' && conversation.id !== null) location.hash = '#/';
});

if (haus.restore()) showHub();
else showLogin();
