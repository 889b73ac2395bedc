//! Rates of everything that writes or reads much, by person and by address: one function for socket and REST. Sends have a
//! limit of their own, log-in and its like too.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use uuid::Uuid;

use super::network_of;
use crate::telemetry::metrics;

/// An address has the buckets of so many people: behind one may be a household or an office.
pub const PEOPLE_AN_ADDRESS: u32 = 10;
/// Between sweeps of full buckets, milliseconds.
const SWEEP_MS: u64 = 10_000;

/// What is done, in classes of about the same cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// Making threads.
    Create,
    /// Letting people into threads; counted by head.
    LetIn,
    /// Every other change.
    Change,
    /// Read marks.
    Mark,
    /// Reads of one row or a short list.
    Read,
    /// Pages: history, the log, lists of threads and profiles.
    Page,
    /// Looking up whether a send above the rate is a repeat.
    Lookup,
}

impl Work {
    /// Size of a person's bucket, and how much of it comes back in a second.
    pub const fn shape(self) -> (u32, u32) {
        match self {
            Self::Create => (100, 2),
            Self::LetIn => (1_000, 10),
            Self::Change => (120, 4),
            Self::Mark | Self::Page => (600, 60),
            Self::Read => (1_000, 100),
            Self::Lookup => (100, 10),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Person(Uuid),
    Address(IpAddr),
}

struct Bucket {
    /// In thousandths.
    level: i64,
    at_ms: u64,
}

/// The buckets of a node.
pub struct WorkRates {
    on: bool,
    started: Instant,
    buckets: DashMap<(Work, Key), Bucket>,
    swept_ms: AtomicU64,
}

impl WorkRates {
    /// With `on` false everything passes and nothing is remembered.
    pub fn new(on: bool) -> Self {
        Self { on, started: Instant::now(), buckets: DashMap::new(), swept_ms: AtomicU64::new(0) }
    }

    /// Takes `n` of a person's and of an address's bucket for `work`. More than a bucket holds takes all of it.
    ///
    /// # Errors
    /// The milliseconds to wait until they would pass; nothing is taken then.
    pub fn take(&self, work: Work, person: Uuid, address: IpAddr, n: u32) -> Result<(), u32> {
        if !self.on {
            return Ok(());
        }
        let now_ms = self.started.elapsed().as_millis() as u64;
        let taken = self.take_at(work, person, address, n, now_ms);
        if taken.is_err() {
            metrics().rate_limited_work.inc();
        }
        taken
    }

    /// Takes one of a person's bucket alone, for what costs less than the look at an address would be worth.
    ///
    /// # Errors
    /// As [`WorkRates::take`].
    pub fn take_of_person(&self, work: Work, person: Uuid) -> Result<(), u32> {
        if !self.on {
            return Ok(());
        }
        let now_ms = self.started.elapsed().as_millis() as u64;
        self.sweep(now_ms);
        self.draw(work, Key::Person(person), 1, now_ms)
    }

    fn take_at(&self, work: Work, person: Uuid, address: IpAddr, n: u32, now_ms: u64) -> Result<(), u32> {
        self.sweep(now_ms);
        let n = n.min(work.shape().0);
        let (person, address) = (Key::Person(person), Key::Address(network_of(address)));
        self.draw(work, person, n, now_ms)?;
        self.draw(work, address, n, now_ms).inspect_err(|_| self.give_back(work, person, n))
    }

    fn draw(&self, work: Work, key: Key, n: u32, now_ms: u64) -> Result<(), u32> {
        let (size, per_s) = shape(work, key);
        let mut bucket = self.buckets.entry((work, key)).or_insert(Bucket { level: size, at_ms: now_ms });
        refill(&mut bucket, size, per_s, now_ms);
        let wanted = (i64::from(n) * 1000).min(size);
        let missing = wanted - bucket.level;
        if missing > 0 {
            return Err(u32::try_from((missing as u64).div_ceil(per_s as u64)).unwrap_or(u32::MAX).max(1));
        }
        bucket.level -= wanted;
        Ok(())
    }

    fn give_back(&self, work: Work, key: Key, n: u32) {
        let (size, _) = shape(work, key);
        if let Some(mut bucket) = self.buckets.get_mut(&(work, key)) {
            bucket.level = (bucket.level + i64::from(n) * 1000).min(size);
        }
    }

    /// Forgets full buckets, once in [`SWEEP_MS`].
    fn sweep(&self, now_ms: u64) {
        let swept_ms = self.swept_ms.load(Ordering::Relaxed);
        if now_ms < swept_ms + SWEEP_MS
            || self.swept_ms.compare_exchange(swept_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        self.buckets.retain(|(work, key), bucket| {
            let (size, per_s) = shape(*work, *key);
            refill(bucket, size, per_s, now_ms);
            bucket.level < size
        });
    }
}

/// Thousandths in a full bucket, and thousandths a millisecond (which is whole ones a second).
fn shape(work: Work, key: Key) -> (i64, i64) {
    let people = match key {
        Key::Person(_) => 1,
        Key::Address(_) => i64::from(PEOPLE_AN_ADDRESS),
    };
    let (size, per_s) = work.shape();
    (i64::from(size) * 1000 * people, i64::from(per_s) * people)
}

fn refill(bucket: &mut Bucket, size: i64, per_s: i64, now_ms: u64) {
    let since_ms = now_ms.saturating_sub(bucket.at_ms).min(u64::from(u32::MAX)) as i64;
    bucket.level = (bucket.level + since_ms * per_s).min(size);
    bucket.at_ms = bucket.at_ms.max(now_ms);
}

#[cfg(test)]
mod tests {
    use super::{PEOPLE_AN_ADDRESS, Work, WorkRates};
    use std::net::IpAddr;
    use uuid::Uuid;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_person_has_a_bucket_for_each_class() {
        let rates = WorkRates::new(true);
        let (ana, home) = (Uuid::now_v7(), ip("192.0.2.1"));
        let (size, per_s) = Work::Create.shape();
        for _ in 0..size {
            assert_eq!(rates.take_at(Work::Create, ana, home, 1, 0), Ok(()));
        }
        assert_eq!(rates.take_at(Work::Create, ana, ip("192.0.2.2"), 1, 0), Err(1000 / per_s), "wherever from");
        assert_eq!(rates.take_at(Work::Change, ana, home, 1, 0), Ok(()));
        assert_eq!(rates.take_at(Work::Create, Uuid::now_v7(), home, 1, 0), Ok(()), "each has their own");
        assert_eq!(rates.take_at(Work::Create, ana, home, 1, 1000 / u64::from(per_s)), Ok(()));
    }

    #[test]
    fn an_address_has_one_too_and_a_refusal_costs_the_person_nothing() {
        let rates = WorkRates::new(true);
        let (size, _) = Work::LetIn.shape();
        for host in 0..PEOPLE_AN_ADDRESS {
            let address = ip(&format!("2001:db8::{host:x}"));
            assert_eq!(rates.take_at(Work::LetIn, Uuid::now_v7(), address, size + 1, 0), Ok(()), "cut to a bucket");
        }
        let late = Uuid::now_v7();
        assert!(rates.take_at(Work::LetIn, late, ip("2001:db8::ffff"), 1, 0).is_err(), "a /64 is one address");
        assert_eq!(rates.take_at(Work::LetIn, late, ip("2001:db8:0:1::1"), size, 0), Ok(()));
    }

    #[test]
    fn full_buckets_are_forgotten_and_lifted_limits_remember_nothing() {
        let rates = WorkRates::new(true);
        (0..100).for_each(|_| assert!(rates.take_at(Work::Read, Uuid::now_v7(), ip("::1"), 1, 0).is_ok()));
        let _ = rates.take_at(Work::Read, Uuid::now_v7(), ip("192.0.2.1"), 1, 100_000);
        assert_eq!(rates.buckets.len(), 2);
        let off = WorkRates::new(false);
        assert!((0..5000).all(|_| off.take(Work::Create, Uuid::nil(), ip("::1"), 1).is_ok()));
        assert!(off.buckets.is_empty());
    }
}
