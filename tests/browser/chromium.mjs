// Drives a headless Chromium over its DevTools protocol by pipe: JSON messages ended by a zero byte on descriptors 3 and 4.
// No dependencies. What is tested is in the scripts beside this file.

import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

const FLAGS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows', '--disable-renderer-backgrounding', '--remote-debugging-pipe',
];

/** A call or a condition that takes longer than this has failed, milliseconds: long, as a busy machine is no fault. */
const PATIENCE_MS = 60_000;
const POLL_MS = 40;

export class Chromium {
  #child;
  #folder;
  #nextId = 1;
  #calls = new Map();
  #pages = new Map();
  #input = '';

  static async start(binary = process.env.CHROMIUM ?? '/usr/bin/chromium') {
    const browser = new Chromium();
    browser.#folder = await mkdtemp(path.join(tmpdir(), 'haus-browser-'));
    const stdio = ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'];
    browser.#child = spawn(binary, [...FLAGS, `--user-data-dir=${browser.#folder}`, 'about:blank'], { stdio });
    browser.#child.on('exit', () => browser.#ended());
    browser.#child.on('error', () => browser.#ended());
    browser.#child.stdio[3].on('error', () => {});
    browser.#child.stdio[4].setEncoding('utf8').on('data', (text) => browser.#received(text));
    await browser.call('Browser.getVersion');
    return browser;
  }

  /** A page in a context of its own: another person's browser. */
  async open(url, name) {
    const { browserContextId } = await this.call('Target.createBrowserContext');
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank', browserContextId, width: 1280, height: 800 });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId, name);
    this.#pages.set(sessionId, page);
    for (const domain of ['Page', 'Runtime', 'Log']) await page.call(`${domain}.enable`);
    // Each page believes that it has the focus, as on a screen of its own.
    await page.call('Emulation.setFocusEmulationEnabled', { enabled: true });
    await page.call('Page.navigate', { url });
    return page;
  }

  call(method, params = {}, sessionId = undefined) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer from the browser`)), PATIENCE_MS);
      this.#calls.set(id, { method, resolve, reject, timer });
      this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  async stop() {
    const gone = this.#child.exitCode === null && new Promise((resolve) => this.#child.once('exit', resolve));
    await this.call('Browser.close').catch(() => this.#child.kill('SIGKILL'));
    await gone;
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  #received(text) {
    const parts = (this.#input + text).split('\0');
    this.#input = parts.pop();
    for (const part of parts) {
      const { id, method, params, sessionId, result, error } = JSON.parse(part);
      if (id === undefined) {
        this.#pages.get(sessionId)?.told(method, params);
        continue;
      }
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (!call) continue;
      clearTimeout(call.timer);
      if (error) call.reject(new Error(`${call.method}: ${error.message}`));
      else call.resolve(result);
    }
  }

  #ended() {
    for (const { method, reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(new Error(`${method}: the browser has ended`));
    }
    this.#calls.clear();
  }
}

export class Page {
  /** What the page complained about: exceptions, refused content, console errors. */
  complaints = [];
  #browser;
  #sessionId;

  constructor(browser, sessionId, name) {
    this.#browser = browser;
    this.#sessionId = sessionId;
    this.name = name;
  }

  call(method, params) {
    return this.#browser.call(method, params, this.#sessionId);
  }

  told(method, params) {
    if (method === 'Runtime.exceptionThrown') {
      this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    }
    // A refused connection is what an outage looks like; everything else at this level is a fault of the page.
    const { level, source, text, url } = params?.entry ?? {};
    if (method === 'Log.entryAdded' && level === 'error' && source !== 'network') this.complaints.push(`${source}: ${text} ${url ?? ''}`);
    if (method === 'Runtime.consoleAPICalled' && params.type === 'error') this.complaints.push(params.args.map((arg) => arg.value ?? arg.description).join(' '));
  }

  /** The value of an expression in the page. */
  async value(expression) {
    const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(`${this.name}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  /** Waits until an expression is true, and gives its value. */
  async until(what, expression, patienceMs = PATIENCE_MS) {
    const endsAt = Date.now() + patienceMs;
    for (;;) {
      const value = await this.value(expression);
      if (value) return value;
      if (Date.now() > endsAt) throw new Error(`${this.name}: waited ${patienceMs} ms for: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /**
   * A real click in the middle of the element, once it stands still with nothing over it. Should the page move between the
   * look and the click, the click is kept from what it would have hit, and made again.
   */
  async click(selector) {
    const words = JSON.stringify(selector);
    const endsAt = Date.now() + PATIENCE_MS;
    do {
      const { x, y } = await this.until(`${selector} to click`, `(${standing})(${words})`);
      await this.value(`(${guard})(${words})`);
      for (const type of ['mousePressed', 'mouseReleased']) {
        await this.call('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 });
      }
      if (await this.value('globalThis.clickGuard?.() ?? true')) return;
    } while (Date.now() < endsAt);
    throw new Error(`${this.name}: ${selector} moves away from every click`);
  }

  /** Clicks a field and types into it. */
  async type(selector, text) {
    await this.click(selector);
    await this.call('Input.insertText', { text });
  }

  async key(key, code = key, keyCode = 0) {
    const event = { key, code, windowsVirtualKeyCode: keyCode, text: key === 'Enter' ? '\r' : undefined };
    await this.call('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
    await this.call('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }

  async size(width, height, { mobile = false, dark = false } = {}) {
    await this.call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: mobile ? 2 : 1, mobile });
    await this.call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
  }

  async screenshot(file) {
    await this.value('new Promise((done) => setTimeout(done, 350))');
    const { data } = await this.call('Page.captureScreenshot', { format: 'png' });
    await writeFile(file, Buffer.from(data, 'base64'));
  }
}

// Run in the page.

/** Where to click an element: null while it is not there, moves, or has something over it. */
async function standing(selector) {
  const element = document.querySelector(selector);
  if (!element || element.disabled || element.getClientRects().length === 0) return null;
  element.scrollIntoView({ block: 'nearest' });
  const rectangle = () => JSON.stringify(element.getBoundingClientRect());
  const before = rectangle();
  // Two frames; a page that is not painted has none.
  await new Promise((done) => {
    requestAnimationFrame(() => requestAnimationFrame(done));
    setTimeout(done, 100);
  });
  const { x, y, width, height } = element.getBoundingClientRect();
  const middle = { x: x + width / 2, y: y + height / 2 };
  return rectangle() === before && element.contains(document.elementFromPoint(middle.x, middle.y)) ? middle : null;
}

/** Lets one click through to the element alone; `clickGuard()` ends it and tells whether the click was there. */
function guard(selector) {
  const types = ['pointerdown', 'mousedown', 'pointerup', 'mouseup', 'click'];
  let hit = false;
  const look = (event) => {
    const right = document.querySelector(selector)?.contains(event.target) ?? false;
    if (event.type === 'click') hit = right;
    if (right) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  for (const type of types) addEventListener(type, look, { capture: true });
  globalThis.clickGuard = () => {
    for (const type of types) removeEventListener(type, look, { capture: true });
    delete globalThis.clickGuard;
    return hit;
  };
}
