//! Sends that wait for a batch, by thread, and which of them go next. Pure: the clock comes in as an argument.
//!
//! A thread is in one batch at a time. One that is read by many sockets is *held* after its commit until most of these have
//! got it, and then gathers for a moment: sends that answer to the same delivery go into one batch, and each socket gets
//! them with one write. What a hold is and who asks for it: `batcher`. Nobody holds more than a part of the queue, and threads
//! go in turns of people: `fair`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::fair::{Shares, Turns};
use super::send::SendRequest;

/// Sends waiting in one node; more are refused `unavailable`.
pub const QUEUE_SENDS: usize = 20_000;
/// Bytes of content waiting in one node; more are refused `unavailable`.
pub const QUEUE_BYTES: usize = 64 << 20;
/// Most sends in one database call: of one thread, whose calls follow each other.
pub const BATCH_SENDS: usize = 128;
/// A batch of so many takes no further thread in: two calls side by side answer sooner than one of twice the size.
pub const FULL_BATCH: usize = 64;
/// Most bytes of content in one database call.
pub const BATCH_BYTES: usize = 1 << 20;
/// Sends of one person that a batch takes out of one thread while other people's threads wait.
pub const TURN_SENDS: usize = 32;
/// From so many sends on, a batch may go beside another: a call costs as much as a dozen of its rows.
pub const LARGE_BATCH: usize = 24;
/// A second call starts beside one that has taken so long, however small.
pub const CALL_PATIENCE: Duration = Duration::from_millis(20);
/// After a hold a thread gathers for three times as long, and for so long at most: who reads on few cores gets to the rest
/// of a delivery only after it. It ends as soon as all are there who may be
/// expected: who waited already, and as many as went last time.
pub const GATHER_MAX: Duration = Duration::from_millis(8);
/// After shorter holds nothing is gathered.
pub const GATHER_FROM: Duration = Duration::from_millis(1);
/// Nor for fewer sends: waiting would cost them more than it saves.
pub const GATHER_SENDS: usize = 4;

/// One send and whom its answer is for.
pub struct Item<R> {
    pub request: SendRequest,
    pub reply: R,
    pub arrived: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the line of threads that may go, where anything waits.
    Ready,
    /// In a batch, or held after one.
    InFlight,
    Gathering {
        until: Instant,
    },
}

/// Sends of one thread, in order of arrival.
struct Lineup<R> {
    waiting: VecDeque<Item<R>>,
    state: State,
    /// Sends of it in the last batch.
    last: usize,
    /// Sends that end its gathering.
    expected: usize,
}

/// All line-ups of a node.
pub struct Lineups<R> {
    threads: HashMap<Uuid, Lineup<R>>,
    ready: Turns,
    /// Sends that wait in threads of `ready`.
    ready_sends: usize,
    gathering: HashSet<Uuid>,
    /// When each call under way began.
    calls: Vec<Instant>,
    shares: Shares,
}

impl<R> Default for Lineups<R> {
    fn default() -> Self {
        Self {
            threads: HashMap::new(),
            ready: Turns::default(),
            ready_sends: 0,
            gathering: HashSet::new(),
            calls: Vec::new(),
            shares: Shares::new(QUEUE_SENDS, QUEUE_BYTES),
        }
    }
}

impl<R> Lineups<R> {
    /// Takes a send in; true when a batch may be taken now. Where the person holds its part of the queue, gives back whom to
    /// tell.
    pub fn push(&mut self, item: Item<R>) -> Result<bool, R> {
        let person = item.request.actor_id;
        if !self.shares.enter(person, bytes_of(&item.request)) {
            return Err(item.reply);
        }
        let (thread, now) = (item.request.thread_id, item.arrived);
        let new = || Lineup { waiting: VecDeque::new(), state: State::Ready, last: 0, expected: 0 };
        let lineup = self.threads.entry(thread).or_insert_with(new);
        lineup.waiting.push_back(item);
        match lineup.state {
            State::Ready => {
                if lineup.waiting.len() == 1 {
                    self.ready.push(person, thread);
                }
                self.ready_sends += 1;
            }
            State::InFlight => {}
            State::Gathering { .. } if lineup.waiting.len() < lineup.expected => {}
            State::Gathering { .. } => self.make_ready(thread),
        }
        Ok(self.may_start(now))
    }

    /// Whether a call may start. Beside others under way only a large one may, or where these are stuck: several small ones
    /// at once would be slower for everybody.
    pub fn may_start(&self, now: Instant) -> bool {
        let is_stuck = |began: &Instant| now - *began >= CALL_PATIENCE;
        !self.ready.is_empty() && (self.ready_sends >= LARGE_BATCH || self.calls.iter().all(is_stuck))
    }

    /// The next batch: whole line-ups in the order they became ready, until a cap is reached. Empty: nothing may go. A
    /// batch is a call under way until [`Self::ended`].
    pub fn take(&mut self, now: Instant) -> Vec<Item<R>> {
        let over: Vec<Uuid> = self.gathering.iter().filter(|id| self.gathers_until(id) <= Some(now)).copied().collect();
        over.into_iter().for_each(|thread| self.make_ready(thread));
        let mut batch: Vec<Item<R>> = Vec::new();
        if !self.may_start(now) {
            return batch;
        }
        let mut bytes = 0;
        let mut nonces = HashSet::new();
        while batch.len() < FULL_BATCH && bytes < BATCH_BYTES {
            let Some(thread_id) = self.ready.pop() else { break };
            let Some(lineup) = self.threads.get_mut(&thread_id) else { continue };
            self.ready_sends -= lineup.waiting.len();
            lineup.state = State::InFlight;
            lineup.last = 0;
            let mut of_first = 0;
            let first = lineup.waiting.front().map(|item| item.request.actor_id);
            while batch.len() < BATCH_SENDS && bytes < BATCH_BYTES {
                let Some(next) = lineup.waiting.front() else { break };
                // The same nonce twice in one call would meet the unique index; the second waits for the next batch.
                if !nonces.insert((thread_id, next.request.actor_id, next.request.nonce)) {
                    break;
                }
                of_first += usize::from(Some(next.request.actor_id) == first);
                if of_first > TURN_SENDS && first.is_some_and(|first| self.ready.has_other_than(first)) {
                    break;
                }
                let Some(item) = lineup.waiting.pop_front() else { break };
                let size = bytes_of(&item.request);
                self.shares.leave(item.request.actor_id, size);
                bytes += size;
                lineup.last += 1;
                batch.push(item);
            }
        }
        if !batch.is_empty() {
            self.calls.push(now);
        }
        batch
    }

    /// The call that began at `began` has ended. Its threads are released one by one.
    pub fn ended(&mut self, began: Instant) {
        if let Some(at) = self.calls.iter().position(|call| *call == began) {
            self.calls.swap_remove(at);
        }
    }

    /// A thread's batch is done, and it was held for so long after the commit (zero: it was not).
    pub fn release(&mut self, thread: Uuid, held: Duration, now: Instant) {
        let Some(lineup) = self.threads.get_mut(&thread) else { return };
        lineup.expected = lineup.waiting.len() + lineup.last;
        if held >= GATHER_FROM && lineup.expected >= GATHER_SENDS {
            lineup.state = State::Gathering { until: now + (3 * held).min(GATHER_MAX) };
            self.gathering.insert(thread);
        } else {
            self.make_ready(thread);
        }
    }

    fn make_ready(&mut self, thread: Uuid) {
        self.gathering.remove(&thread);
        let Some(lineup) = self.threads.get_mut(&thread) else { return };
        let Some(first) = lineup.waiting.front() else {
            self.threads.remove(&thread);
            return;
        };
        lineup.state = State::Ready;
        self.ready_sends += lineup.waiting.len();
        self.ready.push(first.request.actor_id, thread);
    }

    fn gathers_until(&self, thread: &Uuid) -> Option<Instant> {
        match self.threads.get(thread)?.state {
            State::Gathering { until } => Some(until),
            _ => None,
        }
    }

    /// When somebody who gathers now will be ready without another send.
    pub fn next_ready(&self) -> Option<Instant> {
        self.gathering.iter().filter_map(|thread| self.gathers_until(thread)).min()
    }

    /// Takes out what arrived before `limit`.
    pub fn expire(&mut self, limit: Instant) -> Vec<Item<R>> {
        let mut late = Vec::new();
        if self.shares.sends() == 0 {
            return late;
        }
        for lineup in self.threads.values_mut() {
            while lineup.waiting.front().is_some_and(|item| item.arrived < limit) {
                let Some(item) = lineup.waiting.pop_front() else { break };
                self.shares.leave(item.request.actor_id, bytes_of(&item.request));
                if lineup.state == State::Ready {
                    self.ready_sends -= 1;
                }
                late.push(item);
            }
        }
        if !late.is_empty() {
            // A thread stands in the line of those that may go once, and only while something of it waits.
            self.threads.retain(|_, lineup| lineup.state != State::Ready || !lineup.waiting.is_empty());
            self.ready.retain(|thread| self.threads.contains_key(thread));
        }
        late
    }

    /// Sends that wait.
    pub fn len(&self) -> usize {
        self.shares.sends()
    }
}

fn bytes_of(request: &SendRequest) -> usize {
    256 + request.body.content.as_ref().map_or(0, String::len) + request.body.mentions.len() * 16
}

#[cfg(test)]
mod tests {
    use super::{
        BATCH_SENDS, CALL_PATIENCE, FULL_BATCH, GATHER_MAX, Item, LARGE_BATCH, Lineups, QUEUE_SENDS, TURN_SENDS,
    };
    use crate::messaging::send::SendRequest;
    use crate::protocol::types::SendBody;
    use std::time::{Duration, Instant};
    use uuid::Uuid;

    const MS: Duration = Duration::from_millis(1);

    fn item(actor: u128, thread: u128, nonce: u128, arrived: Instant) -> Item<u128> {
        let id = Uuid::from_u128;
        let body = SendBody { content: Some("x".into()), nonce: Some(id(nonce)), ..SendBody::default() };
        let request = SendRequest { thread_id: id(thread), actor_id: id(actor), nonce: id(nonce), body, mac: [0; 16] };
        Item { request, reply: nonce, arrived }
    }

    fn push(lineups: &mut Lineups<u128>, thread: u128, nonce: u128, at: Instant) -> bool {
        lineups.push(item(1, thread, nonce, at)).unwrap_or_else(|_| panic!("full"))
    }

    fn replies(batch: &[Item<u128>]) -> Vec<u128> {
        batch.iter().map(|item| item.reply).collect()
    }

    #[test]
    fn a_thread_is_in_one_batch_at_a_time_and_keeps_its_order() {
        let (mut lineups, now) = (Lineups::default(), Instant::now());
        assert!(push(&mut lineups, 7, 1, now));
        push(&mut lineups, 7, 2, now);
        // The same nonce waits for the next batch, and what is behind it too.
        push(&mut lineups, 7, 2, now);
        push(&mut lineups, 7, 3, now);
        assert_eq!(replies(&lineups.take(now)), [1, 2]);
        push(&mut lineups, 8, 4, now);
        lineups.ended(now);
        assert_eq!(replies(&lineups.take(now)), [4]);
        lineups.ended(now);
        lineups.release(Uuid::from_u128(7), Duration::ZERO, now);
        assert_eq!(replies(&lineups.take(now)), [2, 3]);
        assert_eq!(lineups.len(), 0);
    }

    #[test]
    fn a_second_call_is_large_or_starts_beside_a_stuck_one() {
        let (mut lineups, now) = (Lineups::default(), Instant::now());
        push(&mut lineups, 1, 1, now);
        assert_eq!(lineups.take(now).len(), 1);
        let large = LARGE_BATCH as u128;
        for n in 2..=large {
            assert!(!push(&mut lineups, n, n, now));
        }
        assert!(lineups.take(now).is_empty());
        assert!(lineups.may_start(now + CALL_PATIENCE));
        assert!(push(&mut lineups, large + 1, large + 1, now));
        assert_eq!(lineups.take(now).len(), LARGE_BATCH);
        push(&mut lineups, 1000, 1000, now);
        assert!(lineups.take(now).is_empty());
        lineups.ended(now);
        assert!(lineups.take(now).is_empty());
        lineups.ended(now);
        assert_eq!(lineups.take(now).len(), 1);
    }

    #[test]
    fn a_full_batch_takes_the_rest_of_its_thread_but_no_other() {
        let (mut lineups, now) = (Lineups::default(), Instant::now());
        let (full, most) = (FULL_BATCH as u128, BATCH_SENDS as u128);
        push(&mut lineups, 1, 1, now);
        for n in 2..=most + 1 {
            push(&mut lineups, 2, n, now);
        }
        for n in 1000..=1000 + full {
            push(&mut lineups, n, n, now);
        }
        assert_eq!(lineups.take(now).len(), BATCH_SENDS);
        assert_eq!(lineups.take(now).len(), FULL_BATCH);
        assert_eq!(lineups.len(), 2);
    }

    #[test]
    fn who_floods_many_threads_or_one_waits_for_own_sends_alone() {
        let (mut lineups, now) = (Lineups::default(), Instant::now());
        let mut put = |actor, thread, nonce| lineups.push(item(actor, thread, nonce, now)).is_ok();
        let mut flood = (0..).take_while(|n| put(1, n % 300, *n)).count();
        flood += (1_000_000..).take_while(|n| put(2, 1_000, *n)).count();
        assert!(flood < QUEUE_SENDS / 2, "two hold {flood}");
        assert!(put(3, 2_000, 3) && put(4, 2_001, 4));
        let first = replies(&lineups.take(now));
        assert!(first.contains(&3) && first.contains(&4), "{first:?}");
        assert_eq!(first.iter().filter(|reply| **reply >= 1_000_000).count(), TURN_SENDS);
    }

    #[test]
    fn after_a_hold_a_thread_gathers_all_who_may_come_or_for_a_moment() {
        let (mut lineups, now, wide) = (Lineups::default(), Instant::now(), Uuid::from_u128(7));
        for n in 1..=2 {
            push(&mut lineups, 7, n, now);
        }
        assert_eq!(lineups.take(now).len(), 2);
        lineups.ended(now);
        // Two more came meanwhile: with those who are being answered there may be four.
        push(&mut lineups, 7, 3, now);
        push(&mut lineups, 7, 4, now);
        lineups.release(wide, 2 * MS, now);
        assert!(lineups.take(now).is_empty());
        assert_eq!(lineups.next_ready(), Some(now + 6 * MS));
        assert!(!push(&mut lineups, 7, 5, now));
        // The fourth one ends it.
        assert!(push(&mut lineups, 7, 6, now));
        assert_eq!(replies(&lineups.take(now)), [3, 4, 5, 6]);
        lineups.ended(now);
        // So does the time; and where nothing waits then, nothing is kept.
        push(&mut lineups, 7, 7, now);
        lineups.release(wide, 1000 * MS, now);
        assert!(lineups.take(now + GATHER_MAX - MS).is_empty());
        assert_eq!(replies(&lineups.take(now + GATHER_MAX)), [7]);
        lineups.ended(now + GATHER_MAX);
        // One, and nobody waits: nothing is gathered, and nothing kept.
        lineups.release(wide, 2 * MS, now);
        assert!(lineups.threads.is_empty() && lineups.gathering.is_empty());
    }

    #[test]
    fn what_is_late_is_taken_out_wherever_it_waits() {
        let (mut lineups, now) = (Lineups::default(), Instant::now());
        push(&mut lineups, 1, 1, now);
        assert_eq!(lineups.take(now).len(), 1);
        push(&mut lineups, 1, 2, now);
        push(&mut lineups, 2, 3, now);
        push(&mut lineups, 2, 4, now + 2 * MS);
        let mut late = replies(&lineups.expire(now + MS));
        late.sort_unstable();
        assert_eq!((late, lineups.len(), lineups.ready_sends), (vec![2, 3], 1, 1));
        lineups.ended(now);
        assert_eq!(replies(&lineups.take(now)), [4]);
        lineups.ended(now);
        // All of a thread that was ready went: what comes next stands in the line once.
        push(&mut lineups, 3, 5, now);
        assert_eq!(replies(&lineups.expire(now + MS)), [5]);
        push(&mut lineups, 3, 6, now);
        assert_eq!(replies(&lineups.take(now)), [6]);
        push(&mut lineups, 3, 7, now);
        lineups.ended(now);
        assert!(lineups.take(now).is_empty(), "3 is in flight");
        lineups.release(Uuid::from_u128(3), Duration::ZERO, now);
        assert_eq!((replies(&lineups.take(now)), lineups.ready_sends), (vec![7], 0));
    }
}
