//! Everything a run counts: sends, acknowledgements, deliveries, latencies, and whether each socket saw each thread's `seq` without
//! gap, double or reorder. Pure bookkeeping; the poll loop feeds it.

use crate::error::LoadError;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

/// Highest latency a histogram tells apart, microseconds (two minutes); longer ones are counted there.
const MAX_LATENCY_US: u64 = 120_000_000;
/// Positions known to be missing that are remembered, to tell a late update from a double. Beyond it a late one counts as a double.
const MISSING_LIMIT: usize = 100_000;

/// Misfits kept in words.
const FIRST_FAULTS: usize = 8;

/// Latencies of one sort: those of the running second and all before it.
pub struct Latencies {
    second: Histogram<u64>,
    whole: Histogram<u64>,
}

impl Latencies {
    fn new() -> Result<Self, LoadError> {
        let make = || {
            Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).map_err(|e| LoadError::Failed(format!("histogram: {e}")))
        };
        Ok(Self { second: make()?, whole: make()? })
    }

    /// Records the time from `intended_ns` to `now_ns`.
    #[inline]
    pub fn record(&mut self, intended_ns: u64, now_ns: u64) {
        self.second.saturating_record((now_ns.saturating_sub(intended_ns) / 1000).max(1));
    }

    /// Percentiles of the running second, in milliseconds; the second then belongs to the whole.
    pub fn turn_second(&mut self) -> Value {
        let report = percentiles(&self.second);
        if self.whole.add(&self.second).is_ok() {
            self.second.reset();
        }
        report
    }

    /// Percentiles of everything so far, in milliseconds.
    pub fn total(&mut self) -> Value {
        self.turn_second();
        percentiles(&self.whole)
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": histogram.max() as f64 / 1000.0})
}

/// Counters that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent.
    pub offered: u64,
    /// Sends answered `ok`.
    pub acked: u64,
    /// Sends answered with an error.
    pub refused: u64,
    /// Messages of this run received, over all sockets.
    pub deliveries: u64,
    /// Payload bytes of those.
    pub delivery_bytes: u64,
    /// Messages that have reached all our sockets in their thread.
    pub complete: u64,
    /// Deliveries that the acknowledged sends owe.
    pub owed: u64,
    /// Updates that a snapshot stood for.
    pub replaced: u64,
    /// All frames received.
    pub frames: u64,
    /// All bytes received.
    pub bytes: u64,
    /// `read` calls that brought something.
    pub reads: u64,
}

/// What went wrong, if anything did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Positions skipped and never seen.
    pub gaps: u64,
    /// Positions seen twice.
    pub doubles: u64,
    /// Positions seen after a later one.
    pub reorders: u64,
    /// Frames that made no sense.
    pub unreadable: u64,
    /// Updates of a thread that the socket had not been told of.
    pub strangers: u64,
}

/// The books of one run.
pub struct Tally {
    /// Counters.
    pub counts: Counts,
    /// Faults.
    pub faults: Faults,
    /// From intended send to the reply.
    pub acks: Latencies,
    /// From intended send to bytes read, where sender and receiver used the same url.
    pub deliveries: Latencies,
    /// The same where they used different ones.
    pub remote: Latencies,
    /// From the start of a connect to `auth` answered.
    pub ready: Latencies,
    /// From the start of a connect to `resumed`.
    pub resumes: Latencies,
    /// From a read mark to its reply.
    pub marks: Latencies,
    /// Replies with an error, by code.
    pub errors: BTreeMap<String, u64>,
    /// Sockets that ended, by close code or cause.
    pub closed: BTreeMap<String, u64>,
    /// Frames without position, by name.
    pub plain: BTreeMap<String, u64>,
    /// The first misfits in words, for whoever looks into them.
    pub first_faults: Vec<String>,
    missing: HashSet<(u32, u32, u64)>,
}

impl Tally {
    /// Empty books.
    pub fn new() -> Result<Self, LoadError> {
        Ok(Self {
            counts: Counts::default(),
            faults: Faults::default(),
            acks: Latencies::new()?,
            deliveries: Latencies::new()?,
            remote: Latencies::new()?,
            ready: Latencies::new()?,
            resumes: Latencies::new()?,
            marks: Latencies::new()?,
            errors: BTreeMap::new(),
            closed: BTreeMap::new(),
            plain: BTreeMap::new(),
            first_faults: Vec::new(),
            missing: HashSet::new(),
        })
    }

    /// Starts the figures anew after a warm-up; faults and positions stay.
    pub fn clear_figures(&mut self) -> Result<(), LoadError> {
        let fresh = Self::new()?;
        self.counts = fresh.counts;
        (self.acks, self.deliveries, self.remote) = (fresh.acks, fresh.deliveries, fresh.remote);
        Ok(())
    }

    /// Judges position `seq` of `stream` on `socket`, whose last was `last`; returns the new last.
    #[inline]
    pub fn judge(&mut self, socket: u32, stream: u32, last: u64, seq: u64) -> u64 {
        if seq == last + 1 {
            return seq;
        }
        self.misfit(socket, stream, last, seq)
    }

    #[cold]
    fn misfit(&mut self, socket: u32, stream: u32, last: u64, seq: u64) -> u64 {
        if self.first_faults.len() < FIRST_FAULTS {
            self.first_faults.push(format!("socket {socket}, stream {stream}: held {last}, got {seq}"));
        }
        if seq > last {
            self.faults.gaps += seq - last - 1;
            for skipped in last + 1..seq {
                if self.missing.len() >= MISSING_LIMIT {
                    break;
                }
                self.missing.insert((socket, stream, skipped));
            }
            return seq;
        }
        if self.missing.remove(&(socket, stream, seq)) {
            self.faults.gaps -= 1;
            self.faults.reorders += 1;
        } else {
            self.faults.doubles += 1;
        }
        last
    }

    /// Counts `what` in one of the named counters.
    pub fn count(map: &mut BTreeMap<String, u64>, what: &[u8]) {
        match std::str::from_utf8(what).ok().and_then(|name| map.get_mut(name)) {
            Some(count) => *count += 1,
            None => {
                map.insert(String::from_utf8_lossy(what).into_owned(), 1);
            }
        }
    }

    /// Acknowledgements that never came.
    pub fn missing_acks(&self) -> u64 {
        self.counts.offered.saturating_sub(self.counts.acked + self.counts.refused)
    }

    /// Deliveries that acknowledged sends owe and nobody got, be it in a snapshot.
    pub fn missing_deliveries(&self) -> u64 {
        self.counts.owed.saturating_sub(self.counts.deliveries + self.counts.replaced)
    }

    /// The part of a report that says whether everything was right.
    pub fn checks(&self) -> Value {
        let faults = &self.faults;
        json!({
            "gaps": faults.gaps, "doubles": faults.doubles, "reorders": faults.reorders, "unreadable": faults.unreadable,
            "strangers": faults.strangers, "missingAcks": self.missing_acks(), "missingDeliveries": self.missing_deliveries(),
            "replacedBySnapshot": self.counts.replaced,
            "firstFaults": self.first_faults, "closed": self.closed, "errors": self.errors,
        })
    }

    /// Whether every position came once and in order, every frame made sense, no socket was lost and nothing is missing.
    pub fn is_clean(&self) -> bool {
        self.faults == Faults::default()
            && self.closed.is_empty()
            && self.missing_acks() == 0
            && self.missing_deliveries() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Faults, Tally};

    #[test]
    fn positions_are_judged_as_gap_double_or_reorder() -> Result<(), crate::error::LoadError> {
        let mut tally = Tally::new()?;
        let mut last = 10;
        for seq in [11, 12, 15, 13, 15, 16] {
            last = tally.judge(3, 0, last, seq);
        }
        assert_eq!(last, 16);
        // 14 never came; 13 came late; 15 came twice.
        assert_eq!(tally.faults, Faults { gaps: 1, doubles: 1, reorders: 1, ..Faults::default() });
        assert!(!tally.is_clean());
        Ok(())
    }

    #[test]
    fn latency_counts_from_the_intended_time() -> Result<(), crate::error::LoadError> {
        let mut tally = Tally::new()?;
        // A stall of 50 ms that ten messages of a 5 ms timetable sat through: each waited since its own intended time.
        for n in 0..10u64 {
            tally.acks.record(n * 5_000_000, 50_000_000);
        }
        let report = tally.acks.total();
        assert_eq!(report["max"], 50.015);
        assert!(report["p50"].as_f64().is_some_and(|ms| (24.9..=30.1).contains(&ms)), "{report}");
        assert_eq!(tally.deliveries.total(), serde_json::Value::Null);
        Ok(())
    }

    #[test]
    fn what_is_owed_and_did_not_come_is_missing() -> Result<(), crate::error::LoadError> {
        let mut tally = Tally::new()?;
        tally.counts.offered = 5;
        tally.counts.acked = 3;
        tally.counts.refused = 1;
        tally.counts.owed = 30;
        tally.counts.deliveries = 29;
        assert_eq!((tally.missing_acks(), tally.missing_deliveries()), (1, 1));
        assert!(!tally.is_clean());
        Ok(())
    }
}
