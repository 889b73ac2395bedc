//! What a history does, all from its seed: how people behave and what breaks when. No I/O.

use crate::rig::rng::Rng;

/// How people behave. Rates are for all people together.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Recording clients, one profile each.
    pub people: usize,
    /// GROUP threads, and the members of each.
    pub groups: usize,
    pub group_members: usize,
    /// DIRECT threads between neighbours.
    pub directs: usize,
    /// New messages a second over sockets, all clients together.
    pub sends_per_s: u64,
    /// Length of the content, bytes.
    pub content_bytes: usize,
    /// Of a hundred batches, how many have a send that goes over REST to another node too, with the same nonce.
    pub twin_percent: u64,
    /// Of a hundred acknowledged sends, how many are repeated, with the same body and with another.
    pub repeat_percent: u64,
    pub conflict_percent: u64,
    /// Of a hundred sends, how many go to a thread the sender is not in.
    pub trespass_percent: u64,
    /// Time between kicks, joins and leaves, milliseconds; 0: none.
    pub churn_every_ms: u64,
    /// Time between two clients going away, and for how long, milliseconds.
    pub away_every_ms: u64,
    pub away_ms: (u64, u64),
    /// Time between two clients that stop reading, and for how long, milliseconds.
    pub slow_every_ms: u64,
    pub slow_ms: (u64, u64),
    /// Clients that send over REST as fast as they are answered.
    pub rest_senders: usize,
    /// Clients that read newest pages over REST, one after the other.
    pub readers: usize,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            people: 24,
            groups: 12,
            group_members: 6,
            directs: 12,
            sends_per_s: 2500,
            content_bytes: 60,
            twin_percent: 2,
            repeat_percent: 1,
            conflict_percent: 1,
            trespass_percent: 1,
            churn_every_ms: 150,
            away_every_ms: 900,
            away_ms: (800, 5000),
            slow_every_ms: 4000,
            slow_ms: (500, 2500),
            rest_senders: 2,
            readers: 2,
        }
    }
}

/// One thing that breaks, and for how long (milliseconds). Nodes are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// SIGKILL, restart after.
    NodeKill { node: usize, down_ms: u64 },
    /// SIGSTOP, then SIGKILL: what Postgres commits meanwhile is committed and never told.
    NodeFreezeKill { node: usize, frozen_ms: u64, down_ms: u64 },
    /// SIGSTOP and SIGCONT.
    NodeFreeze { node: usize, frozen_ms: u64 },
    /// SIGTERM: it drains; restart once it ended.
    NodeDrain { node: usize },
    /// SIGKILL of Redis, restart after.
    RedisKill { down_ms: u64 },
    /// Redis answers nothing and closes nothing.
    RedisFreeze { frozen_ms: u64 },
    /// SIGKILL of the postmaster, restart after.
    PostgresKill { down_ms: u64 },
    /// Immediate shutdown of Postgres, restart after.
    PostgresCrash { down_ms: u64 },
    /// The proxy before a node cuts every connection.
    CutSockets { node: usize },
    /// The proxy before a node lets nothing through.
    BlackHole { node: usize, for_ms: u64 },
    /// The proxy before a node is slow and cuts frames to pieces.
    Crawl { node: usize, for_ms: u64 },
}

impl Strike {
    /// A short name for the line of a history.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeKill { .. } => "node-kill",
            Self::NodeFreezeKill { .. } => "node-freeze-kill",
            Self::NodeFreeze { .. } => "node-freeze",
            Self::NodeDrain { .. } => "node-drain",
            Self::RedisKill { .. } => "redis-kill",
            Self::RedisFreeze { .. } => "redis-freeze",
            Self::PostgresKill { .. } => "postgres-kill",
            Self::PostgresCrash { .. } => "postgres-crash",
            Self::CutSockets { .. } => "cut",
            Self::BlackHole { .. } => "black-hole",
            Self::Crawl { .. } => "crawl",
        }
    }
}

/// A history before it happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Names the files of this history.
    pub name: String,
    pub seed: u64,
    pub nodes: usize,
    pub seconds: u64,
    pub workload: Workload,
    /// Strikes and the pause before each, milliseconds. They follow one another; the list starts over until time is up.
    pub strikes: Vec<(u64, Strike)>,
}

impl Plan {
    /// The plan of `seed`: every kind of fault once, in an order and with durations of its own.
    pub fn from_seed(seed: u64, nodes: usize, seconds: u64, workload: Workload) -> Self {
        let mut rng = Rng::new(seed, 1);
        let mut menu: Vec<Strike> = (0..KINDS).map(|kind| strike(kind, nodes as u64, &mut rng)).collect();
        // Fisher and Yates.
        for last in (1..menu.len()).rev() {
            menu.swap(last, usize::try_from(rng.below(last as u64 + 1)).unwrap_or(0));
        }
        // Those that the promise is about come first, so that short histories on busy machines have them too.
        let first = if rng.chance(50) { [1, 6, 3] } else { [5, 3, 1] };
        let first = first.map(|kind| strike(kind, nodes as u64, &mut rng));
        let strikes = first.into_iter().chain(menu).map(|strike| (rng.between(300, 1200), strike)).collect();
        Self { name: format!("seed-{seed}"), seed, nodes, seconds, workload, strikes }
    }
}

/// Kinds of faults in every plan.
const KINDS: u64 = 11;

fn strike(kind: u64, nodes: u64, rng: &mut Rng) -> Strike {
    let node = usize::try_from(rng.below(nodes)).unwrap_or(0);
    match kind {
        0 => Strike::NodeKill { node, down_ms: rng.between(50, 800) },
        1 => Strike::NodeFreezeKill { node, frozen_ms: rng.between(40, 120), down_ms: rng.between(50, 800) },
        2 => Strike::NodeFreeze { node, frozen_ms: rng.between(300, 2000) },
        3 => Strike::RedisKill { down_ms: rng.between(300, 2000) },
        4 => Strike::RedisFreeze { frozen_ms: rng.between(500, 2500) },
        5 => Strike::PostgresKill { down_ms: rng.between(50, 500) },
        6 => Strike::PostgresCrash { down_ms: rng.between(50, 800) },
        7 => Strike::CutSockets { node },
        8 => Strike::BlackHole { node, for_ms: rng.between(300, 1500) },
        9 => Strike::NodeDrain { node },
        _ => Strike::Crawl { node, for_ms: rng.between(300, 1200) },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Plan, Workload};

    fn strikes(seed: u64) -> Vec<(u64, super::Strike)> {
        Plan::from_seed(seed, 3, 20, Workload::default()).strikes
    }

    #[test]
    fn a_seed_replays_and_another_differs() {
        assert_eq!(strikes(5), strikes(5));
        assert_ne!(strikes(5), strikes(6));
    }

    #[test]
    fn every_kind_of_fault_is_in_every_plan() {
        let names: BTreeSet<&str> = strikes(9).iter().map(|(_, strike)| strike.name()).collect();
        assert_eq!(names.len() as u64, super::KINDS);
    }
}
