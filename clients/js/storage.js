// Places to keep what must survive a reload. The interface is the part of the Web Storage API used here:
// `length`, `key(i)`, `getItem`, `setItem`, `removeItem`.

/** Forgets everything with the process. */
export class MemoryStorage {
  #items = new Map();

  get length() {
    return this.#items.size;
  }

  key(index) {
    return [...this.#items.keys()][index] ?? null;
  }

  getItem(key) {
    return this.#items.get(key) ?? null;
  }

  setItem(key, value) {
    this.#items.set(key, String(value));
  }

  removeItem(key) {
    this.#items.delete(key);
  }
}

/**
 * A storage that never throws. Any may, at any time: full, forbidden by a setting, its files gone. What this instance wrote or
 * read is then served from memory, and `onTrouble` hears of it once.
 */
export class Keep {
  #inner;
  #onTrouble;
  /** Last known values; null: removed. */
  #known = new Map();
  /** Keys whose present value the inner storage does not have. */
  #own = new Set();
  #works = true;

  /** @param {Storage | null} inner null: there is none @param {(cause: unknown) => void} onTrouble */
  constructor(inner, onTrouble) {
    this.#inner = inner;
    this.#onTrouble = onTrouble;
    if (inner === null) this.#trouble(null);
  }

  /** Whether everything written so far would survive a reload. */
  get works() {
    return this.#works;
  }

  getItem(key) {
    if (!this.#own.has(key)) {
      const value = this.#try(() => this.#inner.getItem(key));
      if (value !== undefined) this.#known.set(key, value);
    }
    return this.#known.get(key) ?? null;
  }

  setItem(key, value) {
    const text = String(value);
    this.#known.set(key, text);
    const set = () => {
      this.#inner.setItem(key, text);
      return true;
    };
    // A full storage may have room once the old value is gone, which must not be read as the present one in any case.
    const done = quietly(set) || (quietly(() => this.#inner.removeItem(key)), this.#try(set));
    if (done) this.#own.delete(key);
    else this.#own.add(key);
  }

  removeItem(key) {
    const done = this.#try(() => {
      this.#inner.removeItem(key);
      return true;
    });
    this.#known.set(key, null);
    if (done) this.#forgetKey(key);
    else this.#own.add(key);
  }

  /** All keys that begin with `prefix`. @returns {string[]} */
  keys(prefix) {
    const stored = this.#try(() => Array.from({ length: this.#inner.length }, (_, index) => this.#inner.key(index)));
    const known = [...this.#known].filter(([key, value]) => value !== null && (stored === undefined || this.#own.has(key)));
    const found = new Set(known.map(([key]) => key));
    for (const key of stored ?? []) if (!this.#own.has(key)) found.add(key);
    return [...found].filter((key) => key?.startsWith(prefix));
  }

  #forgetKey(key) {
    this.#own.delete(key);
    this.#known.delete(key);
  }

  /** What the inner storage gives; undefined if it throws. */
  #try(task) {
    try {
      return task();
    } catch (cause) {
      this.#trouble(cause);
      return undefined;
    }
  }

  #trouble(cause) {
    if (!this.#works) return;
    this.#works = false;
    this.#onTrouble(cause);
  }
}

function quietly(task) {
  try {
    return task();
  } catch {
    return undefined;
  }
}

/** `localStorage`; null in a browser that forbids it; memory where there is no browser. */
export function defaultStorage() {
  try {
    const found = globalThis.localStorage;
    if (found) return found;
  } catch {
    return null;
  }
  return globalThis.document === undefined ? new MemoryStorage() : null;
}

/** This device's own id, made once. */
export function deviceId(storage) {
  const known = storage.getItem('haus.device');
  if (known) return known;
  const id = uuid();
  storage.setItem('haus.device', id);
  return id;
}

/** A random version 4 UUID; `crypto.randomUUID` exists only in secure contexts. */
export function uuid() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
