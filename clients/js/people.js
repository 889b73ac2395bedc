// Names and faces: profiles by id, asked for together and kept. Nothing here is durable.

/** Ids in one `profiles.get` (protocol, section 4). */
const IDS_MAX = 100;
/** Profiles kept; the oldest goes first. */
const KEPT_MAX = 2_000;

export class People {
  #known = new Map();
  #wanted = new Set();
  #fetch;
  #arrived;
  #scheduled = false;

  /** @param {{fetch: (ids: string[]) => Promise<object[]>, arrived: () => void}} parts */
  constructor({ fetch, arrived }) {
    this.#fetch = fetch;
    this.#arrived = arrived;
  }

  /** The profile if it is known; else null, and `arrived` is called once it is. */
  get(id) {
    const known = this.#known.get(id);
    if (known === undefined && id) this.#want(id);
    return known ?? null;
  }

  /** Takes what came with something else (members, peers). */
  learn(profile) {
    if (!profile?.id || !profile.displayName) return;
    this.#keep(profile.id, { ...this.#known.get(profile.id), ...profile });
  }

  clear() {
    this.#known.clear();
    this.#wanted.clear();
  }

  #keep(id, profile) {
    this.#known.set(id, profile);
    if (this.#known.size > KEPT_MAX) this.#known.delete(this.#known.keys().next().value);
  }

  #want(id) {
    this.#wanted.add(id);
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => this.#flush());
  }

  async #flush() {
    this.#scheduled = false;
    const ids = [...this.#wanted].slice(0, IDS_MAX);
    if (ids.length === 0) return;
    for (const id of ids) this.#wanted.delete(id);
    // Null until they come: each is asked for once.
    for (const id of ids) this.#keep(id, null);
    try {
      for (const profile of await this.#fetch(ids)) this.learn(profile);
      this.#arrived();
    } catch {
      for (const id of ids) if (this.#known.get(id) === null) this.#known.delete(id);
    }
    if (this.#wanted.size > 0) this.#want([...this.#wanted][0]);
  }
}
