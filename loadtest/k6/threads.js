// Concurrent threads over the socket: every VU is one person on one socket who writes to own threads in turn, reads everything, and
// checks each thread's `seq` by the client rule. Runs with a stock k6.
//
//   HAUS_URL     address of a node                    (http://127.0.0.1:8080)
//   HAUS_TOKENS  file of `haus seed --out`            (tokens.jsonl)
//   VUS          people                               (20)
//   DURATION     seconds of sending, such as 20 or 20s
//   RATE         messages a second, all VUs together  (50)
//
// haus_ack_ms and haus_delivery_ms count from the time a message was meant to be sent.
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { SharedArray } from 'k6/data';
import { WebSocket } from 'k6/websockets';

const BASE = (__ENV.HAUS_URL || 'http://127.0.0.1:8080').replace(/\/+$/, '');
const VUS = Number(__ENV.VUS || 20);
const SECONDS = parseFloat(__ENV.DURATION || '20');
const RATE = Number(__ENV.RATE || 50);
const GRACE_MS = 5000; // for replies still on their way when sending ends
const OPEN_MS = 10000; // until `auth` is answered
const CONTENT_CHARS = 200;

const people = new SharedArray('people', () =>
  open(__ENV.HAUS_TOKENS || 'tokens.jsonl').split('\n').filter((line) => line.trim()).map((line) => JSON.parse(line)));

const gaps = new Counter('haus_gaps');
const doubles = new Counter('haus_doubles');
const sent = new Counter('haus_sent');
const acked = new Counter('haus_acked');
const deliveries = new Counter('haus_deliveries');
const ackMs = new Trend('haus_ack_ms', true);
const deliveryMs = new Trend('haus_delivery_ms', true);
const readyMs = new Trend('haus_ready_ms', true);

export const options = {
  scenarios: {
    threads: { executor: 'per-vu-iterations', vus: VUS, iterations: 1, maxDuration: `${Math.ceil(SECONDS) + 60}s` },
  },
  thresholds: {
    checks: ['rate>0.999'],
    haus_gaps: ['count==0'],
    haus_doubles: ['count==0'],
    haus_acked: ['count>0'],
    haus_ack_ms: ['p(99)>=0'], // printed; the figure depends on the machine
    haus_delivery_ms: ['p(99)>=0'],
  },
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'p(99.9)', 'max'],
};

function uuid() {
  return 'xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx'.replace(/x/g, () => Math.floor(Math.random() * 16).toString(16));
}

function content(intended) {
  return `k6 ${intended} `.padEnd(CONTENT_CHARS, 'the category is load ');
}

function intendedOf(text) {
  const match = /^k6 (\d+) /.exec(text || '');
  return match ? Number(match[1]) : null;
}

// The positions of one socket, by the client rule of the protocol.
class Positions {
  constructor() {
    this.last = new Map();
    this.early = [];
    this.listed = false;
  }

  start(stream, seq) {
    if (!this.last.has(stream)) this.last.set(stream, seq);
  }

  // True when the update is new.
  take(update) {
    if (update.up === 'snapshot') {
      this.last.set(update.s, update.seq);
      return false;
    }
    const last = this.last.get(update.s);
    if (last === undefined) {
      if (!this.listed) this.early.push(update);
      return false;
    }
    if (update.seq <= last) {
      doubles.add(1);
      return false;
    }
    if (update.seq > last + 1) gaps.add(update.seq - last - 1);
    this.last.set(update.s, update.seq);
    return true;
  }
}

export default function () {
  const person = people[(__VU - 1) % people.length];
  const positions = new Positions();
  const waiting = new Map(); // id → intended time
  const own = [];
  const opened = Date.now();
  let nextId = 16;
  let finished = false;

  const socket = new WebSocket(`${BASE.replace(/^http/, 'ws')}/v1/ws`, ['haus.v1']);
  const command = (id, cmd, d) => socket.send(JSON.stringify({ id, cmd, d }));

  function finish() {
    if (finished) return;
    finished = true;
    check(null, { 'every send was answered': () => waiting.size === 0 });
    socket.close();
  }

  function list(ok) {
    for (const thread of ok.threads) {
      positions.start(thread.id, thread.seq);
      if (thread.canSend !== false && (!person.threads || person.threads.length === 0 || person.threads.includes(thread.id))) own.push(thread.id);
    }
    if (ok.next) return command(2, 'threads.list', { cursor: ok.next });
    positions.listed = true;
    for (const update of positions.early.splice(0)) {
      if (update.seq > positions.last.get(update.s)) received(update);
    }
    readyMs.add(Date.now() - opened);
    write();
  }

  // Sends at `begin + n × step`, whatever the replies do.
  function write() {
    const step = (1000 * VUS) / RATE;
    const begin = Date.now() + Math.random() * step;
    const end = begin + SECONDS * 1000;
    let n = 0;
    function next() {
      if (finished) return;
      for (;;) {
        const intended = begin + n * step;
        if (intended >= end) {
          setTimeout(settle, 50);
          return;
        }
        if (intended > Date.now()) {
          setTimeout(next, Math.max(1, intended - Date.now()));
          return;
        }
        const threadId = own[n % own.length];
        n += 1;
        nextId += 1;
        waiting.set(nextId, intended);
        sent.add(1);
        command(nextId, 'message.send', { threadId, nonce: uuid(), content: content(Math.round(intended)) });
      }
    }
    function settle() {
      if (finished) return;
      if (waiting.size === 0 || Date.now() > end + GRACE_MS) return void setTimeout(finish, 1000);
      setTimeout(settle, 50);
    }
    if (check(own, { 'has a thread to write in': (threads) => threads.length > 0 })) next();
    else finish();
  }

  function reply(frame) {
    if (frame.id === 1 || frame.id === 2) {
      if (check(frame, { 'auth answered ok': (f) => f.ok !== undefined })) {
        if (frame.id === 1) positions.start('user', frame.ok.streams.user);
        list(frame.ok);
      } else finish();
      return;
    }
    const intended = waiting.get(frame.id);
    if (intended === undefined) return void doubles.add(1);
    waiting.delete(frame.id);
    if (check(frame, { 'send answered ok': (f) => f.ok !== undefined })) {
      acked.add(1);
      ackMs.add(Date.now() - intended);
    }
  }

  function received(update) {
    if (!positions.take(update)) return;
    if (update.up === 'thread.added') positions.start(update.d.thread.id, update.d.thread.seq);
    if (update.up !== 'message.created') return;
    const intended = intendedOf(update.d.message.content);
    if (intended === null || intended < opened - 60000) return;
    deliveries.add(1);
    deliveryMs.add(Date.now() - intended);
  }

  function handle(frame) {
    if (frame.id !== undefined) return reply(frame);
    if (frame.up === 'hello') {
      return command(1, 'auth', { token: person.token, device: { id: uuid(), kind: 'web' }, caps: [] });
    }
    if (frame.s !== undefined && frame.seq !== undefined) received(frame);
  }

  socket.onmessage = (message) => {
    const frame = JSON.parse(message.data);
    if (Array.isArray(frame)) frame.forEach(handle);
    else handle(frame);
  };
  socket.onclose = () => {
    clearTimeout(patience);
    check(null, { 'socket stayed open until the end': () => finished });
    finished = true;
  };
  socket.onerror = (error) => {
    if (!finished) console.error(`socket: ${error.error}`);
  };
  const patience = setTimeout(() => {
    if (!positions.listed && !finished) {
      check(null, { 'ready in time': () => false });
      finish();
    }
  }, OPEN_MS);
}
