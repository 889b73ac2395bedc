// Names and faces: profiles by id, asked for together and kept. Nothing here is durable.
//
// The protocol does not tell that somebody changed their name. So what is shown is asked for again when it has grown old, and
// what comes with other replies (members, peers) is taken when it comes.

/** Ids in one `profiles.get` (protocol, section 4). */
const IDS_MAX = 100;
/** Profiles kept; the oldest goes first. */
export const KEPT_MAX = 2_000;
/** A profile that is older is asked for again where it is shown, milliseconds. */
export const FRESH_MS = 5 * 60_000;
/** What is shown is looked through so often, milliseconds. */
export const LOOK_MS = 60_000;
/** Older than this, milliseconds, it is asked for again after the device was away. */
export const WOKE_MS = 30_000;

/** What others see of somebody beside a message or in a list. */
const SHOWN = ['displayName', 'avatar'];

export class People {
  /** Id → the profile, null while it is not known, and when it was asked for or told. */
  #known = new Map();
  #wanted = new Set();
  #fetch;
  #clock;
  #arrived;
  #changed;
  #scheduled = false;
  #told = false;
  #lookedAt;

  /**
   * @param {{fetch: (ids: string[]) => Promise<object[]>, clock: {mono(): number}, arrived: () => void,
   *          changed?: (profile: object) => void}} parts
   *   `arrived`: something is to be drawn anew, told once a turn; `changed`: somebody known is called otherwise
   */
  constructor({ fetch, clock, arrived, changed }) {
    this.#fetch = fetch;
    this.#clock = clock;
    this.#changed = changed ?? (() => {});
    this.#lookedAt = clock.mono();
    this.#arrived = arrived;
  }

  /** The profile if it is known; else null. `arrived` is called once it is, or once a newer one is. */
  get(id) {
    const entry = this.#known.get(id);
    if (id && (entry === undefined || entry.at < this.#clock.mono() - FRESH_MS)) this.#want(id);
    return entry?.profile ?? null;
  }

  /** Takes what came with something else (members, peers). */
  learn(profile) {
    if (!profile?.id || !profile.displayName) return;
    const before = this.#known.get(profile.id)?.profile ?? null;
    // What a reply leaves out stays as it was.
    const told = Object.entries(profile).filter(([, value]) => value !== undefined);
    const now = { ...before, ...Object.fromEntries(told) };
    this.#keep(profile.id, now);
    if (before === null || SHOWN.every((name) => (before[name] ?? null) === (now[name] ?? null))) return;
    this.#changed(now);
    this.#tell();
  }

  /** Time has passed: what is shown is drawn again, so that what has grown old is asked for. */
  look() {
    if (this.#clock.mono() - this.#lookedAt < LOOK_MS) return;
    this.#lookedAt = this.#clock.mono();
    this.#tell();
  }

  /** The device was away. */
  woke() {
    const now = this.#clock.mono();
    if (now - this.#lookedAt < WOKE_MS) return;
    for (const entry of this.#known.values()) if (entry.at < now - WOKE_MS) entry.at = -Infinity;
    this.#lookedAt = now;
    this.#tell();
  }

  clear() {
    this.#known.clear();
    this.#wanted.clear();
  }

  #tell() {
    if (this.#told) return;
    this.#told = true;
    queueMicrotask(() => {
      this.#told = false;
      this.#arrived();
    });
  }

  // The one told longest ago goes first: a map keeps the place of a key that is set again.
  #keep(id, profile) {
    this.#known.delete(id);
    this.#known.set(id, { profile, at: this.#clock.mono() });
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
    // As it was until they come: each is asked for once.
    for (const id of ids) this.#keep(id, this.#known.get(id)?.profile ?? null);
    try {
      const asked = new Map(ids.map((id) => [id, this.#known.get(id)]));
      const unknown = [...asked.values()].some((entry) => entry?.profile === null);
      for (const profile of await this.#fetch(ids)) {
        // What was told meanwhile is newer.
        if (this.#known.get(profile.id) === asked.get(profile.id)) this.learn(profile);
      }
      if (unknown) this.#tell();
    } catch {
      for (const id of ids) if (this.#known.get(id)?.profile === null) this.#known.delete(id);
    }
    if (this.#wanted.size > 0) this.#want([...this.#wanted][0]);
  }
}
