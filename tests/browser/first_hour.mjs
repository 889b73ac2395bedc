// The first hour of somebody new, without a mouse: an account, a conversation with somebody found by name, a group and who is
// in it, the own profile, the way out; drafts that are nobody else's; keys of input methods. Exit 0, or 1 with what was wrong.
//
//   node tests/browser/first_hour.mjs URL E-MAIL PASSWORD NAME [--screenshots FOLDER]      (somebody who is there already)

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { Chromium } from './chromium.mjs';
import { DESKTOP, PHONE, check, focused, insert, login, once, rest, run, say, shown, state, step, tabTo, text, uncomplaining } from './steps.mjs';

const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { screenshots: { type: 'string' } } });
const [url, email, password, name] = positionals;
const tag = Math.random().toString(36).slice(2, 8);
const fresh = { name: `Nova ${tag}`, email: `nova-${tag}@haus.example`, password: `a runway for ${tag}` };

async function shoot(page, file) {
  if (!options.screenshots) return;
  await mkdir(options.screenshots, { recursive: true });
  await page.screenshot(path.join(options.screenshots, `${file}.png`));
}

const enterKey = (page) => page.key('Enter', 'Enter', 13);
const isFocused = (page, what, expression) => page.until(`the focus on ${what}`, expression);

async function register(page) {
  await page.until('the door', shown('[data-test=login-submit]'));
  await tabTo(page, '[data-test=to-register]');
  await enterKey(page);
  await isFocused(page, 'the first field', `${focused} === 'register-name'`);
  await enterKey(page);
  await page.until('words about empty fields', `document.getElementById('register-error').textContent.includes('fill in')`);
  await insert(page, fresh.name);
  await page.key('Tab', 'Tab', 9);
  await insert(page, fresh.email);
  await page.key('Tab', 'Tab', 9);
  await insert(page, 'short');
  await enterKey(page);
  await page.until('words about the password', `document.getElementById('register-error').textContent.startsWith('The password must')`);
  await shoot(page, 'register');
  await insert(page, fresh.password);
  await enterKey(page);
  // A server that is too busy says so, and is asked again.
  await page.until('the page to be live', `${state} === 'live' || (document.getElementById('register-error').textContent !== ''
    && document.getElementById('register-form').requestSubmit(), false)`);
  const where = await page.value(focused);
  check(where !== 'BODY', `the focus is lost after the log-in: ${where}`);
  await page.until('words about an empty list', shown('#threads-empty'));
  step('an account is made without a mouse, and what is wrong is said in words');
}

async function startConversation(page, other) {
  await tabTo(page, '[data-test=find-open]');
  await enterKey(page);
  await isFocused(page, 'the search', `${focused} === 'find-input'`);
  await insert(page, name);
  await page.until('somebody of that name', `document.querySelectorAll('[data-test=person]').length > 0`);
  await shoot(page, 'find');
  await page.key('ArrowDown', 'ArrowDown', 40);
  await enterKey(page);
  await page.until('the choice', `document.activeElement.getAttribute('aria-pressed') === 'true'`);
  await tabTo(page, '[data-test=find-go]');
  await enterKey(page);
  await page.until('the conversation', `location.hash.startsWith('#/t/') && ${shown('[data-test=composer]')}`);
  await isFocused(page, 'the conversation', `['composer', 'title'].includes(${focused})`);
  await tabTo(page, '[data-test=composer]');
  await insert(page, `hello from ${fresh.name}`);
  await enterKey(page);
  await once(page, `hello from ${fresh.name}`);
  const id = await page.value(`location.hash.slice(4)`);
  await other.until('the conversation at the other', shown(`[data-thread-id="${id}"]`));
  await other.click(`[data-thread-id="${id}"]`);
  await once(other, `hello from ${fresh.name}`);
  await say(other, `welcome ${tag}`);
  await once(page, `welcome ${tag}`);
  step('somebody is found by name and written to; both see both messages');
  return id;
}

async function inputMethods(page) {
  const before = await page.value(`document.querySelectorAll('[data-test=message]').length`);
  const press = (key, more) => page.value(`document.getElementById('composer').dispatchEvent(
    new KeyboardEvent('keydown', { key: ${text(key)}, bubbles: true, cancelable: true, ...${text(more)} }))`);
  await page.value(`document.getElementById('composer').focus()`);
  await insert(page, 'にほん');
  await press('Enter', { isComposing: true });
  await press('Enter', { keyCode: 229 });
  await press('Escape', { isComposing: true });
  await press('Escape', { keyCode: 229 });
  await page.key('Escape', 'Escape', 27);
  check(await page.value(`location.hash.startsWith('#/t/') && document.getElementById('composer').value === 'にほん'`),
    'a key of an input method, or Escape while writing, left the conversation or took the text');
  check(await page.value(`document.querySelectorAll('[data-test=message]').length`) === before, 'Enter of an input method sent the message');
  // A real composition, as the browser makes it.
  await page.value(`document.getElementById('composer').select()`);
  await page.call('Input.imeSetComposition', { text: 'ほ', selectionStart: 1, selectionEnd: 1 });
  await page.key('Process', 'Enter', 229);
  await page.call('Input.insertText', { text: '本' });
  check(await page.value(`document.querySelectorAll('[data-test=message]').length`) === before, 'a composition sent the message');
  await page.value(`(() => { const c = document.getElementById('composer'); c.value = ''; c.dispatchEvent(new Event('input')); })()`);
  await page.key('Escape', 'Escape', 27);
  await page.until('the list, by Escape with nothing written', `location.hash === '#/'`);
  step('keys of an input method neither send nor leave; Escape leaves when nothing is written');
}

async function tooLong(page, id) {
  await page.click(`[data-thread-id="${id}"]`);
  await page.until('the composer', shown('[data-test=composer]'));
  await page.value(`document.getElementById('composer').focus()`);
  // Counted by characters, not by UTF-16 units.
  await insert(page, '💜'.repeat(3_990));
  await page.until('what is left', `document.getElementById('composer-count').textContent === '10 left'`);
  const inside = await page.value(`(() => { const count = document.getElementById('composer-count').getBoundingClientRect();
    return count.top >= document.getElementById('composer').getBoundingClientRect().bottom; })()`);
  check(inside, 'the count stands on the border of the field');
  await insert(page, 'x'.repeat(12));
  await page.until('that it is too long', `document.getElementById('composer-count').textContent === '2 too many'`);
  await enterKey(page);
  await page.until('why it was not sent', `document.getElementById('composer-count').textContent.includes('not sent')`);
  await page.value(`(() => { const c = document.getElementById('composer'); c.value = ''; c.dispatchEvent(new Event('input')); })()`);
  step('what is left is counted, and too long a message says so');
}

async function group(page) {
  await tabTo(page, '[data-test=find-open]');
  await enterKey(page);
  await insert(page, 'a');
  await page.until('people', `document.querySelectorAll('[data-test=person]').length > 1`);
  for (let i = 0; i < 2; i += 1) {
    await page.key('ArrowDown', 'ArrowDown', 40);
    await enterKey(page);
  }
  await tabTo(page, '[data-test=find-name]');
  await insert(page, `Practice ${tag}`);
  await shoot(page, 'group');
  await enterKey(page);
  await page.until('the group', `document.getElementById('title').textContent === ${text(`Practice ${tag}`)}`);
  await tabTo(page, '[data-test=members-open]');
  await enterKey(page);
  await page.until('three members', `document.querySelectorAll('[data-test=member]').length === 3`);
  check(await page.value(`document.getElementById('members-list').textContent.includes(${text(`${fresh.name} (you)`)})`), 'oneself is not among the members');
  await shoot(page, 'members');
  // The list is painted anew between the two clicks: the question stays, and so does the focus.
  await page.click('.person-remove:not([hidden])');
  const question = `document.querySelector('.person-remove:not([hidden])').textContent`;
  await page.until('the question', `${question} === 'Really remove?'`);
  await page.value(`document.querySelector('.person-remove:not([hidden])').focus()`);
  const renamed = `Practice ${tag} again`;
  const [threadId, token] = await page.value(`[location.hash.slice(4), JSON.parse(localStorage.getItem('haus.session')).accessToken]`);
  await rest(url, 'PATCH', `/v1/threads/${threadId}`, { name: renamed }, token);
  await page.until('the new name', `document.getElementById('members-title').textContent === ${text(renamed)}`);
  check(await page.value(`${question} === 'Really remove?' && document.activeElement.matches('.person-remove')`), 'a repaint forgot the question or the focus');
  await page.click('.person-remove:not([hidden])');
  await page.until('two members', `document.querySelectorAll('[data-test=member]').length === 2`);
  await page.click('[data-test=members-leave]');
  await page.click('[data-test=members-leave]');
  await page.until('the list without the group', `location.hash === '#/' && !document.getElementById('threads').textContent.includes(${text(`Practice ${tag}`)})`);
  step('a group is made, its members are seen and removed, and it is left');
}

// Names and texts that are written from right to left, among words that are not.
async function directions(page, other, id) {
  const hebrew = 'שלום, נתראה ב־8';
  await page.click(`[data-thread-id="${id}"]`);
  await page.until('the composer', shown('[data-test=composer]'));
  await page.value(`document.getElementById('composer').focus()`);
  await insert(page, hebrew);
  const direction = (expression) => `getComputedStyle(${expression}).direction`;
  check(await page.value(`${direction(`document.getElementById('composer')`)} === 'rtl'`), 'the composer does not follow what is written');
  await enterKey(page);
  const bubble = `[...document.querySelectorAll('.bubble')].find((one) => one.textContent.includes(${text(hebrew)}))?.querySelector('.text')`;
  for (const one of [page, other]) {
    await one.until('the message', `!!${bubble}`);
    check(await one.value(`${direction(bubble)} === 'rtl'`), 'a message from right to left is laid out left to right');
  }
  check(await page.value(`${direction(`document.querySelector('.message-name, #title')`)} === 'ltr'`), 'what is from left to right is not');
  await page.value(`location.hash = '#/'`);
  step('what is written from right to left is shown so');
}

async function profile(page) {
  await tabTo(page, '[data-test=profile-open]');
  await enterKey(page);
  await isFocused(page, 'the name', `${focused} === 'profile-name'`);
  await page.until('the own name', `document.getElementById('profile-name').value === ${text(fresh.name)}`);
  await shoot(page, 'profile');
  await page.value(`document.getElementById('profile-name').select()`);
  await insert(page, `${fresh.name} the Great`);
  await enterKey(page);
  await page.until('the new name', `document.getElementById('me-name').textContent === ${text(`${fresh.name} the Great`)}`);
  step('the own name is changed');
}

async function drafts(page, id) {
  await page.click(`[data-thread-id="${id}"]`);
  await page.until('the composer', shown('[data-test=composer]'));
  await page.value(`document.getElementById('composer').focus()`);
  await insert(page, `a draft of ${fresh.name}`);
  await page.call('Page.reload');
  await page.until('the draft after a reload', `document.getElementById('composer')?.value === ${text(`a draft of ${fresh.name}`)}`);
  await page.until('live again', `${state} === 'live'`);
  // The network hangs: the way out is there all the same.
  await page.value(`location.hash = '#/'`);
  await page.call('Network.enable');
  await page.call('Network.emulateNetworkConditions', { offline: false, latency: 3_000, downloadThroughput: -1, uploadThroughput: -1 });
  // Whoever has something begun is asked, and may stay.
  await page.click('.me [data-test=logout]');
  await page.until('the question', `document.getElementById('leave').open && document.getElementById('leave-text').textContent === 'Logging out deletes one draft.'`);
  await shoot(page, 'leave');
  await page.click('#leave [value=stay]');
  await page.until('to have stayed', `!document.getElementById('leave').open && ${shown('#threads')}`);
  await page.click('.me [data-test=logout]');
  await page.click('#leave [value=leave]');
  await page.until('the door', shown('[data-test=login-submit]'), 2_000);
  await page.call('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  // The other person, in the same browser, in the same conversation.
  await login(page, email, password);
  await page.click(`[data-thread-id="${id}"]`);
  await page.until('the composer', shown('[data-test=composer]'));
  check(await page.value(`document.getElementById('composer').value`) === '', "another person sees somebody's draft");
  step('a draft outlives a reload and is nobody else’s; the way out does not wait for the network');
}

await run(Chromium, async (browser) => {
  const page = await browser.open(url, 'new');
  const other = await browser.open(url, 'other');
  await page.size(...DESKTOP);
  await login(other, email, password);
  await register(page);
  const id = await startConversation(page, other);
  await inputMethods(page);
  await tooLong(page, id);
  await group(page);
  await profile(page);
  await directions(page, other, id);
  await page.size(...PHONE);
  await page.value(`location.hash = '#/'`);
  await drafts(page, id);
  uncomplaining(page, other);
});
