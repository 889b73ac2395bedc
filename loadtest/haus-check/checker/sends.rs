//! Every send and what became of it. A send without an answer may or may not have happened (`info` in Jepsen's
//! words) and breaks nothing either way; only `ok` and a definite refusal oblige the server.
//! A body is known by nonce and hash together, so that a nonce reused for another body is a send of its own.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::record::Fault;
use super::report::{Anomaly, Obligations, Report};
use super::truth::Truth;

/// Deliveries this long after a node stopped or died did not come from its own publish.
const PUBLISH_GRACE_US: u64 = 50_000;

type Body = (Uuid, u64);

#[derive(Debug, Default)]
struct Attempts {
    sent: u32,
    refused: u32,
    acked: bool,
    dup_acked: bool,
    stopped_at_us: Option<u64>,
    was_killed: bool,
    delivered_at_us: Option<u64>,
}

/// All sends of one history.
#[derive(Debug, Default)]
pub struct Sends {
    attempts: HashMap<Body, Attempts>,
    in_flight: HashMap<Body, String>,
    known: HashSet<Uuid>,
    unlogged: Vec<(Body, u64, String)>,
    acked_head: HashMap<Uuid, u64>,
}

impl Sends {
    /// A send left for `node`.
    pub fn sent(&mut self, nonce: Uuid, hash: u64, node: String) {
        self.attempts.entry((nonce, hash)).or_default().sent += 1;
        self.known.insert(nonce);
        self.in_flight.insert((nonce, hash), node);
    }

    /// A send was answered `ok` at `seq`. Returns whether it is the first such answer.
    pub fn acked(&mut self, thread: Uuid, body: Body, seq: u64, dup: bool) -> bool {
        self.in_flight.remove(&body);
        let head = self.acked_head.entry(thread).or_default();
        *head = (*head).max(seq);
        let attempts = self.attempts.entry(body).or_default();
        attempts.dup_acked |= dup;
        !std::mem::replace(&mut attempts.acked, true)
    }

    /// A send was refused for good.
    pub fn refused(&mut self, nonce: Uuid, hash: u64) {
        self.in_flight.remove(&(nonce, hash));
        self.attempts.entry((nonce, hash)).or_default().refused += 1;
    }

    /// A message arrived somewhere.
    pub fn delivered(&mut self, nonce: Uuid, hash: u64, t_us: u64) {
        if let Some(attempts) = self.attempts.get_mut(&(nonce, hash)) {
            attempts.delivered_at_us.get_or_insert(t_us);
        }
    }

    /// A message was seen that the log has not: a phantom, unless it was acknowledged and so is lost (A1).
    pub fn seen_unlogged(&mut self, body: Body, line: u64, what: String) {
        self.unlogged.push((body, line, what));
    }

    /// Highest acknowledged `seq` of the thread so far.
    pub fn acked_head(&self, thread: &Uuid) -> u64 {
        self.acked_head.get(thread).copied().unwrap_or(0)
    }

    /// A fault struck; counts what it met.
    pub fn struck(&mut self, kind: Fault, node: &str, t_us: u64, obligations: &mut Obligations) {
        match kind {
            Fault::NodeStop | Fault::NodeKill => {
                let mut met = false;
                for (body, _) in self.in_flight.iter().filter(|(_, on)| *on == node) {
                    met = true;
                    if let Some(attempts) = self.attempts.get_mut(body).filter(|attempts| attempts.sent == 1) {
                        attempts.stopped_at_us.get_or_insert(t_us);
                        attempts.was_killed |= kind == Fault::NodeKill;
                    }
                }
                if kind == Fault::NodeKill {
                    self.in_flight.retain(|_, on| on != node);
                    obligations.kill_with_sends_in_flight += u64::from(met);
                }
            }
            Fault::PostgresDown => {
                obligations.postgres_restart_with_sends_in_flight += u64::from(!self.in_flight.is_empty());
            }
            _ => {}
        }
    }

    /// A stopped node went on.
    pub fn went_on(&mut self, node: &str) {
        for (body, _) in self.in_flight.iter().filter(|(_, on)| *on == node) {
            if let Some(attempts) = self.attempts.get_mut(body) {
                attempts.stopped_at_us = None;
            }
        }
    }

    /// The last look: refused bodies that are in the log, messages nobody sent, and kills that fell between
    /// commit and publish (sent once before the node stopped, answered `dup` to the one repetition, and first heard of
    /// when the dead node could no longer have told it).
    pub fn finish(&self, truth: &Truth, report: &mut Report) {
        for (thread, seq, nonce, hash) in truth.messages() {
            match self.attempts.get(&(nonce, hash)) {
                Some(attempts) if attempts.sent > 0 && attempts.refused >= attempts.sent => {
                    report.found(Anomaly::FalseNegative, 0, &format!("{thread} {seq}: refused send {nonce} is there"));
                }
                Some(attempts) if attempts.sent > 0 => {}
                _ if self.known.contains(&nonce) => {
                    report.found(Anomaly::Divergence, 0, &format!("{thread} {seq}: {nonce} has another body"));
                }
                _ => report.found(Anomaly::Phantom, 0, &format!("{thread} {seq}: nobody sent {nonce}")),
            }
        }
        for (body, line, what) in &self.unlogged {
            if !self.attempts.get(body).is_some_and(|attempts| attempts.acked) {
                report.found(Anomaly::Phantom, *line, what);
            }
        }
        let between = self.attempts.values().filter(|attempts| {
            let late = attempts.stopped_at_us.zip(attempts.delivered_at_us);
            let untold = late.is_some_and(|(stop, seen)| seen >= stop + PUBLISH_GRACE_US);
            attempts.sent == 2 && attempts.dup_acked && attempts.was_killed && untold
        });
        let between = between.count() as u64;
        report.obligations.kill_between_commit_and_publish += between;
        // What nobody published can only have come from the log.
        report.obligations.hole_filled_from_log += between;
    }
}
