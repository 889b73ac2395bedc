//! Everything that depends on time, for all sessions of a worker in one sweep: no timer per socket.

use serde::Serialize;
use std::collections::BTreeMap;

use super::session::{NOWHERE, Phase, Session};
use super::streams::name_of;
use super::worker::Worker;
use crate::protocol::time::Timestamp;
use crate::protocol::{CloseCode, frame, reply};

/// Sessions looked at in one sweep; a full round takes at most a second for 20,000 sockets.
const SWEEP_SESSIONS: usize = 2_000;
/// `auth.expiring` is told so long before.
const EXPIRING_MS: i64 = 60_000;
/// An expired token still works so long.
const GRACE_MS: i64 = 25_000;
/// Streams in one `hb` besides the user stream and open threads.
const HEADS: usize = 32;

/// How a token stands.
#[derive(Debug, PartialEq, Eq)]
enum Validity {
    Good,
    /// The client is told; after the expiry (`in_ms` 0) everything still works for the grace.
    Expiring {
        in_ms: i64,
    },
    Over,
}

/// Both times unix, milliseconds.
fn validity(now_ms: i64, expires_at_ms: i64) -> Validity {
    let left_ms = expires_at_ms.saturating_sub(now_ms);
    if left_ms > EXPIRING_MS {
        Validity::Good
    } else if left_ms >= -GRACE_MS {
        Validity::Expiring { in_ms: left_ms.max(0) }
    } else {
        Validity::Over
    }
}

impl Worker {
    /// Looks at the next sessions' clocks.
    pub(super) fn sweep(&mut self) {
        if self.now_ms / 1000 != self.counted_ms / 1000 {
            self.counted_ms = self.now_ms;
            self.count_pending();
        }
        let unix_ms = Timestamp::now().unix_ms();
        let count = self.slots.len().min(SWEEP_SESSIONS);
        for _ in 0..count {
            if self.sweep_at >= self.slots.len() {
                self.sweep_at = 0;
            }
            let slot = self.sweep_at as u32;
            self.sweep_at += 1;
            if self.slots[slot as usize].session.as_ref().is_some_and(|session| self.is_due(session, unix_ms)) {
                self.with(slot, |worker, slot, session| worker.tick(slot, session, unix_ms));
            }
        }
    }

    /// Tells the gauge what waits in this worker's outboxes, once a second.
    pub(super) fn count_pending(&mut self) {
        let sessions = self.slots.iter().filter_map(|slot| slot.session.as_ref());
        let bytes = sessions.map(|session| session.outbox.bytes() as i64).sum::<i64>();
        crate::telemetry::metrics().outbox_pending.add(bytes - self.pending_bytes);
        self.pending_bytes = bytes;
    }

    /// Whether `tick` has anything to do; cheap, as it runs for every session.
    fn is_due(&self, session: &Session, unix_ms: i64) -> bool {
        self.now_ms >= session.next_heartbeat_ms
            || (session.phase != Phase::Live && self.now_ms >= session.deadline_ms)
            || session.is_pace_due(self.now_ms, self.shared.options.slow_close_ms)
            || unix_ms + EXPIRING_MS >= session.expires_at_unix_ms
            || session.catch_up.is_some()
    }

    fn tick(&mut self, slot: u32, session: &mut Session, unix_ms: i64) {
        match session.phase {
            Phase::Closing => {
                if self.now_ms >= session.deadline_ms {
                    session.deadline_ms = 0;
                }
                return;
            }
            Phase::New if self.now_ms >= session.deadline_ms => {
                return self.close(slot, session, CloseCode::Unauthenticated, None);
            }
            Phase::New | Phase::Authenticating => return,
            Phase::Live => {}
        }
        let close_ms = self.shared.options.slow_close_ms;
        if session.is_pace_due(self.now_ms, close_ms) && !session.keeps_pace(self.now_ms, close_ms) {
            // It takes next to nothing, not even a close frame: tried once, then dropped with what waits for it.
            session.outbox = super::outbox::Outbox::default();
            session.push(frame::close(CloseCode::Slow, None));
            let mut writes = 0;
            let _ = session.outbox.flush(&mut session.socket, &mut writes);
            return self.abandon(slot, session);
        }
        let validity = validity(unix_ms, session.expires_at_unix_ms);
        if validity == Validity::Over {
            return self.close(slot, session, CloseCode::Unauthenticated, None);
        }
        if let Validity::Expiring { in_ms } = validity
            && !session.expiring_told
        {
            #[derive(Serialize)]
            #[serde(rename_all = "camelCase")]
            struct Expiring {
                in_ms: i64,
            }
            session.expiring_told = true;
            session.push(reply::notice("auth.expiring", &Expiring { in_ms }));
            self.mark_dirty_session(slot, session);
        }
        if self.now_ms >= session.next_heartbeat_ms {
            self.beat(slot, session);
        }
        if session.catch_up.is_some() && session.phase == Phase::Live {
            self.pump(slot, session);
        }
    }

    fn beat(&mut self, slot: u32, session: &mut Session) {
        session.next_heartbeat_ms = self.now_ms + self.shared.options.heartbeat_ms;
        if session.paused {
            // Its pong may lie among what is not read for now; its pace is what counts.
            return;
        }
        if session.unanswered >= 2 {
            return self.close(slot, session, CloseCode::NoPong, None);
        }
        // Where the last beat still waits, another would only grow the queue; what was not asked is not unanswered.
        if session.blocked_since_ms == 0 {
            session.unanswered += 1;
            let heads = self.heads(session);
            session.push(reply::notice("hb", &Beat { heads }));
            session.push(frame::ping());
            self.mark_dirty_session(slot, session);
        }
    }

    /// Positions up to which this socket was given everything: user stream, open threads, others in rotation.
    fn heads(&self, session: &mut Session) -> BTreeMap<String, u64> {
        let mut heads = BTreeMap::new();
        let mut add = |number: u32| {
            if let Some(local) = self.locals.get(number as usize) {
                heads.insert(name_of(local.stream), local.delivered);
            }
        };
        if session.user != NOWHERE {
            add(session.user);
        }
        let open = session.open.as_deref().map_or(&[][..], Vec::as_slice);
        open.iter()
            .map(|thread| self.local_of(crate::updates::StreamId::Thread(*thread)))
            .filter(|n| session.threads.binary_search(n).is_ok())
            .for_each(&mut add);
        let count = session.threads.len();
        for step in 0..count.min(HEADS) {
            add(session.threads[(usize::from(session.rotation) + step) % count]);
        }
        if count > 0 {
            session.rotation = ((usize::from(session.rotation) + HEADS) % count) as u16;
        }
        heads
    }

    pub(super) fn close_all(&mut self, code: CloseCode, spread_ms: u32) {
        for slot in 0..self.slots.len() as u32 {
            let spread = u64::from(slot).wrapping_mul(0x9E37_79B9) % u64::from(spread_ms.max(1));
            self.with(slot, |worker, slot, session| worker.close(slot, session, code, Some(spread as u32)));
        }
    }
}

#[derive(Serialize)]
struct Beat {
    heads: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::{EXPIRING_MS, GRACE_MS, Validity, validity};

    #[test]
    fn a_token_expires_is_told_and_has_its_grace() {
        let cases = [
            (EXPIRING_MS + 1, Validity::Good),
            (EXPIRING_MS, Validity::Expiring { in_ms: EXPIRING_MS }),
            (1, Validity::Expiring { in_ms: 1 }),
            (-1, Validity::Expiring { in_ms: 0 }),
            (-GRACE_MS, Validity::Expiring { in_ms: 0 }),
            (-GRACE_MS - 1, Validity::Over),
        ];
        for (left_ms, expected) in cases {
            assert_eq!(validity(1_000_000, 1_000_000 + left_ms), expected, "{left_ms}");
        }
        assert_eq!(validity(1_000_000, i64::MAX), Validity::Good);
    }
}
