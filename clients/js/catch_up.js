// Getting complete again: what to resume from at `auth`, and `sync` for streams with a gap. Tells when all is caught up.

import { SYNC_STREAMS_MAX } from './store.js';

/** Gaps found within this time go into one `sync`, milliseconds. */
const GATHER_MS = 20;
/** Streams take at most this part of a frame; the rest is for the token and what else `auth` carries. */
const FRAME_PART = 0.5;
/** A catch-up that has brought nothing for so long is given up with its socket, milliseconds. */
export const STALLED_MS = 45_000;
/** A `sync` that brought a stream no further is repeated so often; then the socket is given up. */
const FRUITLESS_MAX = 3;

export class CatchUp {
  #store;
  #sync;
  #changed;
  #giveUp;
  #frameBytes;
  #clock;
  #streamsMax = SYNC_STREAMS_MAX;
  #pending = new Set();
  #wanted = new Set();
  #tries = new Map();
  /** Ids named in the last `auth`, and those that had no room in it. */
  #named = [];
  #rest = [];
  #awaitsFirst = false;
  #lagging = false;
  #timer = null;
  #stall = null;

  /**
   * @param {{store: import('./store.js').Store, sync: (streams: object) => Promise<object>, changed: () => void,
   *          giveUp: () => void, frameBytes: () => number, clock: {setTimeout: Function, clearTimeout: Function}}} parts
   */
  constructor({ store, sync, changed, giveUp, frameBytes, clock }) {
    this.#store = store;
    this.#sync = sync;
    this.#changed = changed;
    this.#giveUp = giveUp;
    this.#frameBytes = frameBytes;
    this.#clock = clock;
  }

  /** Whether every stream is complete as far as this client knows. */
  get done() {
    return this.#pending.size === 0 && this.#wanted.size === 0 && !this.#lagging;
  }

  /** `resume` for the next `auth`; undefined when nothing is held. What has no room in one frame follows by `sync`. */
  resume() {
    const positions = this.#store.positions() ?? [];
    const fit = this.#fitting(positions);
    this.#named = positions.slice(0, fit).map(([id]) => id);
    this.#rest = positions.slice(fit).map(([id]) => id);
    if (positions.length === 0) return undefined;
    return { epoch: this.#store.epoch, streams: Object.fromEntries(positions.slice(0, fit)) };
  }

  /** The last `auth` was too large for something between here and there, whatever `hello` said: fewer streams from now on. */
  tooBig(streams = this.#named.length) {
    if (streams > 1) this.#streamsMax = Math.ceil(Math.min(this.#streamsMax, streams) / 2);
  }

  /** The reply to that `auth`, before the store has it. */
  authed(ok) {
    this.#pending = new Set(this.#named);
    this.#awaitsFirst = this.#pending.size > 0;
    this.#wanted.clear();
    this.#tries.clear();
    this.#lagging = false;
    if (this.#store.epoch === ok.epoch) for (const id of this.#rest) this.want(id);
    this.#watch();
    this.#named = [];
    this.#rest = [];
  }

  /** This stream has a gap: ask for what is missing, unless that is under way. */
  want(id) {
    if (this.#pending.has(id) || this.#wanted.has(id)) return;
    this.#wanted.add(id);
    this.#timer ??= this.#clock.setTimeout(() => this.#flush(), GATHER_MS);
  }

  resumed(d) {
    const first = this.#awaitsFirst;
    this.#awaitsFirst = false;
    if (first) this.#pending.clear();
    for (const id of [...Object.keys(d.streams ?? {}), ...(d.reset ?? []), ...(d.denied ?? [])]) this.#pending.delete(id);
    this.#lagging = false;
    this.#store.resumed(d, first);
    this.#changed();
  }

  /** The server feeds this socket from its log until it has caught up. */
  lag() {
    this.#lagging = true;
    this.#changed();
  }

  heads(heads) {
    for (const id of this.#store.heads(heads)) this.want(id);
    const behind = Object.entries(heads).some(([id, head]) => (this.#store.position(id) ?? head) < head);
    if (!this.#lagging || behind) return;
    this.#lagging = false;
    this.#changed();
  }

  /** The socket is gone; the next `auth` resumes. */
  cut() {
    this.#clock.clearTimeout(this.#timer);
    this.#clock.clearTimeout(this.#stall);
    this.#timer = null;
    this.#stall = null;
    this.#pending.clear();
    this.#wanted.clear();
    this.#lagging = false;
  }

  #flush() {
    this.#timer = null;
    const wanted = [...this.#wanted].map((id) => [id, this.#store.position(id)]);
    const part = wanted.slice(0, this.#fitting(wanted));
    for (const [id] of part) this.#wanted.delete(id);
    if (this.#wanted.size > 0) this.#timer = this.#clock.setTimeout(() => this.#flush(), GATHER_MS);
    const streams = {};
    for (const [id, pos] of part) {
      if (pos === null) continue;
      if (this.#fruitless(id, pos)) return this.#giveUp();
      streams[id] = pos;
    }
    const asked = Object.keys(streams);
    if (asked.length === 0) return this.#changed();
    for (const id of asked) this.#pending.add(id);
    this.#watch();
    this.#store.syncing(asked);
    this.#changed();
    return this.#sync(streams).catch((error) => this.#failed(asked, error));
  }

  // `resumed` may never come, on a socket that otherwise lives. Whatever moves a stream that is waited for is progress.
  #watch() {
    const mark = () => [...this.#pending].reduce((sum, id) => sum + (this.#store.position(id) ?? 0), this.#pending.size);
    const check = (before) => {
      this.#stall = null;
      if (this.#pending.size === 0) return;
      const now = mark();
      if (now === before) this.#giveUp();
      else this.#stall = this.#clock.setTimeout(() => check(now), STALLED_MS);
    };
    if (this.#pending.size === 0 || this.#stall !== null) return;
    const start = mark();
    this.#stall = this.#clock.setTimeout(() => check(start), STALLED_MS);
  }

  /** How many of these fit into one frame; at least one. */
  #fitting(positions) {
    let room = this.#frameBytes() * FRAME_PART;
    let count = 0;
    for (const [id, pos] of positions) {
      // `"id":pos,`
      room -= id.length + String(pos).length + 4;
      if (count >= this.#streamsMax || (room < 0 && count > 0)) break;
      count += 1;
    }
    return count;
  }

  #fruitless(id, pos) {
    const last = this.#tries.get(id);
    const tries = last?.pos === pos ? last.tries + 1 : 1;
    this.#tries.set(id, { pos, tries });
    return tries > FRUITLESS_MAX;
  }

  #failed(ids, error) {
    for (const id of ids) this.#pending.delete(id);
    this.#changed();
    if (error.code === 'too_large') this.tooBig(ids.length);
    else if (!error.retryable || error.code === 'disconnected') return;
    this.#clock.setTimeout(() => ids.forEach((id) => this.want(id)), Math.max(error.retryAfterMs, 250));
  }
}
