// What a person is at stays while the page is painted anew: the focus in lists that change, a selection, a walk through people
// found; and whoever was at something that goes is not left without the focus. Exit 0, or 1 with what was wrong.
//
//   node tests/browser/staying.mjs URL E-MAIL-A PASSWORD-A E-MAIL-B PASSWORD-B

import { Chromium } from './chromium.mjs';
import { DESKTOP, check, copies, enter, focused, insert, login, rest, run, say, shown, state, step, text, uncomplaining } from './steps.mjs';

const [url, emailA, passwordA, emailB, passwordB] = process.argv.slice(2);
const tag = Math.random().toString(36).slice(2, 8);
const link = (id) => `document.querySelector('[data-test=thread][data-thread-id="${id}"]')`;
const place = (id) => `[...document.querySelectorAll('[data-test=thread]')].indexOf(${link(id)})`;
const lost = `(document.activeElement === document.body)`;

/** Before the page's own script: sockets can be cut, and new ones led to where there is none; an answer can come late. */
const CUTTER = `{
  const open = new Set();
  let off = false;
  globalThis.WebSocket = class extends WebSocket {
    constructor(address, protocols) {
      super(off ? String(address).replace('/v1/ws', '/v1/nothing') : address, protocols);
      open.add(this);
    }
  };
  const ask = fetch;
  globalThis.fetch = async (address, init) => {
    const answer = await ask(address, init);
    if (globalThis.late && init.method === 'GET' && String(address).endsWith('/v1/me')) await new Promise((done) => (globalThis.come = done));
    return answer;
  };
  globalThis.cut = (on) => {
    off = on;
    if (on) for (const socket of open) socket.close();
  };
}`;

/** B, who changes things without a page. */
async function somebody() {
  const { accessToken: token } = await rest(url, 'POST', '/v1/auth/login', { email: emailB, password: passwordB });
  const call = (method, path, body) => rest(url, method, path, body, token);
  return {
    group: async (name, ids) => (await call('POST', '/v1/threads', { type: 'GROUP', name: `${name} ${tag}`, memberIds: ids })).id,
    say: (id, content) => call('POST', `/v1/threads/${id}/messages`, { content }),
    remove: (id, profileId) => call('DELETE', `/v1/threads/${id}/members/${profileId}`),
  };
}

async function inTheList(page, b, selfId) {
  const [one, two, three] = [await b.group('One', [selfId]), await b.group('Two', [selfId]), await b.group('Three', [selfId])];
  for (const id of [one, two, three]) await b.say(id, `${id} begins`);
  await page.until('the order', `${place(three)} === 0 && ${place(two)} === 1 && ${place(one)} === 2`);
  await page.value(`${link(one)}.focus()`);
  await b.say(one, 'to the top');
  await page.until('it on top', `${place(one)} === 0`);
  check(await page.value(`document.activeElement === ${link(one)}`), `a conversation that moves loses the focus to ${await page.value(focused)}`);
  await b.remove(one, selfId);
  await page.until('it gone', `${link(one)} === null`);
  check(!(await page.value(lost)), 'the focus goes with a conversation that is taken out of the list');
  step('the focus stays in the list, whatever moves and goes');
  return [two, three];
}

async function inMessages(page, b, id) {
  await enter(page, id);
  await b.say(id, `read https://example.org/${tag} and choose these words`);
  await page.until('the message', `${copies(`choose these words`)}.length === 1`);
  await page.value(`(() => { const node = ${copies('choose these words')}[0].querySelector('.text').lastChild;
    getSelection().setBaseAndExtent(node, 5, node, 17); ${copies('choose these words')}[0].querySelector('a').focus(); })()`);
  const chosen = await page.value('String(getSelection())');
  // The one before it is no longer the last of its group, and is painted anew.
  await b.say(id, `another ${tag}`);
  await page.until('another', `${copies(`another ${tag}`)}.length === 1`);
  await page.value(`document.getElementById('title').textContent`);
  check((await page.value('String(getSelection())')) === chosen && chosen !== '', 'a selection is lost when another message comes');
  check(await page.value(`document.activeElement.matches('.text a')`), 'a link loses the focus when another message comes');
  step('a selection and a link in a message stay when another comes');
}

async function failed(page) {
  // Nothing to be seen: the server refuses it.
  await say(page, '\u2800');
  await page.until('that it failed', `document.querySelector('[data-test=message][data-state=failed]') !== null`);
  const where = `['composer', 'title'].includes(${focused})`;
  await page.value(`document.querySelector('[data-state=failed] .retry').focus()`);
  await page.key('Enter', 'Enter', 13);
  await page.until('the focus where one writes', where);
  // It fails again; until then it cannot be given up.
  await page.until('it gone', `(() => { const button = document.querySelector('[data-state=failed] .discard');
    if (button === null) return document.querySelector('[data-state=sending]') === null;
    button.focus();
    button.click();
    return false; })()`);
  await page.until('the focus where one writes', where);
  step('a failed message sent again or given up leaves the focus at the composer');
}

async function inSearch(page) {
  await page.click('[data-test=find-open]');
  await insert(page, 'k');
  const ids = `[...document.querySelectorAll('[data-test=person]')].map((button) => button.dataset.profileId)`;
  await page.until('people', `${ids}.length > 0`);
  const [first] = await page.value(ids);
  // An answer comes while somebody walks in the list already.
  const walk = (words) => page.value(`(async () => { const field = document.getElementById('find-input'); field.value = ${text(words)};
    field.dispatchEvent(new Event('input')); document.querySelector('[data-test=person]').focus();
    const before = document.querySelector('[data-test=person]').dataset.profileId;
    const status = document.getElementById('find-status');
    while (status.textContent.startsWith('Looking') || performance.getEntriesByName(location.origin + '/v1/search/profiles?limit=20&q=' + encodeURIComponent(${text(words)})).length === 0) await new Promise((done) => setTimeout(done, 20));
    return before; })()`);
  const name = await page.value(`document.querySelector('[data-test=person] .person-name').textContent`);
  await walk(name.slice(0, 2));
  check((await page.value(`document.activeElement.dataset.profileId`)) === first, 'somebody found again loses the focus');
  await walk(`nobody ${tag}`);
  await page.until('the focus at the field', `${focused} === 'find-input'`);
  await page.click('#find-cancel');
  step('the walk through people found is not broken by an answer');
}

async function outage(page) {
  await page.value('cut(true)');
  await page.until('the way to try now', shown('#connection-retry'));
  await page.value(`document.getElementById('connection-retry').focus()`);
  await page.key('Enter', 'Enter', 13);
  await page.until('the next wait', `document.getElementById('connection-text').textContent.includes('Next try')`);
  check(!(await page.value(lost)), 'the focus is lost by trying');
  await page.value(`document.getElementById('connection-retry').focus()`);
  await page.value('cut(false)');
  await page.until('to be live', `${state} === 'live'`);
  check(!(await page.value(lost)), 'the focus goes with the notice of an outage');
  step('whoever pressed "Try now" is somewhere when it goes');
}

async function lateProfile(page, name) {
  await page.value('globalThis.late = true');
  await page.click('[data-test=profile-open]');
  await page.until('the own profile under way', `typeof globalThis.come === 'function'`);
  await page.value(`document.getElementById('profile-name').select()`);
  await insert(page, `${name} ${tag}`);
  await page.key('Enter', 'Enter', 13);
  await page.until('it saved', `!document.getElementById('profile').open`);
  await page.value('globalThis.late = false; come()');
  await page.value('new Promise((done) => setTimeout(done, 300))');
  const shownName = await page.value(`document.getElementById('me-name').textContent`);
  check(shownName === `${name} ${tag}`, `an answer that was late took the saved name back: ${shownName}`);
  await page.click('[data-test=profile-open]');
  await page.until('the profile', `document.getElementById('profile-name').value === ${text(`${name} ${tag}`)}`);
  await page.value(`document.getElementById('profile-name').select()`);
  await insert(page, name);
  await page.key('Enter', 'Enter', 13);
  await page.until('the name of before', `document.getElementById('me-name').textContent === ${text(name)}`);
  step('a late answer does not take back what was saved');
}

async function takenOut(page, b, id, selfId) {
  await page.click('[data-test=composer]');
  await b.remove(id, selfId);
  await page.until('that it is gone', shown('#gone'));
  await page.until('the focus at the words about it', `${focused} === 'gone-title'`);
  step('whoever is taken out while writing is told so');
}

await run(Chromium, async (browser) => {
  const page = await browser.open(url, 'A');
  await page.size(...DESKTOP);
  await page.call('Page.addScriptToEvaluateOnNewDocument', { source: CUTTER });
  await page.call('Page.reload');
  await page.until('the page with that', `typeof cut === 'function' && ${shown('[data-test=login-submit]')}`);
  await login(page, emailA, passwordA);
  await page.until('threads', shown('[data-test=thread]'));
  const { profile } = await rest(url, 'POST', '/v1/auth/login', { email: emailA, password: passwordA });
  const b = await somebody();
  const [two] = await inTheList(page, b, profile.id);
  await inMessages(page, b, two);
  await failed(page);
  await inSearch(page);
  await outage(page);
  await lateProfile(page, profile.displayName);
  await takenOut(page, b, two, profile.id);
  uncomplaining(page);
});
