// A mix of REST calls: own profile, thread list, history, the log, a send, a read mark. Every VU is one person with own threads.
// The log is checked for gaps and doubles by `seq`, and a repeated Idempotency-Key must give the same message. Runs with a stock k6.
//
//   HAUS_URL     address of a node               (http://127.0.0.1:8080)
//   HAUS_TOKENS  file of `haus seed --out`       (tokens.jsonl)
//   VUS          people                          (20)
//   DURATION     such as 20 or 20s
//   RATE         rounds of the mix a second      (20)
import http from 'k6/http';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { SharedArray } from 'k6/data';

const BASE = (__ENV.HAUS_URL || 'http://127.0.0.1:8080').replace(/\/+$/, '');
const VUS = Number(__ENV.VUS || 20);
const DURATION = `${parseFloat(__ENV.DURATION || '20')}s`;
const RATE = Number(__ENV.RATE || 20);

const people = new SharedArray('people', () =>
  open(__ENV.HAUS_TOKENS || 'tokens.jsonl').split('\n').filter((line) => line.trim()).map((line) => JSON.parse(line)));

const gaps = new Counter('haus_gaps');
const doubles = new Counter('haus_doubles');
const sendMs = new Trend('haus_send_ms', true);
const historyMs = new Trend('haus_history_ms', true);

export const options = {
  scenarios: {
    rest: { executor: 'constant-arrival-rate', rate: RATE, timeUnit: '1s', duration: DURATION, preAllocatedVUs: VUS, maxVUs: VUS * 4 },
  },
  thresholds: {
    checks: ['rate>0.999'],
    haus_gaps: ['count==0'],
    haus_doubles: ['count==0'],
    http_req_duration: ['p(99)>=0'], // printed; the figure depends on the machine
    haus_send_ms: ['p(99)>=0'],
    haus_history_ms: ['p(99)>=0'],
  },
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'p(99.9)', 'max'],
};

function uuid() {
  return 'xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx'.replace(/x/g, () => Math.floor(Math.random() * 16).toString(16));
}

const positions = new Map(); // thread → last `seq` read from its log, by this VU

function send(base, headers, threadId) {
  const url = `${base}/v1/threads/${threadId}/messages`;
  const key = uuid();
  const params = { headers: { ...headers, 'Idempotency-Key': key, 'Content-Type': 'application/json' }, tags: { name: 'POST messages' } };
  const body = JSON.stringify({ content: 'sent over REST '.padEnd(200, 'letters ') });
  const first = http.post(url, body, params);
  sendMs.add(first.timings.duration);
  if (!check(first, { 'send is 201 with seq': (r) => r.status === 201 && r.json('seq') > 0 })) return 0;
  if (Math.random() < 0.1) {
    const again = http.post(url, body, params);
    check(again, { 'a repeat is the same message': (r) => (r.status === 200 || r.status === 201) && r.json('messageId') === first.json('messageId') });
  }
  return first;
}

// Reads the log from where this VU stands, page by page up to its head.
function readLog(base, params, threadId) {
  for (let page = 0; page < 20; page += 1) {
    const since = positions.get(threadId);
    const answer = http.get(`${base}/v1/threads/${threadId}/updates?since=${since}&limit=1000`, { ...params, tags: { name: 'GET updates' } });
    if (!check(answer, { 'log is 200': (r) => r.status === 200 })) return;
    const { updates, head } = answer.json();
    let last = since;
    for (const update of updates) {
      if (update.seq <= last) doubles.add(1);
      else if (update.seq > last + 1) gaps.add(update.seq - last - 1);
      last = Math.max(last, update.seq);
    }
    positions.set(threadId, last);
    if (updates.length === 0 || last >= head) return;
  }
}

export default function () {
  const person = people[(__VU - 1) % people.length];
  const headers = { Authorization: `Bearer ${person.token}` };
  const params = { headers };

  check(http.get(`${BASE}/v1/me`, { ...params, tags: { name: 'GET me' } }), {
    'me is 200 and the right person': (r) => r.status === 200 && r.json('id') === person.profileId,
  });
  const list = http.get(`${BASE}/v1/threads?limit=20`, { ...params, tags: { name: 'GET threads' } });
  check(list, { 'threads is 200': (r) => r.status === 200 && Array.isArray(r.json('items')) });

  const threadId = person.threads[__ITER % person.threads.length];
  const history = http.get(`${BASE}/v1/threads/${threadId}/messages?limit=50`, { ...params, tags: { name: 'GET messages' } });
  historyMs.add(history.timings.duration);
  if (!check(history, { 'history is 200': (r) => r.status === 200 && Array.isArray(r.json('messages')) })) return;
  if (!positions.has(threadId)) positions.set(threadId, history.json('seq'));

  const message = send(BASE, headers, threadId);
  if (!message) return;
  readLog(BASE, params, threadId);
  check(positions.get(threadId), { 'the log holds what was acknowledged': (last) => last >= message.json('seq') });
  const mark = http.put(`${BASE}/v1/threads/${threadId}/read`, JSON.stringify({ no: message.json('no') }), {
    headers: { ...headers, 'Content-Type': 'application/json' },
    tags: { name: 'PUT read' },
  });
  check(mark, { 'read is 200': (r) => r.status === 200 });
}
