// Reading and writing in a long conversation: how many messages are elements, that the place is kept, days, links, emoji.
// Exit 0, or 1 with what was wrong. The server has no rate limits (HAUS_LIMITS=off).
//
//   node tests/browser/reading.mjs URL E-MAIL-A PASSWORD-A E-MAIL-B PASSWORD-B [--messages N]

import { parseArgs } from 'node:util';

import { Chromium } from './chromium.mjs';
import { DESKTOP, PHONE, check, copies, enter, insert, login, once, rest as restAt, run, say, shown, state, step, uncomplaining } from './steps.mjs';

const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { messages: { type: 'string', default: '700' } } });
const [url, emailA, passwordA, emailB, passwordB] = positionals;
const MESSAGES = Number(options.messages);
/** Messages that may be elements at a time. */
const MOST = 200;
/** A font comes within this, milliseconds. */
const COLOUR_MS = 20_000;
/** Sends under way at a time. */
const LANES = 12;
const rest = (...call) => restAt(url, ...call);
const tag = Math.random().toString(36).slice(2, 8);

/** Many messages of B at once, numbered. */
async function flood(token, threadId, words) {
  let next = 0;
  await Promise.all(Array.from({ length: LANES }, async () => {
    while (next < MESSAGES) {
      const content = `${words} ${next += 1}`;
      await rest('POST', `/v1/threads/${threadId}/messages`, { content }, token);
    }
  }));
}

const count = `document.querySelectorAll('[data-test=message]').length`;
const numbers = `[...document.querySelectorAll('[data-test=message]')].map((m) => Number(m.dataset.no))`;
const toEnd = `(() => { const s = document.getElementById('scroller'); return s.scrollHeight - s.scrollTop - s.clientHeight; })()`;
/** The first message in sight, and where it stands. */
const place = `(() => { const top = document.getElementById('scroller').getBoundingClientRect().top;
  const m = [...document.querySelectorAll('[data-test=message]')].find((m) => m.getBoundingClientRect().bottom > top);
  return { no: Number(m.dataset.no), at: Math.round(m.getBoundingClientRect().top) }; })()`;
const still = async (page, before, what) => {
  const after = await page.value(place);
  check(after.no === before.no && Math.abs(after.at - before.at) <= 2, `${what}: from ${JSON.stringify(before)} to ${JSON.stringify(after)}`);
};
const unbroken = async (page) => {
  const nos = await page.value(numbers);
  check(nos.every((no, i) => i === 0 || no === nos[i - 1] + 1), `messages are not in unbroken order: ${nos}`);
};

async function many(page, token, id) {
  await page.value(`(() => { globalThis.most = 0; new MutationObserver(() => { globalThis.most = Math.max(globalThis.most, ${count}); })
    .observe(document.getElementById('messages'), { childList: true }); })()`);
  await flood(token, id, 'walk');
  await page.until('the last of them', `${copies(`walk ${MESSAGES}`)}.length > 0 || ${toEnd} < 2 && ${numbers}.length > 0`);
  await page.until('the end to be kept', `${toEnd} < 2`);
  await unbroken(page);
  check((await page.value('globalThis.most')) <= MOST, `${await page.value('globalThis.most')} messages were elements`);
  step(`of ${MESSAGES} that arrived at most ${await page.value('globalThis.most')} were elements, and the end was kept`);

  // Up through what is held and what the server has, and down again.
  await page.value(`document.getElementById('scroller').scrollTop = 400`);
  const last = (await page.value(numbers)).at(-1);
  await page.until('older ones', `${numbers}[0] < ${last - 300} || (document.getElementById('scroller').scrollTop = Math.min(document.getElementById('scroller').scrollTop, 300), false)`);
  await unbroken(page);
  check((await page.value('globalThis.most')) <= MOST, 'too many elements while reading back');
  const before = await page.value(place);
  await flood(token, id, 'meanwhile');
  await page.until('what came to be told', `document.getElementById('jump-text').textContent.includes('new')`);
  await still(page, before, 'the place was lost while others wrote');
  check((await page.value('globalThis.most')) <= MOST, 'too many elements after messages behind the window');
  step('who reads back keeps the place, whatever arrives');
  await page.until('the newest by scrolling', `${copies('meanwhile')}.length > 0 && ${toEnd} < 2
    || (document.getElementById('scroller').scrollTop = document.getElementById('scroller').scrollHeight, false)`);
  await unbroken(page);
  check((await page.value('globalThis.most')) <= MOST, 'too many elements on the way down');
  await page.value(`document.getElementById('scroller').scrollTop -= 2500`);
  await page.until('the way to the latest', shown('#jump'));
  await page.click('#jump');
  await page.until('the end', `${toEnd} < 2`);
  step('down again by scrolling, and by the button');
}

async function room(page) {
  await page.size(...PHONE);
  await page.until('the end after turning', `${toEnd} < 2`);
  await page.click('[data-test=composer]');
  for (let line = 1; line <= 7; line += 1) await insert(page, `line ${line}\n`);
  await page.until('the end while writing', `${toEnd} < 2`);
  // The keyboard comes up: less room.
  await page.size(390, 500, { mobile: true });
  await page.until('the end under the keyboard', `${toEnd} < 2`);
  await page.until('the composer in sight', `document.getElementById('composer').getBoundingClientRect().bottom <= innerHeight && ${toEnd} < 2`);
  await page.value(`document.getElementById('scroller').scrollTop -= 1200`);
  await page.until('to be away from the end', `${toEnd} > 800`);
  const before = await page.value(place);
  await insert(page, 'one more\nand another\n');
  await page.value('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
  await still(page, before, 'the place was lost while writing');
  await page.size(390, 844, { mobile: true });
  await page.until('the room again', `document.getElementById('hub').getBoundingClientRect().height > 800`);
  await still(page, before, 'the place was lost when the keyboard went');
  await page.value(`(() => { const c = document.getElementById('composer'); c.value = ''; c.dispatchEvent(new Event('input')); })()`);
  await page.size(...DESKTOP);
  await page.click('#jump');
  step('the end, or the place, is kept while writing and when a keyboard comes and goes');
}

async function links(a, b) {
  const words = `see www.example.org, "https://example.org/a" and https://example.org/?q='it' (https://example.org/b_(c)). Not https://bank.example@evil.example `
    + `nor https://me:secret@evil.example/ ${tag}`;
  await say(b, words);
  await once(a, words.slice(-30));
  const found = await a.value(`[...${copies(tag)}.at(-1).querySelectorAll('a')].map((link) => link.href)`);
  const wanted = ['https://www.example.org/', 'https://example.org/a', 'https://example.org/?q=%27it%27', 'https://example.org/b_(c)'];
  check(JSON.stringify(found) === JSON.stringify(wanted), `links: ${found.join(' ')}`);
  step('addresses are links, and none hides its host');
}

/** Pixels with a colour in the picture of an element. */
async function coloured(page, element) {
  const { x, y, width, height } = await page.value(`(({ x, y, width, height }) => ({ x, y, width, height }))(${element}.getBoundingClientRect())`);
  const { data } = await page.call('Page.captureScreenshot', { format: 'png', clip: { x, y, width, height, scale: 1 } });
  return page.value(`(async () => {
    const image = await createImageBitmap(new Blob([Uint8Array.from(atob('${data}'), (char) => char.charCodeAt(0))]));
    const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) if (Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60) count += 1;
    return count;
  })()`);
}

async function emoji(a, b) {
  for (const words of ['🔥', '👩🏽‍🎤']) {
    await say(b, words);
    await a.until(words, `${copies(words)}.length > 0`);
  }
  // Painted with the page's own list of fonts, it has colours.
  const colours = await a.value(`(async () => {
    await Promise.all(['Haus Emoji', 'Haus Emoji All'].map((font) => document.fonts.load('48px "' + font + '"', '🔥👩🏽‍🎤')));
    const context = new OffscreenCanvas(80, 80).getContext('2d', { willReadFrequently: true });
    context.font = '48px ' + getComputedStyle(document.body).fontFamily;
    return ['🔥', '👩🏽‍🎤', '1'].map((words) => {
      context.clearRect(0, 0, 80, 80);
      context.fillText(words, 4, 56);
      const { data } = context.getImageData(0, 0, 80, 80);
      let coloured = 0;
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200 && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60) coloured += 1;
      return coloured;
    });
  })()`);
  check(colours[0] > 100 && colours[1] > 100 && colours[2] === 0, `coloured pixels: ${colours}`);
  // Also where they are drawn before their font has come: in the list after a reload.
  await say(b, 'yes 🔥');
  const last = `document.querySelector('[data-test=thread][aria-current] .thread-text')`;
  await a.until('it in the list', `${last}.textContent.endsWith('🔥')`);
  await a.call('Page.reload');
  await a.until('it in the list again', `${last}?.textContent.endsWith('🔥')`);
  const endsAt = Date.now() + COLOUR_MS;
  while ((await coloured(a, last)) < 20) check(Date.now() < endsAt, 'an emoji that came before its font stays a box');
  await a.until('to be live again', `${state} === 'live'`);
  step('emoji are seen in colour, whatever fonts the system has');
}

async function midnight(page) {
  const today = `[...document.querySelectorAll('.day')].at(-1).textContent`;
  check((await page.value(today)) === 'Today', 'the last day is not called Today');
  await page.value(`(() => { const Real = Date; const ahead = 86_400_000; globalThis.Date = class extends Real {
    constructor(...given) { if (given.length === 0) super(Real.now() + ahead); else super(...given); }
    static now() { return Real.now() + ahead; } }; })()`);
  await page.until('the day to turn', `${today} === 'Yesterday'`);
  step('Today turns into Yesterday at midnight');
}

await run(Chromium, async (browser) => {
  const [a, b] = [await browser.open(url, 'A'), await browser.open(url, 'B')];
  for (const page of [a, b]) await page.size(...DESKTOP);
  await login(a, emailA, passwordA);
  await login(b, emailB, passwordB);
  const { accessToken: token } = await rest('POST', '/v1/auth/login', { email: emailB, password: passwordB });
  const { profile } = await rest('POST', '/v1/auth/login', { email: emailA, password: passwordA });
  const { id } = await rest('POST', '/v1/threads', { type: 'GROUP', name: `Long ${tag}`, memberIds: [profile.id] }, token);
  for (const page of [a, b]) {
    await page.until('the thread', shown(`[data-thread-id="${id}"]`));
    await enter(page, id);
  }
  await many(a, token, id);
  await links(a, b);
  await emoji(a, b);
  await room(a);
  await midnight(a);
  await a.until('to be live still', `${state} === 'live'`);
  uncomplaining(a, b);
});
