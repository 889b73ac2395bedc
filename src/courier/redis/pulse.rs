//! Whether the path through Redis is alive: canaries, and the health they give. Sends nothing itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::lock;

/// Between canaries.
pub const CANARY: Duration = Duration::from_millis(250);
/// Without a canary for so long the path is dead.
pub const CANARY_DEAD_MS: u64 = 2_000;

/// A change of health, told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    None,
    Healthy,
    Unhealthy,
}

/// When the newest canary was sent that came back, and since when the subscription stands.
pub struct Pulse {
    started: Instant,
    /// Milliseconds since `started`.
    returned_ms: AtomicU64,
    /// The same; 0: there is no subscription.
    subscribed_ms: AtomicU64,
    unhealthy_since: Mutex<Option<Instant>>,
}

impl Pulse {
    pub fn new() -> Self {
        let started = Instant::now();
        Self {
            started,
            returned_ms: AtomicU64::new(0),
            subscribed_ms: AtomicU64::new(0),
            unhealthy_since: Mutex::new(Some(started)),
        }
    }

    /// The clock of canaries: milliseconds since the driver started, at least 1.
    pub fn now_ms(&self) -> u64 {
        (self.started.elapsed().as_millis() as u64).max(1)
    }

    pub fn canary_age_ms(&self) -> u64 {
        self.now_ms().saturating_sub(self.returned_ms.load(Ordering::Relaxed))
    }

    pub fn unhealthy_since(&self) -> Option<Instant> {
        *lock(&self.unhealthy_since)
    }

    /// All wanted shards are heard from now on.
    pub fn subscribed(&self) {
        self.subscribed_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The subscriber connection is gone.
    pub fn lost(&self) -> Turn {
        self.subscribed_ms.store(0, Ordering::Relaxed);
        let mut since = lock(&self.unhealthy_since);
        if since.is_some() {
            return Turn::None;
        }
        *since = Some(Instant::now());
        Turn::Unhealthy
    }

    /// A canary sent at `sent_ms` came back. Only one sent after the subscription stood proves anything.
    pub fn returned(&self, sent_ms: u64) -> Turn {
        self.returned_ms.fetch_max(sent_ms, Ordering::Relaxed);
        let subscribed_ms = self.subscribed_ms.load(Ordering::Relaxed);
        if subscribed_ms == 0 || sent_ms < subscribed_ms || lock(&self.unhealthy_since).take().is_none() {
            return Turn::None;
        }
        Turn::Healthy
    }

    /// Whether the subscription has stood for long enough without a canary sent since.
    pub fn is_dead(&self) -> bool {
        let newest = self.returned_ms.load(Ordering::Relaxed).max(self.subscribed_ms.load(Ordering::Relaxed));
        self.now_ms().saturating_sub(newest) > CANARY_DEAD_MS
    }
}

#[cfg(test)]
mod tests {
    use super::{Pulse, Turn};

    #[test]
    fn only_a_canary_of_this_subscription_heals() {
        let pulse = Pulse::new();
        assert_eq!(pulse.lost(), Turn::None, "starts unhealthy");
        assert_eq!(pulse.returned(1), Turn::None, "nothing is subscribed");
        std::thread::sleep(std::time::Duration::from_millis(5));
        pulse.subscribed();
        assert_eq!(pulse.returned(1), Turn::None, "sent before");
        assert_eq!(pulse.returned(pulse.now_ms()), Turn::Healthy);
        assert_eq!(pulse.returned(pulse.now_ms()), Turn::None, "told once");
        assert!(pulse.unhealthy_since().is_none() && !pulse.is_dead());
        assert_eq!(pulse.lost(), Turn::Unhealthy);
        assert_eq!(pulse.lost(), Turn::None, "told once");
        assert!(pulse.unhealthy_since().is_some());
    }
}
