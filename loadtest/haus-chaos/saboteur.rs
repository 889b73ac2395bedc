//! The planted bugs and how to provoke each: name in `HAUS_SABOTEUR`, a workload and strikes that make it bite, and the
//! anomalies under any of which the checker must catch it. The bugs themselves live in the server, behind the feature
//! `saboteur`, and in `saboteur/*.sql`, which changes the database's function; this table knows only their names.

use crate::plan::{Plan, Strike, Workload};

/// The setting that names the planted bug.
pub const SWITCH: &str = "HAUS_SABOTEUR";

macro_rules! planted {
    ($file:literal) => {
        concat!(include_str!("saboteur/swap.sql"), include_str!(concat!("saboteur/", $file)))
    };
}

/// The bugs that live in the database's own function, as statements for its owner.
const STATEMENTS: &[(&str, &str)] = &[
    ("nonce-before-lock", planted!("nonce-before-lock.sql")),
    ("refused-row-number", planted!("refused-row-number.sql")),
    ("sequence-not-lock", planted!("sequence-not-lock.sql")),
];

/// What the database's owner has to run for the bug that these settings of the nodes name, where it is one of the
/// database's.
pub fn statements(settings: &[(String, String)]) -> Option<&'static str> {
    let (_, bug) = settings.iter().find(|(name, _)| name == SWITCH)?;
    STATEMENTS.iter().find(|(name, _)| name == bug).map(|(_, statements)| *statements)
}

/// One planted bug.
#[derive(Debug)]
pub struct Bug {
    /// Its name, as in `HAUS_SABOTEUR`.
    pub name: &'static str,
    /// At least one of these must be named.
    pub expected: &'static [&'static str],
    workload: fn() -> Workload,
    strikes: &'static [(u64, Strike)],
    seconds: u64,
}

impl Bug {
    /// The history that provokes it.
    pub fn plan(&self, seed: u64) -> Plan {
        let strikes = self.strikes.to_vec();
        let name = format!("{}-{seed}", self.name);
        Plan { name, seed, nodes: 2, seconds: self.seconds, workload: (self.workload)(), strikes }
    }
}

/// Nobody leaves, stalls or errs: what is found has one cause.
fn calm() -> Workload {
    Workload {
        people: 12,
        groups: 6,
        directs: 6,
        sends_per_s: 1200,
        twin_percent: 0,
        repeat_percent: 0,
        conflict_percent: 0,
        trespass_percent: 0,
        churn_every_ms: 0,
        away_every_ms: 0,
        slow_every_ms: 0,
        rest_senders: 0,
        readers: 0,
        ..Workload::default()
    }
}

fn coming_and_going() -> Workload {
    Workload { away_every_ms: 150, away_ms: (100, 900), ..calm() }
}

fn readers_that_stall() -> Workload {
    Workload { content_bytes: 3000, sends_per_s: 1500, slow_every_ms: 400, slow_ms: (1500, 4000), ..calm() }
}

fn twins() -> Workload {
    Workload { twin_percent: 60, ..calm() }
}

fn hot_on_two_nodes() -> Workload {
    Workload { groups: 2, group_members: 12, directs: 0, sends_per_s: 2000, rest_senders: 4, ..calm() }
}

fn kicked_while_away() -> Workload {
    Workload { churn_every_ms: 30, away_every_ms: 120, away_ms: (400, 1500), ..calm() }
}

fn conflicts() -> Workload {
    Workload { conflict_percent: 15, ..calm() }
}

fn kicked() -> Workload {
    Workload { churn_every_ms: 30, ..calm() }
}

fn readers() -> Workload {
    Workload { readers: 6, rest_senders: 2, ..calm() }
}

const POSTGRES_DIES: &[(u64, Strike)] =
    &[(700, Strike::PostgresCrash { down_ms: 100 }), (700, Strike::PostgresKill { down_ms: 100 })];
/// Short pauses, so that the load ends soon after Redis is back: what was lost last is followed by nothing.
const REDIS_DIES: &[(u64, Strike)] = &[(50, Strike::RedisKill { down_ms: 2500 })];
const CUTS: &[(u64, Strike)] = &[(400, Strike::CutSockets { node: 0 }), (400, Strike::CutSockets { node: 1 })];
const NONE: &[(u64, Strike)] = &[];

/// Every planted bug.
pub const BUGS: &[Bug] = &[
    // An update reaches sockets before its commit, which a dying database then takes back.
    Bug { name: "publish-before-commit", expected: &["A5", "A6"], workload: calm, strikes: POSTGRES_DIES, seconds: 10 },
    // A resume reads `>= since`.
    Bug { name: "cursor-ge", expected: &["A2"], workload: coming_and_going, strikes: CUTS, seconds: 5 },
    // A lost courier connection starts no poll.
    Bug { name: "ignore-disconnect", expected: &["A4", "A10"], workload: calm, strikes: REDIS_DIES, seconds: 6 },
    // A full outbox drops updates instead of marking the session lagging.
    Bug { name: "drop-full-queue", expected: &["A4", "A10"], workload: readers_that_stall, strikes: NONE, seconds: 10 },
    // The nonce is looked up before the thread's lock is held.
    Bug { name: "nonce-before-lock", expected: &["A2"], workload: twins, strikes: NONE, seconds: 8 },
    // `seq` comes from a sequence: numbers commit out of order, and are lost with their transactions.
    Bug {
        name: "sequence-not-lock",
        expected: &["A3", "A4", "A10"],
        workload: hot_on_two_nodes,
        strikes: POSTGRES_DIES,
        seconds: 8,
    },
    // A resume does not look at the stay again.
    Bug { name: "no-recheck-on-resume", expected: &["A7"], workload: kicked_while_away, strikes: CUTS, seconds: 8 },
    // A refused row of a batch takes a number all the same.
    Bug { name: "refused-row-number", expected: &["A4"], workload: conflicts, strikes: NONE, seconds: 5 },
    // The reply is given before the commit.
    Bug { name: "ack-before-commit", expected: &["A1"], workload: calm, strikes: POSTGRES_DIES, seconds: 10 },
    // `member.left` does not end delivery to the one who left.
    Bug { name: "kick-not-applied", expected: &["A7"], workload: kicked, strikes: NONE, seconds: 6 },
    // A resume brings the first 50 updates and calls itself done.
    Bug { name: "resume-truncated", expected: &["A9"], workload: coming_and_going, strikes: CUTS, seconds: 6 },
    // History comes from a copy that is a second old.
    Bug { name: "stale-history", expected: &["A11"], workload: readers, strikes: NONE, seconds: 5 },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BUGS, STATEMENTS, SWITCH};

    #[test]
    fn statements_belong_to_bugs() {
        for (name, statements) in STATEMENTS {
            assert!(BUGS.iter().any(|bug| bug.name == *name), "{name}");
            assert!(statements.contains("pg_temp.swap("), "{name}");
            let settings = [(SWITCH.to_owned(), (*name).to_owned())];
            assert_eq!(super::statements(&settings), Some(*statements));
        }
        assert_eq!(super::statements(&[(SWITCH.to_owned(), "cursor-ge".to_owned())]), None);
    }

    #[test]
    fn names_are_unique_and_expectations_are_keys_of_the_report() {
        let names: BTreeSet<&str> = BUGS.iter().map(|bug| bug.name).collect();
        assert_eq!(names.len(), BUGS.len());
        let number = |key: &&str| key.strip_prefix('A').and_then(|number| number.parse::<u8>().ok());
        for bug in BUGS {
            assert!(!bug.expected.is_empty(), "{}", bug.name);
            assert!(bug.expected.iter().all(|key| number(key).is_some_and(|number| (1..=18).contains(&number))));
            assert!(bug.plan(1).seconds > 0);
        }
    }
}
