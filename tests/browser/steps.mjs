// What the browser tests have in common: people doing things on the page. What is tested is in the scripts beside this file.

import { randomUUID } from 'node:crypto';

export const DESKTOP = [1280, 800];
export const PHONE = [390, 844, { mobile: true }];
/** A message that came twice would do so within this, milliseconds. */
export const SETTLE_MS = 1_500;

export const text = (value) => JSON.stringify(value);
export const state = `document.querySelector('[data-test=connection]').dataset.state`;
export const copies = (words) => `[...document.querySelectorAll('[data-test=message]')].filter((m) => m.textContent.includes(${text(words)}))`;
export const shown = (selector) => `!!document.querySelector(${text(selector)})?.getClientRects().length`;
/** Whether this conversation is on screen: the address alone changes before the page does. */
export const opened = (id) => `!!document.querySelector('[data-test=thread][data-thread-id="${id}"][aria-current]') && location.hash === '#/t/${id}'`;
/** What has the focus: its id, else its data-test. */
export const focused = `(document.activeElement.id || document.activeElement.dataset.test || document.activeElement.tagName)`;

export const step = (what) => console.log(`ok ${what}`);
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function check(ok, what) {
  if (!ok) throw new Error(what);
}

/** A server that is too busy is asked again for so long, milliseconds, as clients are to do. */
const BUSY_MS = 60_000;
const BUSY_EVERY_MS = 250;

/** A REST call, beside the page. Repeated under its key while the server is too busy. */
export async function rest(url, method, path, body, token) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}`, 'idempotency-key': randomUUID() }) };
  for (const endsAt = Date.now() + BUSY_MS; ; await pause(BUSY_EVERY_MS)) {
    const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
    const words = await answer.text();
    if (answer.status === 503 && Date.now() < endsAt) continue;
    check(answer.ok, `${method} ${path}: ${answer.status} ${words}`);
    return words === '' ? null : JSON.parse(words);
  }
}

export async function login(page, email, password) {
  await page.type('[data-test=login-email]', email);
  await page.type('[data-test=login-password]', password);
  await page.click('[data-test=login-submit]');
  // A server that is too busy says so, and is asked again.
  await page.until('the page to be live after login', `${state} === 'live' || (document.getElementById('login-error').textContent !== ''
    && document.getElementById('login-form').requestSubmit(), false)`);
}

export async function enter(page, id) {
  await page.click(`[data-test=thread][data-thread-id="${id}"]`);
  await page.until('the conversation', `${opened(id)} && document.getElementById('composer').getClientRects().length > 0`);
}

export async function say(page, words) {
  await page.type('[data-test=composer]', words);
  await page.click('[data-test=send]');
}

export async function once(page, words, patienceMs) {
  await page.until(`"${words}" to arrive`, `${copies(words)}.length > 0`, patienceMs);
  const count = await page.value(`${copies(words)}.length`);
  check(count === 1, `${page.name}: "${words}" is there ${count} times`);
}

/** Presses Tab until `selector` has the focus, as somebody without a mouse does. */
export async function tabTo(page, selector, most = 60) {
  for (let i = 0; i < most; i += 1) {
    if (await page.value(`document.activeElement.matches(${text(selector)})`)) return;
    await page.key('Tab', 'Tab', 9);
  }
  throw new Error(`${page.name}: ${most} times Tab do not reach ${selector}`);
}

export async function insert(page, words) {
  await page.call('Input.insertText', { text: words });
}

/** Fails if any of these pages complained. */
export function uncomplaining(...pages) {
  const complaints = pages.flatMap((page) => page.complaints.map((complaint) => `${page.name}: ${complaint}`));
  check(complaints.length === 0, `the page complained:\n${complaints.join('\n')}`);
  step('no page error and nothing refused by the content security policy');
}

/** Runs a scenario in a browser of its own and ends the program: 0 and `PASS`, or 1 and what was wrong. */
export async function run(Chromium, scenario) {
  const browser = await Chromium.start();
  let failure = null;
  try {
    await scenario(browser);
    console.log('PASS');
  } catch (error) {
    failure = error;
    console.log(`FAIL ${error.stack}`);
  } finally {
    await browser.stop();
  }
  process.exit(failure === null ? 0 : 1);
}
