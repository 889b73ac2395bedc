//! Limits per profile and per address, decided in memory. What a limit is, is a setting; how a refusal is said to the
//! client is the caller's. Limits of queues and buffers stand beside those, under names of their own.

mod sessions;
mod shared;
mod work;

pub use sessions::{SessionBook, share_sessions};

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use uuid::Uuid;

pub use work::{Work, WorkRates};

use crate::telemetry::metrics;

/// The time over which a rate is counted, milliseconds: an empty bucket is full again after it.
const RATE_WINDOW_MS: u64 = 10_000;
/// One send. A bucket gains its size a millisecond in these units, so that all of it is exact.
const UNIT: i64 = RATE_WINDOW_MS as i64;
/// Between sweeps of the buckets, milliseconds. A full one is the same as none, so what is kept are the profiles that
/// sent in the last [`RATE_WINDOW_MS`] (twice that when other nodes had them in debt).
const SWEEP_MS: u64 = 10_000;

/// The part of an address that one customer of a provider usually has to themselves: all of IPv4 (however written), the
/// /64 of IPv6. Whatever is counted by address is counted by it.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        address => address,
    }
}

/// Counts connections by network ([`network_of`]). It holds an entry for each address with an open socket, so at most one a socket.
#[derive(Default)]
pub struct Addresses {
    counts: DashMap<IpAddr, u32>,
}

/// One socket of an address, as long as it lives.
pub struct AddressGuard {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// A place for one more socket, unless the address holds `most` already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressGuard> {
        let address = network_of(address);
        let mut count = self.counts.entry(address).or_insert(0);
        if *count >= most {
            let is_new = *count == 0;
            drop(count);
            if is_new {
                self.counts.remove_if(&address, |_, count| *count == 0);
            }
            return None;
        }
        *count += 1;
        drop(count);
        Some(AddressGuard { addresses: self.clone(), address })
    }
}

impl AddressGuard {
    /// The address it counts for.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        if let Some(mut count) = self.addresses.counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
        }
        self.addresses.counts.remove_if(&self.address, |_, count| *count == 0);
    }
}

/// What a profile may still send here.
struct Bucket {
    /// In [`UNIT`]s. Negative: other nodes let too many pass.
    level: i64,
    at_ms: u64,
    /// Taken here, and the other nodes do not know yet.
    untold: u32,
}

impl Bucket {
    fn refill(&mut self, size: i64, now_ms: u64) {
        let since_ms = now_ms.saturating_sub(self.at_ms).min(2 * RATE_WINDOW_MS) as i64;
        self.level = (self.level + since_ms * size).min(size * UNIT);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

/// Sends a profile may make, as a token bucket. Each node decides alone and at once; nodes tell each other through Redis
/// what they let pass ([`RateLimiter::share`]), so that a profile on many nodes has about one bucket. Without Redis it
/// has one on each node.
pub struct RateLimiter {
    /// Sends in a full bucket.
    size: i64,
    on: bool,
    started: Instant,
    buckets: DashMap<Uuid, Bucket>,
    swept_ms: AtomicU64,
}

impl RateLimiter {
    /// `per_10s` sends a profile; with `on` false everything passes and nothing is remembered.
    pub fn new(per_10s: u32, on: bool) -> Self {
        let (size, started) = (i64::from(per_10s.max(1)), Instant::now());
        Self { size, on, started, buckets: DashMap::new(), swept_ms: AtomicU64::new(0) }
    }

    /// Takes `n` sends of the profile.
    ///
    /// # Errors
    /// The milliseconds to wait until they would pass; nothing is taken then.
    pub fn check(&self, profile_id: Uuid, n: u32) -> Result<(), u32> {
        if !self.on {
            return Ok(());
        }
        self.check_at(profile_id, n, self.now_ms())
    }

    fn check_at(&self, profile_id: Uuid, n: u32, now_ms: u64) -> Result<(), u32> {
        self.sweep(now_ms);
        let full = Bucket { level: self.size * UNIT, at_ms: now_ms, untold: 0 };
        let mut bucket = self.buckets.entry(profile_id).or_insert(full);
        bucket.refill(self.size, now_ms);
        let missing = i64::from(n) * UNIT - bucket.level;
        if missing > 0 {
            metrics().rate_limited.inc_by(u64::from(n));
            return Err(u32::try_from((missing as u64).div_ceil(self.size as u64)).unwrap_or(u32::MAX));
        }
        bucket.level -= i64::from(n) * UNIT;
        bucket.untold = bucket.untold.saturating_add(n);
        Ok(())
    }

    /// Forgets full buckets, once in [`SWEEP_MS`].
    fn sweep(&self, now_ms: u64) {
        let swept_ms = self.swept_ms.load(Ordering::Relaxed);
        if now_ms < swept_ms + SWEEP_MS
            || self.swept_ms.compare_exchange(swept_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        self.buckets.retain(|_, bucket| {
            bucket.refill(self.size, now_ms);
            bucket.level < self.size * UNIT
        });
        metrics().rate_buckets.set(self.buckets.len() as i64);
    }

    /// What was taken since the last time, and is from now on told.
    fn take_untold(&self) -> Vec<(Uuid, u32)> {
        let spent = self.buckets.iter_mut().filter(|bucket| bucket.untold > 0);
        spent.map(|mut bucket| (*bucket.key(), std::mem::take(&mut bucket.untold))).collect()
    }

    /// It could not be told.
    fn put_back(&self, untold: &[(Uuid, u32)]) {
        for (profile_id, n) in untold {
            if let Some(mut bucket) = self.buckets.get_mut(profile_id) {
                bucket.untold = bucket.untold.saturating_add(*n);
            }
        }
    }

    /// All nodes together leave a profile so much.
    fn cap(&self, profile_id: Uuid, left: i64, now_ms: u64) {
        if let Some(mut bucket) = self.buckets.get_mut(&profile_id) {
            bucket.refill(self.size, now_ms);
            // What was taken here in the meantime is not in `left` yet.
            bucket.level = bucket.level.min((left - i64::from(bucket.untold)) * UNIT);
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{Addresses, RateLimiter};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use uuid::Uuid;

    #[test]
    fn a_bucket_empties_tells_how_long_and_fills_again() {
        let limiter = RateLimiter::new(50, true);
        let (profile, other) = (Uuid::now_v7(), Uuid::now_v7());
        for _ in 0..50 {
            assert_eq!(limiter.check_at(profile, 1, 0), Ok(()));
        }
        assert_eq!(limiter.check_at(profile, 1, 0), Err(200));
        assert_eq!(limiter.check_at(other, 1, 0), Ok(()), "each profile has its own");
        assert_eq!(limiter.check_at(profile, 1, 199), Err(1), "a refusal takes nothing");
        assert_eq!(limiter.check_at(profile, 1, 200), Ok(()));
        assert_eq!(limiter.check_at(profile, 50, 10_200), Ok(()), "full after ten seconds");
        assert_eq!(limiter.check_at(profile, 1, 10_200), Err(200), "and no fuller");
    }

    #[test]
    fn full_buckets_are_swept_and_debts_are_kept() {
        let limiter = RateLimiter::new(10, true);
        (0..1000).for_each(|_| assert_eq!(limiter.check_at(Uuid::now_v7(), 1, 100), Ok(())));
        let debtor = Uuid::now_v7();
        assert_eq!(limiter.check_at(debtor, 10, 100), Ok(()));
        limiter.cap(debtor, -9, 100);
        assert_eq!(limiter.buckets.len(), 1001);
        let _ = limiter.check_at(Uuid::now_v7(), 1, 10_200);
        assert_eq!(limiter.buckets.len(), 2);
        assert!(limiter.check_at(debtor, 10, 19_000).is_err(), "ten seconds of debt, ten to fill");
    }

    #[test]
    fn what_others_let_pass_counts_here() {
        let limiter = RateLimiter::new(10, true);
        let profile = Uuid::now_v7();
        assert_eq!(limiter.check_at(profile, 2, 0), Ok(()));
        let told = limiter.take_untold();
        assert_eq!(told, [(profile, 2)]);
        assert!(limiter.take_untold().is_empty());
        assert_eq!(limiter.check_at(profile, 1, 0), Ok(()));
        limiter.cap(profile, 3, 0);
        assert_eq!(limiter.check_at(profile, 3, 0), Err(1000), "3 are left, of which 1 was taken meanwhile");
        assert_eq!(limiter.check_at(profile, 2, 0), Ok(()));
        limiter.put_back(&told);
        assert_eq!(limiter.take_untold(), [(profile, 5)]);
    }

    #[test]
    fn lifted_limits_remember_nothing() {
        let limiter = RateLimiter::new(1, false);
        let profile = Uuid::now_v7();
        assert!((0..1000).all(|_| limiter.check(profile, 1).is_ok()));
        assert!(limiter.buckets.is_empty());
    }

    #[test]
    fn an_address_holds_so_many_sockets_and_no_memory_afterwards() {
        let addresses = Arc::new(Addresses::default());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let guards: Vec<_> = (0..3).map(|_| addresses.enter(address, 3).expect("a place")).collect();
        assert!(addresses.enter(address, 3).is_none());
        assert!(addresses.enter(IpAddr::V4(Ipv4Addr::BROADCAST), 0).is_none());
        assert_eq!(addresses.counts.len(), 1, "a refused address leaves nothing");
        drop(guards);
        assert!(addresses.counts.is_empty());
        assert!(addresses.enter(address, 1).is_some());
        let in_network = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _held = addresses.enter(in_network("2001:db8::1:1"), 1).expect("a place");
        assert!(addresses.enter(in_network("2001:db8::ffff:2"), 1).is_none(), "one /64 is one");
        assert!(addresses.enter(in_network("2001:db8:0:1::1"), 1).is_some());
        let _mapped = addresses.enter(in_network("::ffff:192.0.2.1"), 1).expect("a place");
        assert!(addresses.enter(in_network("192.0.2.1"), 1).is_none());
    }
}
