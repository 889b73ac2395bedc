//! What a check found: anomalies by name, obligations by count, and the first findings in words.
//! The names are those of the project's list A1–A18; all are printed, those not judged yet at 0.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A way in which a history breaks the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anomaly {
    /// A1: acknowledged at a `seq` where the final log has something else or nothing.
    LostAck,
    /// A2: one nonce at two places of the log, or an update handed to one session twice.
    Duplicate,
    /// A3: updates of a session out of order.
    Reorder,
    /// A4: a session went on past updates it was entitled to, or the log left out a number.
    Skip,
    /// A5: content or place that differs from the log.
    Divergence,
    /// A6: a message that nobody sent, or that is not in the log.
    Phantom,
    /// A7: delivered outside every stay of the reader.
    Unauthorised,
    /// A9: `resumed` (or `denied`) while something was still due.
    SilentTruncation,
    /// A10: below the head after everything healed.
    Stall,
    /// A11: a page begun after an acknowledgement lacks the message, or is out of order.
    StaleReadBack,
    /// A18: refused for good, and yet in the log.
    FalseNegative,
}

/// Every key of the report, in order.
const ANOMALY_KEYS: usize = 18;
/// Findings kept in words; beyond it only counts grow.
const FINDINGS_MAX: usize = 20;

impl Anomaly {
    /// Its number in the list A1–A18.
    pub const fn number(self) -> usize {
        match self {
            Self::LostAck => 1,
            Self::Duplicate => 2,
            Self::Reorder => 3,
            Self::Skip => 4,
            Self::Divergence => 5,
            Self::Phantom => 6,
            Self::Unauthorised => 7,
            Self::SilentTruncation => 9,
            Self::Stall => 10,
            Self::StaleReadBack => 11,
            Self::FalseNegative => 18,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::LostAck => "lost-ack",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Skip => "skip",
            Self::Divergence => "divergence",
            Self::Phantom => "phantom",
            Self::Unauthorised => "unauthorised",
            Self::SilentTruncation => "silent-truncation",
            Self::Stall => "stall",
            Self::StaleReadBack => "stale-read-back",
            Self::FalseNegative => "false-negative-send",
        }
    }
}

/// Hard states that a campaign must have reached for its silence to mean something
/// (the "sometimes" assertions of Antithesis).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Obligations {
    /// A node was killed while sends to it were unanswered.
    pub kill_with_sends_in_flight: u64,
    /// A send was committed by a node that died before anybody else heard of it.
    pub kill_between_commit_and_publish: u64,
    /// A repeated nonce was answered with the original.
    pub nonce_hit: u64,
    /// One catch-up replayed more than 100 updates.
    pub resume_over_100: u64,
    /// A node filled a hole of its feed from the log.
    pub hole_filled_from_log: u64,
    /// Updates arrived while Redis was down.
    pub redis_outage_with_deliveries: u64,
    /// Postgres was restarted while sends were unanswered.
    pub postgres_restart_with_sends_in_flight: u64,
}

impl Obligations {
    /// Names of the states never reached.
    pub fn missed(&self) -> Vec<&'static str> {
        let counts = [
            ("a kill with sends in flight", self.kill_with_sends_in_flight),
            ("a kill between commit and publish", self.kill_between_commit_and_publish),
            ("a repeated nonce that hit", self.nonce_hit),
            ("a resume of more than 100 updates", self.resume_over_100),
            ("a hole filled from the log", self.hole_filled_from_log),
            ("deliveries while Redis was down", self.redis_outage_with_deliveries),
            ("a Postgres restart with sends in flight", self.postgres_restart_with_sends_in_flight),
        ];
        counts.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    fn add(&mut self, other: &Self) {
        self.kill_with_sends_in_flight += other.kill_with_sends_in_flight;
        self.kill_between_commit_and_publish += other.kill_between_commit_and_publish;
        self.nonce_hit += other.nonce_hit;
        self.resume_over_100 += other.resume_over_100;
        self.hole_filled_from_log += other.hole_filled_from_log;
        self.redis_outage_with_deliveries += other.redis_outage_with_deliveries;
        self.postgres_restart_with_sends_in_flight += other.postgres_restart_with_sends_in_flight;
    }
}

/// The outcome of one history, or of several added up.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Histories read.
    pub histories: u64,
    /// Distinct sends answered `ok`.
    pub acked: u64,
    /// Updates that arrived on sockets.
    pub deliveries: u64,
    /// Hard states reached.
    pub obligations: Obligations,
    /// The first findings, each `A4 skip: line 17: …`.
    pub findings: Vec<String>,
    counts: [u64; ANOMALY_KEYS],
}

impl Report {
    /// Counts one anomaly; `line` is the line of the history that showed it, 0 for the final log as a whole.
    pub fn found(&mut self, anomaly: Anomaly, line: u64, detail: &str) {
        self.counts[anomaly.number() - 1] += 1;
        if self.findings.len() < FINDINGS_MAX {
            let place = if line == 0 { "final log".to_owned() } else { format!("line {line}") };
            self.findings.push(format!("A{} {}: {place}: {detail}", anomaly.number(), anomaly.label()));
        }
    }

    /// Names (`A1` …) and counts of what was found.
    pub fn named(&self) -> Vec<(String, u64)> {
        let found = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        found.map(|(index, count)| (format!("A{}", index + 1), *count)).collect()
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Adds another history's outcome to this one.
    pub fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.acked += other.acked;
        self.deliveries += other.deliveries;
        self.obligations.add(&other.obligations);
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        let room = FINDINGS_MAX.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.iter().take(room).cloned());
    }
}

/// The last line of `haus-check`, keys in the order of the protocol page.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("histories", &self.histories)?;
        map.serialize_entry("acked", &self.acked)?;
        map.serialize_entry("deliveries", &self.deliveries)?;
        map.serialize_entry("anomalies", &Anomalies(&self.counts))?;
        map.serialize_entry("obligations", &self.obligations)?;
        map.end()
    }
}

struct Anomalies<'a>(&'a [u64; ANOMALY_KEYS]);

impl Serialize for Anomalies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().enumerate().map(|(index, count)| (format!("A{}", index + 1), count)))
    }
}
