//! Rates of the doors that can be tried by strangers: token buckets in memory, by address and by account. Limits of
//! sends and sockets are elsewhere. `HAUS_LIMITS=off` lifts them.

use std::time::Instant;

use dashmap::DashMap;

use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;

/// Buckets kept. When reached, full ones go; if that is not enough, all: an attacker with more addresses than this is
/// stopped by the cost of passwords and the queue before them.
const BUCKETS_MAX: usize = 100_000;

/// What is limited, each by its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Logins from one address, right or wrong.
    LoginAddress,
    /// Wrong passwords for one account from one network.
    LoginAccountFrom,
    /// Wrong passwords for one account, from wherever; networks the account knows are let past.
    LoginAccount,
    RegisterAddress,
    RefreshAddress,
    /// Websocket tickets of one profile.
    Ticket,
    /// Searches of one profile.
    Search,
}

impl Limit {
    /// Tokens a bucket holds, and milliseconds until one comes back.
    const fn shape(self) -> (f64, f64) {
        match self {
            Self::LoginAddress => (100.0, 600.0),
            Self::LoginAccountFrom => (10.0, 30_000.0),
            Self::LoginAccount => (100.0, 6_000.0),
            Self::RegisterAddress => (60.0, 2_000.0),
            Self::RefreshAddress => (200.0, 200.0),
            Self::Ticket => (60.0, 1_000.0),
            Self::Search => (60.0, 250.0),
        }
    }
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of this node.
pub struct RateLimits {
    on: bool,
    buckets: DashMap<(Limit, String), Bucket>,
}

impl RateLimits {
    /// With `on` false every request passes.
    pub fn new(on: bool) -> Self {
        Self { on, buckets: DashMap::new() }
    }

    /// Takes one token of `key` at `now`.
    ///
    /// # Errors
    /// `rate_limited` with the time until the next token.
    pub fn take(&self, limit: Limit, key: String, now: Instant) -> Result<(), Refusal> {
        if !self.on {
            return Ok(());
        }
        if self.buckets.len() >= BUCKETS_MAX {
            self.make_room(now);
        }
        let (burst, refill_ms) = limit.shape();
        let mut bucket = self.buckets.entry((limit, key)).or_insert(Bucket { tokens: burst, at: now });
        let tokens = refilled(*bucket, limit, now);
        let taken = tokens >= 1.0;
        *bucket = Bucket { tokens: if taken { tokens - 1.0 } else { tokens }, at: now };
        if taken {
            return Ok(());
        }
        // At most one refill interval, far below u32::MAX.
        let wait_ms = ((1.0 - tokens) * refill_ms).ceil() as u32;
        Err(Refusal::new(ErrorCode::RateLimited, "too many attempts; try again later").retry_after(wait_ms.max(1)))
    }

    /// Gives a token back: the attempt turned out to be a good one.
    pub fn give_back(&self, limit: Limit, key: String) {
        if let Some(mut bucket) = self.buckets.get_mut(&(limit, key)) {
            bucket.tokens = (bucket.tokens + 1.0).min(limit.shape().0);
        }
    }

    fn make_room(&self, now: Instant) {
        self.buckets.retain(|(limit, _), bucket| refilled(*bucket, *limit, now) < limit.shape().0);
        if self.buckets.len() >= BUCKETS_MAX {
            self.buckets.clear();
        }
    }
}

fn refilled(bucket: Bucket, limit: Limit, now: Instant) -> f64 {
    let (burst, refill_ms) = limit.shape();
    let passed_ms = now.saturating_duration_since(bucket.at).as_secs_f64() * 1000.0;
    (bucket.tokens + passed_ms / refill_ms).min(burst)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Limit, RateLimits};

    #[test]
    fn a_bucket_empties_refills_and_takes_back() {
        let (limits, start) = (RateLimits::new(true), Instant::now());
        let take = |at| limits.take(Limit::LoginAccountFrom, "ana".into(), at);
        for _ in 0..10 {
            assert!(take(start).is_ok());
        }
        assert_eq!(take(start).map_err(|refusal| refusal.retry_after_ms), Err(30_000));
        assert!(limits.take(Limit::LoginAccountFrom, "bea".into(), start).is_ok());
        limits.give_back(Limit::LoginAccountFrom, "ana".into());
        assert!(take(start).is_ok());
        assert!(take(start).is_err());
        assert!(take(start + Duration::from_secs(31)).is_ok());
    }

    #[test]
    fn off_lets_everything_pass() {
        let limits = RateLimits::new(false);
        assert!((0..1000).all(|_| limits.take(Limit::LoginAccountFrom, "ana".into(), Instant::now()).is_ok()));
    }
}
