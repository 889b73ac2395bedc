//! When a message is *meant* to be sent. An open loop keeps its timetable whatever the server does, so that a stall shows in
//! the latencies of every message that should have gone out meanwhile (no coordinated omission; the term is Gil Tene's).
//! A closed loop sends whenever fewer than K messages are in flight. No I/O here.

use crate::clock::SECOND_NS;

/// How the moments of sending are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// `per_second` messages a second, evenly spaced; held back, their intended times kept, while `most` are in flight.
    Open { per_second: f64, most: u64 },
    /// As many as keep `in_flight` messages in flight.
    Closed { in_flight: u64 },
}

/// The timetable of one run.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    start_ns: u64,
    end_ns: u64,
    issued: u64,
}

impl Schedule {
    /// A timetable from `start_ns` for `seconds`.
    pub fn new(pace: Pace, start_ns: u64, seconds: f64) -> Self {
        Self { pace, start_ns, end_ns: start_ns + (seconds * SECOND_NS as f64) as u64, issued: 0 }
    }

    /// The intended time of message `n` in an open loop.
    fn intended(&self, n: u64, per_second: f64) -> u64 {
        self.start_ns + (n as f64 * SECOND_NS as f64 / per_second) as u64
    }

    /// The intended time of the next message if it is due at `now_ns` with `in_flight` outstanding, else `None`. Issuing it counts it.
    pub fn due(&mut self, now_ns: u64, in_flight: u64) -> Option<u64> {
        let intended = match self.pace {
            Pace::Open { per_second, most } if in_flight < most => self.intended(self.issued, per_second),
            Pace::Closed { in_flight: most } if in_flight < most => now_ns,
            Pace::Open { .. } | Pace::Closed { .. } => return None,
        };
        if intended > now_ns || intended >= self.end_ns {
            return None;
        }
        self.issued += 1;
        Some(intended)
    }

    /// When the loop must wake at the latest: the next intended time, or the end.
    pub fn wake_ns(&self) -> u64 {
        match self.pace {
            Pace::Open { per_second, .. } => self.intended(self.issued, per_second).min(self.end_ns),
            Pace::Closed { .. } => self.end_ns,
        }
    }

    /// Whether nothing more will be issued at `now_ns`: past the end, and in an open loop everything before the end was issued.
    pub fn over(&self, now_ns: u64) -> bool {
        match self.pace {
            Pace::Open { per_second, .. } => {
                now_ns >= self.end_ns && self.intended(self.issued, per_second) >= self.end_ns
            }
            Pace::Closed { .. } => now_ns >= self.end_ns,
        }
    }

    #[cfg(test)]
    fn issued(&self) -> u64 {
        self.issued
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, Schedule};

    #[test]
    fn an_open_loop_keeps_its_timetable_through_a_stall() {
        let mut schedule = Schedule::new(Pace::Open { per_second: 1000.0, most: 1000 }, 5_000_000, 1.0);
        assert_eq!(schedule.due(5_000_000, 0), Some(5_000_000));
        assert_eq!(schedule.due(5_000_001, 0), None);
        // The loop was away for 3 ms: three messages are due, each with the time it was meant for.
        let late = 8_000_000;
        assert_eq!(schedule.due(late, 900), Some(6_000_000));
        assert_eq!(schedule.due(late, 900), Some(7_000_000));
        assert_eq!(schedule.due(late, 900), Some(8_000_000));
        assert_eq!(schedule.due(late, 900), None);
        assert_eq!(schedule.due(9_000_000, 1000), None, "held back at the cap");
        assert_eq!(schedule.due(9_500_000, 999), Some(9_000_000), "and then counted from when it was meant");
        assert_eq!(schedule.wake_ns(), 10_000_000);
        assert_eq!(schedule.issued(), 5);
    }

    #[test]
    fn an_open_loop_issues_everything_before_it_is_over() {
        let mut schedule = Schedule::new(Pace::Open { per_second: 10.0, most: 1 }, 0, 1.0);
        let end = 2_000_000_000;
        assert!(!schedule.over(end));
        let mut count = 0;
        while schedule.due(end, 0).is_some() {
            count += 1;
        }
        assert_eq!(count, 10);
        assert!(schedule.over(end));
    }

    #[test]
    fn a_closed_loop_is_held_by_what_is_in_flight() {
        let mut schedule = Schedule::new(Pace::Closed { in_flight: 2 }, 0, 1.0);
        assert_eq!(schedule.due(10, 1), Some(10));
        assert_eq!(schedule.due(20, 2), None);
        assert!(!schedule.over(999_999_999));
        assert!(schedule.over(1_000_000_000));
        assert_eq!(schedule.due(1_000_000_000, 0), None);
    }
}
