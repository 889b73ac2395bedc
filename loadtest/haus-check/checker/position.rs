//! Where one client stands in one stream: the client rule of the protocol as a small machine without I/O.
//! It tells a hole that closed late (reorder) from one that stayed (skip) and from one inside a
//! catch-up (silent truncation). What a reader is entitled to is the caller's question, not answered here.
//!
//! A hole is judged only when its time is over: filled without help it was a reorder, still open when the
//! client asks (`sync`), leaves or settles it was a skip.

use std::collections::BTreeSet;

use super::report::Anomaly;

/// Why updates from before the position may come now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CatchUp {
    /// The session began by asking for everything after a position: each update once.
    Resume,
    /// `sync` on a live stream: live updates may cross with the replay, so those above `since` may come twice.
    Sync { since: u64, pending: u32 },
}

/// One client's place in one stream.
#[derive(Debug, Default)]
pub struct Position {
    last: Option<u64>,
    catch_up: Option<CatchUp>,
    replayed: u64,
    /// Came at or below the position that the session resumed from. It is one when `resumed` names the stream, and none
    /// when the stream was denied: then stays of before may be told from their beginning.
    again: u64,
    holes: BTreeSet<u64>,
    owed: BTreeSet<u64>,
    /// Above `last`, and shown on a page already.
    read_ahead: BTreeSet<u64>,
    listed: Option<u64>,
}

impl Position {
    /// The highest update taken, or the position a reply gave; `None` when the client holds nothing of the stream.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// How far below the position that the reply to `auth` listed the client still is.
    pub fn below_listed(&self) -> u64 {
        self.listed.unwrap_or(0).saturating_sub(self.last.unwrap_or(0))
    }

    /// A session began. `resume`: the position it asked from; `listed`: the position the reply gave.
    pub fn begin(&mut self, resume: Option<u64>, listed: Option<u64>) {
        self.replayed = 0;
        self.again = 0;
        self.catch_up = resume.map(|_| CatchUp::Resume);
        self.last = resume.or(listed);
        self.listed = listed;
    }

    /// The session ended: what is still missing is named.
    pub fn end_session(&mut self) -> Option<Anomaly> {
        let catch_up = self.catch_up.take();
        if std::mem::take(&mut self.holes).is_empty() {
            return None;
        }
        match catch_up {
            None => Some(Anomaly::Skip),
            Some(CatchUp::Resume) => Some(Anomaly::SilentTruncation),
            // Named when `sync` was sent; the socket ended before the answer.
            Some(CatchUp::Sync { .. }) => None,
        }
    }

    /// `sync` from `since` was sent: a hole still open now was a skip.
    pub fn sync(&mut self, since: u64) -> Option<Anomaly> {
        let skipped = self.catch_up.is_none() && !self.holes.is_empty();
        self.catch_up = Some(match self.catch_up {
            Some(CatchUp::Sync { since: earlier, pending }) => {
                CatchUp::Sync { since: earlier.min(since), pending: pending + 1 }
            }
            _ => CatchUp::Sync { since, pending: 1 },
        });
        self.replayed = 0;
        self.last.get_or_insert(since);
        skipped.then_some(Anomaly::Skip)
    }

    /// Update `seq` arrived; `due` lists the updates the reader is entitled to in a range that was passed over.
    pub fn deliver(&mut self, seq: u64, due: impl FnOnce(u64, u64) -> Vec<u64>) -> Option<Anomaly> {
        if self.catch_up.is_some() {
            self.replayed += 1;
        }
        self.owed.remove(&seq);
        let Some(last) = self.last else {
            self.last = Some(seq);
            return None;
        };
        if seq > last {
            if seq > last + 1 {
                self.holes.extend(due(last + 1, seq - 1));
            }
            self.last = Some(seq);
            return None;
        }
        let filled = self.holes.remove(&seq);
        match (filled, self.catch_up) {
            (_, Some(CatchUp::Sync { since, .. })) if seq > since => None,
            (true, _) => Some(Anomaly::Reorder),
            (false, Some(CatchUp::Resume)) => {
                self.again += 1;
                None
            }
            (false, _) => Some(Anomaly::Duplicate),
        }
    }

    /// `resumed` named the stream with `head`. Returns how many updates the catch-up brought and what it left out.
    pub fn resumed(&mut self, head: u64, due: impl FnOnce(u64, u64) -> Vec<u64>) -> (u64, Option<Anomaly>) {
        if let Some(last) = self.last
            && head > last
        {
            self.holes.extend(due(last + 1, head));
        }
        self.last = Some(self.last.map_or(head, |last| last.max(head)));
        self.catch_up = match self.catch_up {
            Some(CatchUp::Sync { since, pending }) if pending > 1 => {
                Some(CatchUp::Sync { since, pending: pending - 1 })
            }
            _ => None,
        };
        let left_out = self.holes.range(..=head).next().is_some();
        self.holes.retain(|seq| *seq > head);
        let again = std::mem::take(&mut self.again) > 0;
        let found = left_out.then_some(Anomaly::SilentTruncation).or(again.then_some(Anomaly::Duplicate));
        (std::mem::take(&mut self.replayed), found)
    }

    /// `snapshot` at `seq`: goes on from there. What `due` lists has to be read from history.
    pub fn snapshot(&mut self, seq: u64, due: impl FnOnce(u64, u64) -> Vec<u64>) {
        self.owed.append(&mut self.holes);
        if let Some(last) = self.last
            && seq > last
        {
            let read = &self.read_ahead;
            self.owed.extend(due(last + 1, seq).into_iter().filter(|seq| !read.contains(seq)));
        }
        self.read_ahead = self.read_ahead.split_off(&(seq + 1));
        self.last = Some(seq);
    }

    /// The server named the stream in `reset`: it is live where the reply to `auth` listed it, and the client reads from
    /// history what lies before.
    pub fn reset(&mut self, due: impl FnOnce(u64, u64) -> Vec<u64>) {
        if self.catch_up == Some(CatchUp::Resume)
            && self.replayed == 0
            && let (Some(last), Some(listed)) = (self.last, self.listed)
            // A snapshot may have come before, and stands.
            && listed >= last
        {
            self.owed.extend(due(last + 1, listed));
            self.last = Some(listed);
        }
        self.owed.append(&mut self.holes);
        self.catch_up = None;
    }

    /// The client may not see the stream any more: nothing is held.
    pub fn forget(&mut self) {
        self.last = None;
        self.catch_up = None;
        self.again = 0;
        self.holes.clear();
        self.read_ahead.clear();
    }

    /// `thread.added` at `seq`; ignored when the client already holds as much.
    pub fn added(&mut self, seq: u64) -> Option<Anomaly> {
        if self.last.is_some_and(|last| last >= seq) {
            return None;
        }
        let skipped = if self.catch_up.is_none() { self.end_session() } else { None };
        self.last = Some(seq);
        skipped
    }

    /// `thread.removed` at `seq`; ignored when the client is already past it (an older stay).
    pub fn removed(&mut self, seq: u64, due: impl FnOnce(u64, u64) -> Vec<u64>) -> Option<Anomaly> {
        let last = self.last?;
        if last > seq {
            return None;
        }
        if self.catch_up.is_none() && last < seq {
            self.holes.extend(due(last + 1, seq));
        }
        let skipped = !self.holes.is_empty() && self.catch_up.is_none();
        self.forget();
        skipped.then_some(Anomaly::Skip)
    }

    /// A history page showed the message at `seq`.
    pub fn read(&mut self, seq: u64) {
        self.owed.remove(&seq);
        if self.last.is_none_or(|last| seq > last) {
            self.read_ahead.insert(seq);
        }
    }

    /// What snapshots left out and was never read, from `join` on.
    pub fn unread_since(&self, join: u64) -> impl Iterator<Item = u64> + '_ {
        self.owed.range(join..).copied()
    }
}
