//! The one clock of a run: CLOCK_MONOTONIC in nanoseconds, the same in every process of the machine, and a timer that wakes
//! the poll loop at an exact nanosecond (epoll's own timeout counts whole milliseconds, too coarse for 20,000 sends a second).

use crate::error::{LoadError, doing};
use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// CLOCK_MONOTONIC now, in nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64) * SECOND_NS + now.tv_nsec as u64
}

/// A one-shot absolute timer that makes its token ready in an epoll set.
pub struct Alarm {
    fd: OwnedFd,
    armed_ns: u64,
}

impl Alarm {
    /// Makes the timer and registers it under `token`.
    pub fn new(registry: &Registry, token: Token) -> Result<Self, LoadError> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(|e| doing("timer")(e.into()))?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE).map_err(doing("timer"))?;
        Ok(Self { fd, armed_ns: 0 })
    }

    /// Arms the timer for `at_ns`; the same time again costs no system call.
    pub fn set(&mut self, at_ns: u64) -> Result<(), LoadError> {
        if self.armed_ns == at_ns {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec { tv_sec: (at_ns / SECOND_NS) as i64, tv_nsec: (at_ns % SECOND_NS) as _ };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: zero, it_value: at })
            .map_err(|e| doing("timer")(e.into()))?;
        self.armed_ns = at_ns;
        Ok(())
    }
}
