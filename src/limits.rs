//! Limits per address.

use std::net::IpAddr;
use std::sync::Arc;

use dashmap::DashMap;

/// Counts sockets by address.
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
        let mut count = self.counts.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(count);
        Some(AddressGuard { addresses: self.clone(), address })
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

/// Sends a profile may make, as a token bucket of 10 s.
pub struct RateLimiter {
    per_10s: u32,
    on: bool,
    buckets: DashMap<uuid::Uuid, (f64, std::time::Instant)>,
}

impl RateLimiter {
    pub fn new(per_10s: u32, on: bool) -> Self {
        Self { per_10s, on, buckets: DashMap::new() }
    }

    /// Takes `n` tokens, or says how many milliseconds to wait.
    pub fn check(&self, profile_id: uuid::Uuid, n: u32) -> Result<(), u32> {
        if !self.on {
            return Ok(());
        }
        let now = std::time::Instant::now();
        let full = f64::from(self.per_10s);
        let mut bucket = self.buckets.entry(profile_id).or_insert((full, now));
        let refilled = (bucket.0 + now.duration_since(bucket.1).as_secs_f64() * full / 10.0).min(full);
        if refilled < f64::from(n) {
            *bucket = (refilled, now);
            return Err(((f64::from(n) - refilled) * 10_000.0 / full).ceil() as u32);
        }
        *bucket = (refilled - f64::from(n), now);
        Ok(())
    }
}
