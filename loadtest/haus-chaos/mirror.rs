//! A client's own copy of its positions and the client rule, without I/O: next applies, older is ignored, a gap holds and
//! asks for `sync` after a grace that lets the checker tell "late" from "never".

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::checker::record::{Positions, StreamId};

/// Positions of one client.
#[derive(Debug, Default, Clone)]
pub struct Mirror {
    last: Positions,
    floor: BTreeMap<Uuid, u64>,
    held: BTreeMap<StreamId, BTreeSet<u64>>,
}

impl Mirror {
    /// What to name in `resume`: everything held.
    pub fn positions(&self) -> &Positions {
        &self.last
    }

    /// The position in one stream.
    pub fn at(&self, stream: StreamId) -> Option<u64> {
        self.last.get(&stream).copied()
    }

    /// From where the present stay is known; resuming from before it would be answered with a snapshot.
    pub fn floor(&self, thread: &Uuid) -> u64 {
        self.floor.get(thread).copied().unwrap_or(0)
    }

    /// The `auth` reply listed `stream` at `seq`; what is already held stays.
    pub fn listed(&mut self, stream: StreamId, seq: u64) {
        if self.last.contains_key(&stream) {
            return;
        }
        self.go_on_from(stream, seq);
        if let StreamId::Thread(thread) = stream {
            self.floor.insert(thread, seq);
        }
    }

    /// A session ended: what was held for later will come again.
    pub fn session_ended(&mut self) {
        self.held.clear();
    }

    /// An update arrived. Returns whether it opened or met a gap.
    pub fn deliver(&mut self, stream: StreamId, seq: u64) -> bool {
        match self.last.get_mut(&stream) {
            Some(last) if seq == *last + 1 => {
                *last = seq;
                self.drain(stream);
            }
            Some(last) if seq <= *last => {}
            _ => {
                self.held.entry(stream).or_default().insert(seq);
            }
        }
        self.held.contains_key(&stream)
    }

    /// Streams with a gap, and where each stands.
    pub fn gaps(&self) -> Positions {
        self.held.keys().filter_map(|stream| Some((*stream, self.at(*stream)?))).collect()
    }

    /// `resumed`, a snapshot or a reply gave the position: go on from it, and from what was held above it.
    pub fn go_on_from(&mut self, stream: StreamId, seq: u64) {
        self.last.insert(stream, seq);
        self.drain(stream);
    }

    /// As [`Mirror::go_on_from`], never backwards.
    pub fn raise(&mut self, stream: StreamId, seq: u64) {
        if self.at(stream).is_none_or(|last| last < seq) {
            self.go_on_from(stream, seq);
        }
    }

    /// `thread.added`: a stay began at `seq`. Returns whether it was news.
    pub fn added(&mut self, thread: Uuid, seq: u64) -> bool {
        let stream = StreamId::Thread(thread);
        let is_news = self.at(stream).is_none_or(|last| last < seq);
        if is_news {
            self.floor.insert(thread, seq);
            self.go_on_from(stream, seq);
        }
        is_news
    }

    /// `thread.removed`: the stay ended at `seq`. Returns whether it was the present one.
    pub fn removed(&mut self, thread: Uuid, seq: u64) -> bool {
        let stream = StreamId::Thread(thread);
        let is_present = self.at(stream).is_some_and(|last| last <= seq);
        if is_present {
            self.forget(stream);
        }
        is_present
    }

    /// Nothing of the stream is held any more.
    pub fn forget(&mut self, stream: StreamId) {
        self.last.remove(&stream);
        self.held.remove(&stream);
        if let StreamId::Thread(thread) = stream {
            self.floor.remove(&thread);
        }
    }

    /// The threads the client is in.
    pub fn threads(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.last.keys().filter_map(|stream| match stream {
            StreamId::Thread(thread) => Some(*thread),
            StreamId::User => None,
        })
    }

    fn drain(&mut self, stream: StreamId) {
        let (Some(held), Some(last)) = (self.held.get_mut(&stream), self.last.get_mut(&stream)) else { return };
        while let Some(next) = held.pop_first() {
            if next > *last + 1 {
                held.insert(next);
                break;
            }
            *last = next.max(*last);
        }
        if held.is_empty() {
            self.held.remove(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mirror;
    use crate::checker::record::{Positions, StreamId};
    use uuid::Uuid;

    const T: Uuid = Uuid::from_u128(7);
    const S: StreamId = StreamId::Thread(T);

    #[test]
    fn applies_next_ignores_old_and_holds_what_is_early() {
        let mut mirror = Mirror::default();
        mirror.listed(S, 10);
        assert!(!mirror.deliver(S, 11));
        assert!(!mirror.deliver(S, 11));
        assert!(mirror.deliver(S, 14));
        assert!(mirror.deliver(S, 13));
        assert_eq!(mirror.gaps(), Positions::from([(S, 11)]));
        assert!(!mirror.deliver(S, 12));
        assert_eq!(mirror.at(S), Some(14));
        assert!(mirror.gaps().is_empty());
    }

    #[test]
    fn stays_come_and_go_and_old_news_is_ignored() {
        let mut mirror = Mirror::default();
        assert!(mirror.added(T, 5));
        mirror.deliver(S, 6);
        assert!(!mirror.added(T, 5));
        assert!(!mirror.removed(T, 3), "an earlier stay");
        assert_eq!((mirror.at(S), mirror.floor(&T)), (Some(6), 5));
        assert!(mirror.removed(T, 6));
        assert_eq!((mirror.at(S), mirror.threads().count()), (None, 0));
    }

    #[test]
    fn a_position_given_by_the_server_takes_up_what_was_held() {
        let mut mirror = Mirror::default();
        mirror.listed(S, 1);
        mirror.deliver(S, 9);
        mirror.go_on_from(S, 8);
        assert_eq!(mirror.at(S), Some(9));
        mirror.raise(S, 4);
        assert_eq!(mirror.at(S), Some(9));
    }
}
