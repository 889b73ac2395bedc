//! The streams of one session that are behind: a plan for each, and whose turn it is. Pure.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::plan::StreamPlan;
use crate::updates::StreamId;

/// One stream that is behind.
#[derive(Debug, Clone)]
pub struct Behind {
    pub plan: StreamPlan,
    /// Only after this session has left this thread (`thread.removed` follows `member.left`).
    pub after: Option<Uuid>,
    /// Counted in the worker's local stream, whose interest it keeps alive.
    pub counted: bool,
    /// The position that `thread.added` told meanwhile: what is up to there is not sent again.
    pub told: u64,
    /// Up to here the socket was given the stream before it asked again: what that does to its streams was done.
    pub given: u64,
}

impl Behind {
    pub fn new(plan: StreamPlan) -> Self {
        Self { plan, after: None, counted: false, told: 0, given: 0 }
    }
}

/// All of them but the one that is being read.
#[derive(Debug, Default)]
pub struct Backlog {
    plans: HashMap<StreamId, Behind>,
    /// Those that may be gone on with, in the order of their turn.
    line: VecDeque<StreamId>,
    /// Those that wait for the end of a stay: the user stream at most.
    waiting: Vec<StreamId>,
}

impl Backlog {
    pub fn with_capacity(streams: usize) -> Self {
        Self { plans: HashMap::with_capacity(streams), line: VecDeque::with_capacity(streams), waiting: Vec::new() }
    }

    pub fn get(&self, stream: StreamId) -> Option<&Behind> {
        self.plans.get(&stream)
    }

    pub fn get_mut(&mut self, stream: StreamId) -> Option<&mut Behind> {
        self.plans.get_mut(&stream)
    }

    /// Behind the others. Each stream is here once.
    pub fn push_back(&mut self, behind: Behind) {
        let (stream, waits) = (behind.plan.stream, behind.after.is_some());
        if self.plans.insert(stream, behind).is_none() {
            if waits { self.waiting.push(stream) } else { self.line.push_back(stream) }
        }
    }

    /// The next one to go on with.
    pub fn push_front(&mut self, behind: Behind) {
        let stream = behind.plan.stream;
        if self.plans.insert(stream, behind).is_none() {
            self.line.push_front(stream);
        }
    }

    /// Takes out whose turn it is.
    pub fn pop(&mut self) -> Option<Behind> {
        self.line.pop_front().and_then(|stream| self.plans.remove(&stream))
    }

    /// Whether nothing can be gone on with.
    pub fn is_at_rest(&self) -> bool {
        self.line.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// What waited for `thread` stands in the line again.
    pub fn free(&mut self, thread: Uuid) {
        for stream in std::mem::take(&mut self.waiting) {
            match self.plans.get_mut(&stream) {
                Some(behind) if behind.after == Some(thread) => {
                    behind.after = None;
                    self.line.push_back(stream);
                }
                _ => self.waiting.push(stream),
            }
        }
    }

    /// Whether one of those that wait is to be named in `resumed`.
    pub fn waits_for_resume(&self) -> bool {
        self.waiting.iter().filter_map(|stream| self.plans.get(stream)).any(|behind| behind.plan.resumed)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Behind> {
        self.plans.values_mut()
    }

    pub fn into_all(self) -> impl Iterator<Item = Behind> {
        self.plans.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::{Backlog, Behind};
    use crate::realtime::plan::StreamPlan;
    use crate::updates::StreamId;
    use uuid::Uuid;

    #[test]
    fn turns_are_kept_and_what_waits_has_none_until_it_is_freed() {
        let (user, thread, other) = (StreamId::User(Uuid::now_v7()), Uuid::now_v7(), StreamId::Thread(Uuid::now_v7()));
        let plan = |stream, since| StreamPlan::live(stream, since);
        let mut backlog = Backlog::default();
        backlog.push_back(Behind { after: Some(thread), ..Behind::new(plan(user, 7)) });
        assert!(backlog.is_at_rest() && !backlog.is_empty() && backlog.pop().is_none());
        backlog.push_back(Behind::new(plan(other, 1)));
        backlog.push_back(Behind::new(plan(other, 2)));
        backlog.free(Uuid::now_v7());
        assert_eq!((backlog.len(), backlog.get(user).map(|behind| behind.plan.since)), (2, Some(7)));
        backlog.free(thread);
        backlog.push_front(Behind::new(plan(StreamId::Thread(thread), 3)));
        let turns: Vec<_> =
            std::iter::from_fn(|| backlog.pop()).map(|behind| (behind.plan.stream, behind.plan.since)).collect();
        assert_eq!(turns, [(StreamId::Thread(thread), 3), (other, 2), (user, 7)]);
        assert!(backlog.is_empty());
    }
}
