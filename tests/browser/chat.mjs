// Two people in two browsers, on a running server: one message each way, then the server is restarted, and what was written
// during the outage arrives once. Exit 0, or 1 with what was waited for in vain.
//
//   node tests/browser/chat.mjs URL E-MAIL-A PASSWORD-A E-MAIL-B PASSWORD-B [--restart-cmd CMD] [--screenshots FOLDER]
//                               [--thread ID]
//
// Without --restart-cmd the caller restarts the server: this prints a line `RESTART` and waits for a line `OK` on stdin.

import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { Chromium } from './chromium.mjs';
import { DESKTOP, PHONE, SETTLE_MS, check, copies, enter, login, once, pause, say, shown, state, step, text, uncomplaining } from './steps.mjs';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { 'restart-cmd': { type: 'string' }, screenshots: { type: 'string' }, thread: { type: 'string' } },
});
const [baseUrl, emailA, passwordA, emailB, passwordB] = positionals;
if (!passwordB) {
  console.error('usage: chat.mjs URL E-MAIL-A PASSWORD-A E-MAIL-B PASSWORD-B [--restart-cmd CMD] [--screenshots FOLDER] [--thread ID]');
  process.exit(2);
}

/** The server may take so long to come back, and the page to notice, milliseconds. */
const RECONNECT_MS = 60_000;

const unreadOf = (id) => `[...document.querySelectorAll('[data-test=thread]')].filter((t) => t.dataset.threadId === ${text(id)})
  .map((t) => t.querySelector('[data-test=thread-unread]')).map((u) => u.hidden ? 0 : Number(u.textContent))[0]`;

/** A thread that both are in and may write in; a direct one if there is one. */
async function shared(a, b) {
  const list = `[...document.querySelectorAll('[data-test=thread]')].map((t) => [t.dataset.threadId, t.dataset.type])`;
  const mine = await a.value(list);
  const theirs = new Set((await b.value(list)).map(([id]) => id));
  const both = mine.filter(([id, type]) => theirs.has(id) && type !== 'ANNOUNCE');
  const found = both.find(([, type]) => type === 'DIRECT') ?? both[0];
  if (!found) throw new Error('the two have no thread in common');
  return found[0];
}

function restart(command) {
  if (command === undefined) {
    const lines = createInterface({ input: process.stdin });
    console.log('RESTART');
    return new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        if (line.trim() !== 'OK') return;
        resolve();
        lines.close();
      });
      lines.on('close', () => reject(new Error('no OK on stdin after RESTART')));
    });
  }
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`the restart command ended with ${code}`))));
  });
}

async function shoot(page, name, size) {
  if (!options.screenshots) return;
  if (size) await page.size(...size);
  await page.screenshot(path.join(options.screenshots, `${name}.png`));
}

const run = Math.random().toString(36).slice(2, 8);

async function scenario(browser) {
  const a = await browser.open(baseUrl, 'A');
  const b = await browser.open(baseUrl, 'B');
  await a.until('the login form', shown('[data-test=login-submit]'));
  await shoot(a, 'login', DESKTOP);
  await shoot(a, 'login-phone', PHONE);
  await a.size(...DESKTOP);
  await login(a, emailA, passwordA);
  await login(b, emailB, passwordB);
  for (const page of [a, b]) await page.until('the list of threads', shown('[data-test=thread]'));
  step('both are logged in and live');

  const id = options.thread ?? (await shared(a, b));
  const unread = await b.value(unreadOf(id));
  await enter(a, id);
  await say(a, `first from A ${run}`);
  await once(a, `first from A ${run}`);
  await b.until('the unread count to grow', `${unreadOf(id)} === ${unread + 1}`);
  step('a message raises the unread count of the other, live');
  await shoot(b, 'list', DESKTOP);

  await enter(b, id);
  await once(b, `first from A ${run}`);
  await b.until('the unread count to go', `${unreadOf(id)} === 0`);
  await say(b, `answer from B ${run}`);
  await once(b, `answer from B ${run}`);
  await once(a, `answer from B ${run}`);
  step('one message each way');

  const markup = `<img src=x onerror="document.title='run'"> <b>bold</b> ${run}`;
  await say(b, markup);
  await once(a, markup);
  const ran = await a.value(`document.querySelectorAll('[data-test=message] :is(img, b)').length > 0 || document.title === 'run'`);
  check(!ran, 'A: a message was read as markup');
  step('a message is text, whatever is in it');
  await shoot(a, 'conversation', DESKTOP);
  await shoot(a, 'conversation-dark', [...DESKTOP, { dark: true }]);
  await shoot(a, 'conversation-phone', PHONE);
  await a.size(...DESKTOP);

  const restarted = restart(options['restart-cmd']);
  restarted.catch(() => {});
  await a.until('the page to notice the outage', `${state} !== 'live'`, RECONNECT_MS);
  await say(a, `during the outage ${run}`);
  await a.until('the unsent message to show', `${copies(`during the outage ${run}`)}.length === 1`);
  const shownAs = await a.value(`${copies(`during the outage ${run}`)}[0].dataset.state`);
  step(`the outage shows (${await a.value(state)}), the message written in it is kept (${shownAs})`);
  await shoot(a, 'outage');
  await restarted;
  for (const page of [a, b]) await page.until('the page to be live again', `${state} === 'live'`, RECONNECT_MS);
  step('both are live again');

  await once(b, `during the outage ${run}`, RECONNECT_MS);
  await a.until('the message to be sent', `${copies(`during the outage ${run}`)}[0]?.dataset.state === 'sent'`);
  await say(b, `after it from B ${run}`);
  await once(a, `after it from B ${run}`);
  await pause(SETTLE_MS);
  const all = [`first from A ${run}`, `answer from B ${run}`, `during the outage ${run}`, `after it from B ${run}`];
  for (const page of [a, b]) for (const words of all) await once(page, words);
  step('what was written in the outage arrived once, and nothing came twice');

  await a.call('Page.reload');
  await a.until('the page to be live after a reload', `document.querySelector('[data-test=connection]') && ${state} === 'live'`);
  for (const words of all) await once(a, words);
  const order = await a.value(`[...document.querySelectorAll('[data-test=message]')].map((m) => Number(m.dataset.no))`);
  check(order.every((no, i) => i === 0 || no === order[i - 1] + 1), `A: messages are not in unbroken order: ${order}`);
  step('a reload shows the same, in order, without another login');
  await shoot(a, 'after', DESKTOP);

  uncomplaining(a, b);
}

if (options.screenshots) await mkdir(options.screenshots, { recursive: true });
const browser = await Chromium.start();
let failure = null;
try {
  await scenario(browser);
  console.log('PASS');
} catch (error) {
  failure = error;
  console.log(`FAIL ${error.message}`);
} finally {
  await browser.stop();
}
process.exit(failure === null ? 0 : 1);
