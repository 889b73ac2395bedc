// Where the page starts: who is here, which view shows, what is read out, keys. The parts are in the files beside this one;
// everything that talks to the server is in /js/haus.js.
//
// The session lives in localStorage (haus.session), so that a reload and a second tab stay signed in. The price: script that
// ran in this origin could read it. Hence the strict content security policy, no foreign script, and text that is never markup.

import { Haus } from './js/haus.js';
import { composing } from './composer.js';
import { Conversation } from './conversation.js';
import { Door } from './door.js';
import { Find } from './find.js';
import { isolate, paintAvatar, threadName } from './format.js';
import { everyDay, once, shapeAgain } from './frame.js';
import { ThreadList } from './list.js';
import { Members } from './members.js';
import { Profile } from './profile.js';
import { setText } from './stay.js';
import { Strip } from './strip.js';
import { errorText } from './words.js';

const TITLE = 'Haus of Basquiat';
const byId = (id) => document.getElementById(id);

const haus = new Haus();
const list = new ThreadList(haus);
const conversation = new Conversation(haus);
const door = new Door(haus, () => showHub());
const find = new Find(haus, (threadId) => go(threadId));
const members = new Members(haus, (thread) => find.open(thread));
const profile = new Profile(haus, (changed) => {
  haus.people.learn(changed);
  self();
  conversation.refresh();
});
new Strip(haus, () => (conversation.id === null ? list.focus(null) : conversation.focus()));

shapeAgain();

let signedIn = false;

// Views

function showHub() {
  signedIn = true;
  door.close();
  byId('hub').hidden = false;
  self();
  route();
}

function showLogin(message = '') {
  signedIn = false;
  byId('hub').hidden = true;
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
  document.title = TITLE;
  door.open(message);
}

function self() {
  if (!signedIn || haus.profile === null) return;
  const { id, displayName, status } = { ...haus.profile, ...haus.people.get(haus.profile.id) };
  setText(byId('me-name'), displayName);
  paintAvatar(byId('me-avatar'), id, displayName, true);
  byId('standing').hidden = status !== 'PENDING';
}

function go(threadId) {
  const hash = threadId === null ? '#/' : `#/t/${threadId}`;
  if (location.hash === hash) route();
  else location.hash = hash;
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
  document.title = `${unread > 0 ? `(${unread}) ` : ''}${open ? `${isolate(threadName(open))} · ` : ''}${TITLE}`;
}

addEventListener('hashchange', route);
haus.on('threads', once(title));
haus.on('people', self);
haus.on('state', self);
everyDay(() => {
  list.render();
  conversation.refresh();
});

byId('find-open').addEventListener('click', () => find.open());
byId('nothing-find').addEventListener('click', () => find.open());
byId('members-open').addEventListener('click', () => members.open(conversation.id));
byId('profile-open').addEventListener('click', () => profile.open());

// The way out

function askToLeave() {
  const { messages, drafts } = haus.unsent;
  if (messages + drafts === 0) {
    leave();
    return;
  }
  const lost = [
    messages === 0 ? '' : messages === 1 ? 'one message that has not been sent' : `${messages} messages that have not been sent`,
    drafts === 0 ? '' : drafts === 1 ? 'one draft' : `${drafts} drafts`,
  ];
  byId('leave-text').textContent = `Logging out deletes ${lost.filter(Boolean).join(' and ')}.`;
  byId('leave').returnValue = 'stay';
  byId('leave').showModal();
}

// The session ends here at once; the server is told meanwhile.
function leave() {
  haus.logout();
}

for (const button of document.querySelectorAll('.logout')) button.addEventListener('click', askToLeave);
byId('leave').addEventListener('close', () => {
  if (byId('leave').returnValue === 'leave') leave();
});

const FAREWELLS = {
  logout: '',
  elsewhere: 'You have logged out in another window.',
  'taken-over': 'Somebody else has logged in, in another window.',
};

haus.on('signed-out', (reason) => {
  conversation.show(null);
  history.replaceState(null, '', '#/');
  showLogin(FAREWELLS[reason] ?? 'Your session has ended. Please log in again.');
});

// Somebody has signed in in another tab while this one stands at the door.
addEventListener('storage', ({ key, newValue }) => {
  if (key === 'haus.session' && newValue !== null && !signedIn) location.reload();
});

haus.on('storage', (error) => {
  byId('storage-note').textContent = errorText(error);
  byId('storage-note').hidden = false;
});

// What arrives is read out, without the list being read again.

let heard = null;
const announce = once(() => {
  const { thread, message } = heard;
  const sender = haus.people.get(message.senderId)?.displayName ?? 'Somebody';
  const where = thread.id === conversation.id ? '' : ` in ${isolate(threadName(thread))}`;
  byId('announcer').textContent = `${isolate(sender)}${where}: ${isolate(message.content ?? '')}`;
});
haus.on('message', (arrival) => {
  if (arrival.message.senderId === haus.profile?.id || haus.state !== 'live' || arrival.message.type === 'SYSTEM') return;
  heard = arrival;
  announce();
});

// Keys: Alt+↑ and Alt+↓ step through conversations, Escape goes back to the list, unless something is being written.

addEventListener('keydown', (event) => {
  if (!signedIn || composing(event) || document.querySelector('dialog[open]')) return;
  if (event.altKey && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
    const id = list.neighbour(event.key === 'ArrowDown' ? 1 : -1);
    if (id !== null) go(id);
    event.preventDefault();
  } else if (event.key === 'Escape' && conversation.id !== null) {
    if (conversation.writing && document.activeElement === byId('composer')) return;
    go(null);
  }
});

// Where a keyboard covers the page instead of shrinking it (iOS), the page keeps to what is left.

const view = window.visualViewport;
view?.addEventListener('resize', () => {
  if (Math.abs(view.scale - 1) > 0.01) return;
  document.documentElement.style.setProperty('--view', `${view.height}px`);
  scrollTo(0, 0);
});

if (haus.restore()) showHub();
else showLogin();
