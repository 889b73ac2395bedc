// Names and words that are written from right to left: each is shown in its own direction, and turns nothing around it. And a
// name that is changed comes to others without a reload. Exit 0, or 1 with what was wrong.
//
//   node tests/browser/directions.mjs URL E-MAIL PASSWORD [--screenshots FOLDER]      (people may register, and are active at once)

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { Chromium } from './chromium.mjs';
import { DESKTOP, PHONE, check, copies, enter, insert, login, once, rest, run, say, shown, step, text, uncomplaining } from './steps.mjs';

const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { screenshots: { type: 'string' } } });
const [url, email, password] = positionals;
const tag = Math.random().toString(36).slice(2, 8);
const LAYLA = { displayName: 'ليلى بنت الصحراء', email: `layla-${tag}@haus.example`, password: `a runway for ${tag}` };
const HOUSE = 'בית הריקודים של הלילה';
const HEBREW = 'שלום לכולם, מתי מתחילים? (20:00 or later)';
const ARABIC = 'مرحبا بكم في Haus of Basquiat، نبدأ الليلة';
const LATIN = 'Good evening, see you there';

const direction = (page, expression) => page.value(`getComputedStyle(${expression}).direction`);
const one = (selector) => `document.querySelector(${text(selector)})`;
const part = (words, selector) => `${copies(words)}[0].querySelector('${selector}')`;

async function directions(page, wanted) {
  for (const [expression, way] of wanted) {
    const found = await direction(page, expression);
    check(found === way, `${page.name}: ${expression} is ${found}, not ${way}`);
  }
}

async function shoot(page, file) {
  if (!options.screenshots) return;
  await mkdir(options.screenshots, { recursive: true });
  await page.screenshot(path.join(options.screenshots, `${file}.png`));
}

async function inAConversation(page, direct, group, token) {
  const item = (id, selector) => `${one(`[data-thread-id="${id}"]`)}.querySelector('${selector}')`;
  await page.until('both conversations', `${one(`[data-thread-id="${direct}"]`)} !== null && ${one(`[data-thread-id="${group}"]`)} !== null`);
  await page.until('the last words', `${item(direct, '.thread-text')}.textContent === ${text(ARABIC)}`);
  await directions(page, [
    [item(direct, '.thread-name'), 'rtl'], [item(direct, '.thread-text'), 'rtl'], [item(group, '.thread-name'), 'rtl'],
    [one('#threads'), 'ltr'],
  ]);
  await enter(page, direct);
  await once(page, ARABIC);
  await page.until('the title', `${one('#title')}.textContent === ${text(LAYLA.displayName)}`);
  await directions(page, [[one('#title'), 'rtl'], [part(ARABIC, '.text'), 'rtl'], [part(ARABIC, '.message-name'), 'rtl'], [one('#composer'), 'ltr']]);
  const words = await page.value(`[${one('#top-text')}.textContent, document.title]`);
  check(words.every((sentence) => sentence.includes(`\u2068${LAYLA.displayName}\u2069`)), `a name turns the sentence around it: ${words}`);
  check(words[0].startsWith('This is the beginning of your conversation with'), words[0]);
  await say(page, LATIN);
  await once(page, LATIN);
  await page.value(`${one('#composer')}.focus()`);
  await insert(page, 'شكرا');
  await directions(page, [[part(LATIN, '.text'), 'ltr'], [one('#composer'), 'rtl']]);
  await page.value(`(() => { const c = ${one('#composer')}; c.value = ''; c.dispatchEvent(new Event('input')); })()`);

  await enter(page, group);
  const first = await rest(url, 'POST', `/v1/threads/${group}/messages`, { content: HEBREW }, token);
  await rest(url, 'POST', `/v1/threads/${group}/messages`, { content: `yes ${tag}`, replyToId: first.messageId }, token);
  await once(page, `yes ${tag}`);
  await page.until('the quote', `${part(`yes ${tag}`, '.quote')}.textContent === ${text(HEBREW)}`);
  await directions(page, [[part(`yes ${tag}`, '.quote'), 'rtl'], [part(`yes ${tag}`, '.text'), 'ltr'], [one('#title'), 'rtl']]);
  await shoot(page, 'directions');
  await page.click('[data-test=members-open]');
  await page.until('the members', `document.querySelectorAll('[data-test=member]').length === 2`);
  await directions(page, [[`[...document.querySelectorAll('[data-test=member] bdi')].find((name) => name.textContent === ${text(LAYLA.displayName)})`, 'rtl']]);
  await shoot(page, 'directions-members');
  await page.click('#members-close');
  step('what is written from right to left is shown so, and nothing around it turns');
}

/** Names as long as they may be, without a space: nothing runs out of its place. */
async function longNames(page, selfId) {
  const mine = { displayName: `W${'wonderful'.repeat(9)}`.slice(0, 80), email: `long-${tag}@haus.example`, password: `a runway for ${tag}` };
  const { accessToken: token } = await rest(url, 'POST', '/v1/auth/register', mine);
  const { id } = await rest(url, 'POST', '/v1/threads', { type: 'GROUP', name: 'G'.repeat(100), memberIds: [selfId] }, token);
  await rest(url, 'POST', `/v1/threads/${id}/messages`, { content: 'x'.repeat(300) }, token);
  const fits = async (where) => {
    const wide = await page.value(`[...document.querySelectorAll('html, dialog[open], .side, .stage, .bar, .people, .composer, #scroller')]
      .filter((part) => part.scrollWidth > part.clientWidth + 1).map((part) => part.id || part.className || part.tagName)`);
    check(wide.length === 0, `${where}: a long name makes wider than it is: ${wide}`);
  };
  for (const size of [DESKTOP, PHONE]) {
    await page.size(...size);
    await page.value(`location.hash = '#/'`);
    await page.until('the group', shown(`[data-thread-id="${id}"]`));
    await fits('list');
    await enter(page, id);
    await page.until('the message', shown('[data-test=message]'));
    await fits('conversation');
    check(await page.value(`document.querySelector('.message time').getBoundingClientRect().right <= innerWidth`), 'a long name pushes the time out');
    await page.click('[data-test=members-open]');
    await page.until('the members', `document.querySelectorAll('[data-test=member]').length === 2`);
    await fits('members');
    await page.click('#members-close');
    await page.value(`location.hash = '#/'`);
    await page.click('[data-test=find-open]');
    await insert(page, 'wwonder');
    await page.click('[data-test=person]');
    await page.until('the choice', shown('#find-chosen button'));
    await fits('find');
    await page.click('#find-cancel');
  }
  await page.size(...DESKTOP);
  step('the longest names stay in their places');
}

async function changedName(page, id, token) {
  await enter(page, id);
  const name = `${LAYLA.displayName} الثانية`;
  await rest(url, 'PATCH', '/v1/me', { displayName: name }, token);
  // The page is put away and comes back: some minutes later for its clock.
  await page.value(`(() => { const now = performance.now.bind(performance); performance.now = () => now() + 600_000; dispatchEvent(new Event('pageshow')); })()`);
  const places = [one('#title'), `${one(`[data-thread-id="${id}"]`)}.querySelector('.thread-name')`, `document.querySelector('.message:not(.own) .message-name')`];
  for (const place of places) await page.until(`the new name at ${place}`, `${place}.textContent === ${text(name)}`);
  step('a name that was changed comes to others without a reload');
}

await run(Chromium, async (browser) => {
  const page = await browser.open(url, 'A');
  await page.size(...DESKTOP);
  await login(page, email, password);
  const { accessToken: token } = await rest(url, 'POST', '/v1/auth/register', LAYLA);
  const { profile } = await rest(url, 'POST', '/v1/auth/login', { email, password });
  const { id: direct } = await rest(url, 'POST', '/v1/threads', { type: 'DIRECT', memberIds: [profile.id] }, token);
  const { id: group } = await rest(url, 'POST', '/v1/threads', { type: 'GROUP', name: `${HOUSE} ${tag}`, memberIds: [profile.id] }, token);
  await rest(url, 'POST', `/v1/threads/${direct}/messages`, { content: ARABIC }, token);
  await inAConversation(page, direct, group, token);
  const hers = await browser.open(url, 'Layla');
  await hers.size(...PHONE);
  await login(hers, LAYLA.email, LAYLA.password);
  await hers.until('the own name', `${one('#me-name')}.textContent === ${text(LAYLA.displayName)}`);
  await directions(hers, [[one('#me-name'), 'rtl']]);
  await hers.until('the list', shown('[data-test=thread]'));
  await shoot(hers, 'directions-list');
  await hers.click('[data-test=profile-open]');
  await hers.until('the profile', `${one('#profile-name')}.value === ${text(LAYLA.displayName)}`);
  await directions(hers, [[one('#profile-name'), 'rtl']]);
  await hers.click('#profile-close');
  await enter(hers, direct);
  await shoot(hers, 'directions-phone');
  await changedName(page, direct, token);
  await longNames(page, profile.id);
  uncomplaining(page, hers);
});
