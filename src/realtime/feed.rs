//! The feed of one stream in one node: puts updates in order, whatever brought them. Pure: no clock, no I/O.
//!
//! `seq == head + 1` is delivered, with what waited behind it; `<= head` is dropped; above that it is kept and the hole
//! is read from the log. Follows the rule Telegram's clients use for `pts`, moved from client to node.

use std::collections::{BTreeMap, VecDeque};

use crate::updates::Update;

/// Updates a feed remembers for those who attach a little late.
pub const RING_UPDATES: usize = 256;
/// Bytes of frames in one ring.
pub const RING_BYTES: usize = 64 << 10;
/// Updates that may wait behind a hole, and their bytes; more are dropped, the log has them.
pub const EARLY_UPDATES: usize = 256;
pub const EARLY_BYTES: usize = 64 << 10;

/// One stream as this node knows it.
#[derive(Debug)]
pub struct Feed {
    head: u64,
    /// Highest seq known to be committed.
    known: u64,
    early: BTreeMap<u64, Update>,
    early_bytes: usize,
    ring: VecDeque<Update>,
    ring_bytes: usize,
}

/// What an attacher is given.
#[derive(Debug)]
pub enum Attach {
    /// Live from here: the updates after the position that are still at hand, the position reached, and the feed's own
    /// head (below `reached` when the attacher has seen something committed that is not here yet).
    Live { updates: Vec<Update>, reached: u64, head: u64 },
    /// Older than the ring: read the log up to `head` first.
    Behind { head: u64 },
}

impl Feed {
    /// A feed whose updates up to `head` are committed and of no more interest.
    pub fn new(head: u64) -> Self {
        Self { head, known: head, early: BTreeMap::new(), early_bytes: 0, ring: VecDeque::new(), ring_bytes: 0 }
    }

    pub fn head(&self) -> u64 {
        self.head
    }

    /// Takes one update in; appends to `ready` what is in order now.
    pub fn take(&mut self, update: Update, ready: &mut Vec<Update>) {
        if update.seq <= self.head {
            return;
        }
        self.known = self.known.max(update.seq);
        if update.seq > self.head + 1 {
            let bytes = update.frame.len();
            let fits = self.early.len() < EARLY_UPDATES && self.early_bytes + bytes <= EARLY_BYTES;
            if fits && !self.early.contains_key(&update.seq) {
                self.early_bytes += bytes;
                self.early.insert(update.seq, update);
            }
            return;
        }
        self.deliver(update, ready);
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > self.head + 1 {
                break;
            }
            let next = entry.remove();
            self.early_bytes -= next.frame.len();
            if next.seq == self.head + 1 {
                self.deliver(next, ready);
            }
        }
    }

    /// The log is known to hold `seq`.
    pub fn know(&mut self, seq: u64) {
        self.known = self.known.max(seq);
    }

    /// Whether something committed has not come yet: (position to read after, highest known).
    pub fn hole(&self) -> Option<(u64, u64)> {
        (self.known > self.head).then_some((self.head, self.known))
    }

    /// Gives up on the hole: goes on at `head`, what is between is read by each session from the log.
    pub fn jump(&mut self, head: u64) {
        self.head = self.head.max(head);
        self.known = self.known.max(head);
        self.early = self.early.split_off(&(self.head + 1));
        self.early_bytes = self.early.values().map(|update| update.frame.len()).sum();
        self.ring.clear();
        self.ring_bytes = 0;
    }

    /// The log ends at `head`, read after `known` was told: what was announced beyond it does not exist. Nothing is taken
    /// back where more was told meanwhile.
    pub fn correct(&mut self, known: u64, head: u64) {
        if self.known == known && head < known {
            self.known = head.max(self.head);
            self.early.clear();
            self.early_bytes = 0;
        }
    }

    /// Attaches at a position. A position above the head (committed, but not here yet) is live from itself on.
    pub fn attach(&mut self, since: u64) -> Attach {
        self.know(since);
        if since >= self.head {
            return Attach::Live { updates: Vec::new(), reached: since, head: self.head };
        }
        match self.ring.front() {
            Some(oldest) if oldest.seq <= since + 1 => {
                let updates = self.ring.iter().filter(|update| update.seq > since).cloned().collect();
                Attach::Live { updates, reached: self.head, head: self.head }
            }
            _ => Attach::Behind { head: self.head },
        }
    }

    /// Frees the memory of the ring and of what waits behind a hole; it is in the log. Returns the bytes freed.
    pub fn forget(&mut self) -> usize {
        let freed = self.held_bytes();
        self.ring = VecDeque::new();
        self.early = BTreeMap::new();
        (self.ring_bytes, self.early_bytes) = (0, 0);
        freed
    }

    /// Bytes of frames held here.
    pub fn held_bytes(&self) -> usize {
        self.ring_bytes + self.early_bytes
    }

    fn deliver(&mut self, update: Update, ready: &mut Vec<Update>) {
        debug_assert_eq!(update.seq, self.head + 1);
        self.head = update.seq;
        self.ring_bytes += update.frame.len();
        self.ring.push_back(update.clone());
        while self.ring.len() > RING_UPDATES || self.ring_bytes > RING_BYTES {
            let Some(old) = self.ring.pop_front() else { break };
            self.ring_bytes -= old.frame.len();
        }
        ready.push(update);
    }
}

#[cfg(test)]
mod tests {
    use super::{Attach, EARLY_BYTES, Feed, RING_UPDATES};
    use crate::updates::{StreamId, Touch, Update, UpdateKind};
    use bytes::Bytes;
    use uuid::Uuid;

    fn update(seq: u64) -> Update {
        let kind = UpdateKind::MessageCreated;
        Update {
            stream: StreamId::Thread(Uuid::nil()),
            seq,
            kind,
            touch: Touch::None,
            frame: Bytes::from(vec![0; 100]),
        }
    }

    fn seqs(updates: &[Update]) -> Vec<u64> {
        updates.iter().map(|update| update.seq).collect()
    }

    #[test]
    fn any_order_with_doubles_comes_out_once_and_in_order() {
        // Every permutation of 1..=6, each update twice.
        fn permute(rest: &mut Vec<u64>, chosen: &mut Vec<u64>, check: &mut dyn FnMut(&[u64])) {
            if rest.is_empty() {
                return check(chosen);
            }
            for at in 0..rest.len() {
                let seq = rest.remove(at);
                chosen.push(seq);
                permute(rest, chosen, check);
                chosen.pop();
                rest.insert(at, seq);
            }
        }
        permute(&mut (1..=6).collect(), &mut Vec::new(), &mut |order| {
            let mut feed = Feed::new(0);
            let mut ready = Vec::new();
            for seq in order {
                feed.take(update(*seq), &mut ready);
                feed.take(update(*seq), &mut ready);
            }
            assert_eq!(seqs(&ready), [1, 2, 3, 4, 5, 6], "{order:?}");
            assert_eq!(feed.hole(), None);
        });
    }

    #[test]
    fn a_hole_is_named_until_it_is_filled() {
        let mut feed = Feed::new(10);
        let mut ready = Vec::new();
        feed.take(update(13), &mut ready);
        assert_eq!((ready.len(), feed.hole()), (0, Some((10, 13))));
        feed.take(update(11), &mut ready);
        assert_eq!(feed.hole(), Some((11, 13)));
        feed.take(update(12), &mut ready);
        assert_eq!((seqs(&ready), feed.hole()), (vec![11, 12, 13], None));
        feed.know(20);
        assert_eq!(feed.hole(), Some((13, 20)));
        feed.jump(20);
        assert_eq!((feed.hole(), feed.head()), (None, 20));
    }

    #[test]
    fn what_waits_behind_a_hole_is_bounded_in_bytes_and_may_turn_out_not_to_exist() {
        let mut feed = Feed::new(10);
        let mut ready = Vec::new();
        for seq in 12..12 + 200 {
            feed.take(Update { frame: Bytes::from(vec![0; 16 << 10]), ..update(seq) }, &mut ready);
        }
        assert_eq!((feed.held_bytes(), feed.hole()), (EARLY_BYTES, Some((10, 211))));
        feed.take(update(11), &mut ready);
        assert_eq!(seqs(&ready), [11, 12, 13, 14, 15]);
        assert_eq!(feed.hole(), Some((15, 211)));
        feed.take(update(250), &mut ready);
        feed.correct(211, 15);
        assert_eq!(feed.hole(), Some((15, 250)), "more was told meanwhile");
        feed.correct(250, 15);
        assert_eq!(feed.hole(), None);
        ready.clear();
        feed.take(update(16), &mut ready);
        assert_eq!(seqs(&ready), [16]);
        let held = feed.held_bytes();
        assert_eq!((feed.forget(), feed.held_bytes()), (held, 0));
    }

    #[test]
    fn attaching_is_exact_inside_the_ring_and_says_so_outside() {
        let mut feed = Feed::new(0);
        let mut ready = Vec::new();
        for seq in 1..=RING_UPDATES as u64 + 50 {
            feed.take(update(seq), &mut ready);
        }
        let head = feed.head();
        for since in 0..=head {
            match feed.attach(since) {
                Attach::Live { updates, reached, .. } => {
                    assert_eq!(reached, head);
                    assert_eq!(seqs(&updates), (since + 1..=head).collect::<Vec<_>>());
                }
                Attach::Behind { head: reached } => {
                    assert_eq!(reached, head);
                    assert!(since < 50);
                }
            }
        }
        assert!(
            matches!(feed.attach(head + 5), Attach::Live { updates, reached, head: at } if updates.is_empty() && reached == head + 5 && at == head)
        );
        assert_eq!(feed.hole(), Some((head, head + 5)));
    }
}
