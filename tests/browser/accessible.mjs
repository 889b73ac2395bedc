// Every view of the page under axe-core, at two widths, light and dark: no findings. Exit 0, or 1 with them.
//
//   node tests/browser/accessible.mjs URL E-MAIL PASSWORD AXE.JS [--screenshots FOLDER]

import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { Chromium } from './chromium.mjs';
import { DESKTOP, PHONE, check, insert, login, run, shown, step, uncomplaining } from './steps.mjs';

const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { screenshots: { type: 'string' } } });
const [url, email, password, axePath] = positionals;
const axe = await readFile(axePath, 'utf8');

/** Where it is looked: width, and colours. */
const LOOKS = [DESKTOP, PHONE].flatMap(([width, height, more]) => [false, true].map((dark) => [width, height, { ...more, dark }]));

async function look(page, view) {
  for (const [width, height, more] of LOOKS) {
    await page.size(width, height, more);
    await page.value(`Promise.all(document.getAnimations().filter((a) => a.effect.getTiming().iterations !== Infinity).map((a) => a.finished.catch(() => {})))`);
    const name = `${view}-${width}${more.dark ? '-dark' : ''}`;
    if (options.screenshots) {
      await mkdir(options.screenshots, { recursive: true });
      await page.screenshot(path.join(options.screenshots, `${name}.png`));
    }
    await page.value(`globalThis.axe ? null : (() => { ${axe}\n; return null; })()`);
    const findings = await page.value(`axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map(
      ({ id, help, nodes }) => id + ': ' + help + '\\n    ' + nodes.map(({ html, any }) => html.slice(0, 160) + ' ' + (any[0]?.message ?? '')).join('\\n    ')))`);
    check(findings.length === 0, `${name}:\n  ${findings.join('\n  ')}`);
  }
  step(`${view}: no findings`);
}

/** Axe sees what is wrong: a picture without words is one finding. */
async function trial(page) {
  await page.value(`globalThis.axe ? null : (() => { ${axe}\n; return null; })()`);
  await page.value(`document.querySelector('main:not([hidden])').append(Object.assign(new Image(9, 9), { id: 'trial' }))`);
  const ids = await page.value(`axe.run(document).then(({ violations }) => violations.map(({ id }) => id))`);
  check(ids.includes('image-alt'), `a picture without words is not found: ${ids}`);
  await page.value(`document.getElementById('trial').remove()`);
}

const pressed = (page, selector) => page.value(`document.querySelector('${selector}').click()`);

await run(Chromium, async (browser) => {
  const page = await browser.open(url, 'A');
  await page.size(...DESKTOP);
  await page.until('the door', shown('[data-test=login-submit]'));
  await trial(page);
  await look(page, 'login');
  await pressed(page, '[data-test=to-register]');
  await look(page, 'register');
  await page.size(...DESKTOP);
  await page.click('#to-login');
  await login(page, email, password);
  await page.until('threads', shown('[data-test=thread]'));
  await look(page, 'list');
  await pressed(page, '[data-test=thread]');
  await page.until('messages', shown('[data-test=message]'));
  await page.value(`document.getElementById('composer').focus()`);
  await insert(page, 'x'.repeat(4_001));
  await look(page, 'conversation');
  await pressed(page, '[data-test=members-open]');
  await page.until('members', shown('[data-test=member]'));
  await look(page, 'members');
  await pressed(page, '#members-close');
  await pressed(page, '[data-test=find-open]');
  await insert(page, 'a');
  await page.until('people', shown('[data-test=person]'));
  await pressed(page, '[data-test=person]');
  await page.value(`document.querySelectorAll('[data-test=person]')[1].click()`);
  await look(page, 'find');
  await pressed(page, '#find-cancel');
  await pressed(page, '[data-test=profile-open]');
  await look(page, 'profile');
  await pressed(page, '#profile-close');
  await page.value(`location.hash = '#/t/00000000-0000-7000-8000-000000000000'`);
  await page.until('words about a conversation that is not there', shown('#gone'));
  await look(page, 'gone');
  uncomplaining(page);
});
