//! Carries a plan out: opens the sockets, sends by the timetable, reports each second, waits for what is owed, and sums up.

use crate::clock::{SECOND_NS, now_ns};
use crate::conn::Phase;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::outgoing::Until;
use crate::procfs::{Snapshot, Watched, per, round};
use crate::report::{Reporter, per_second};
use crate::schedule::{Pace, Schedule};
use serde_json::{Value, json};

/// Longest wait for replies and deliveries still owed when sending is over, nanoseconds.
const DRAIN_NS: u64 = 15 * SECOND_NS;
/// Longest time without any handshake getting done, nanoseconds.
const CONNECT_STALL_NS: u64 = 30 * SECOND_NS;
/// Messages issued in one turn before sockets are looked at again.
const ISSUES_A_TURN: u32 = 1024;

/// How sockets are opened.
#[derive(Debug, Clone, Copy)]
pub struct Dialing {
    /// At most this many handshakes at once.
    pub at_once: usize,
    /// So many a second; `None`: as fast as `at_once` allows.
    pub per_second: Option<f64>,
}

/// What to send, how fast and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// (socket, thread) pairs, taken in turn.
    pub senders: Vec<(u32, u32)>,
    /// Open or closed loop.
    pub pace: Pace,
    /// When a message is no longer in flight.
    pub until: Until,
    /// How long to send, seconds.
    pub seconds: f64,
    /// Processes to watch.
    pub watched: Vec<Watched>,
}

/// Opens every socket of `which` and waits until each is live or has ended. Returns nanoseconds from the first dial to the last.
pub fn connect(
    engine: &mut Engine,
    which: &[usize],
    dialing: Dialing,
    reporter: &mut Reporter,
) -> Result<u64, LoadError> {
    reporter.stage("connecting", which.len() as u64);
    let pace = match dialing.per_second {
        Some(per_second) => Pace::Open { per_second, most: dialing.at_once as u64 },
        None => Pace::Closed { in_flight: dialing.at_once as u64 },
    };
    let start = now_ns();
    let mut schedule = Schedule::new(pace, start, f64::from(u32::MAX));
    let mut waiting = which.iter().copied();
    let (mut left, mut moved_ns, mut settled) = (which.len(), start, 0);
    while left > 0 || engine.handshakes > 0 {
        while left > 0 && schedule.due(now_ns(), engine.handshakes as u64).is_some() {
            let Some(i) = waiting.next() else { break };
            engine.dial(i)?;
            left -= 1;
        }
        let may_dial = left > 0 && engine.handshakes < dialing.at_once;
        engine.turn(if may_dial { schedule.wake_ns() } else { u64::MAX })?;
        let now = now_ns();
        let done = which.len() - left - engine.handshakes;
        if done != settled {
            (settled, moved_ns) = (done, now);
            reporter.step(done as u64, String::new());
        }
        if now > moved_ns + CONNECT_STALL_NS {
            return Err(LoadError::Failed(format!("{} handshakes stand still: {}", engine.handshakes, stuck(engine))));
        }
    }
    reporter.end_stage();
    Ok(now_ns() - start)
}

/// Opens all sockets; fails unless every one is live.
pub fn connect_all(engine: &mut Engine, dialing: Dialing, reporter: &mut Reporter) -> Result<u64, LoadError> {
    let all: Vec<usize> = (0..engine.conns.len()).collect();
    let elapsed = connect(engine, &all, dialing, reporter)?;
    if engine.live < all.len() {
        let (closed, errors) = (&engine.tally.closed, &engine.tally.errors);
        return Err(LoadError::Failed(format!(
            "{} of {} sockets live; closed {closed:?}, errors {errors:?}",
            engine.live,
            all.len()
        )));
    }
    Ok(elapsed)
}

fn stuck(engine: &Engine) -> String {
    let count = |phase| engine.conns.iter().filter(|conn| conn.phase == phase).count();
    format!(
        "connecting {}, upgrading {}, waiting for hello {}, for auth {}, for the list {}",
        count(Phase::Connecting),
        count(Phase::Upgrading),
        count(Phase::Greeting),
        count(Phase::Authenticating),
        count(Phase::Listing)
    )
}

/// Sends by `plan` and returns the figures. Rates and CPU are of the time of sending; latencies also of what came after.
pub fn drive(engine: &mut Engine, plan: &Plan, reporter: &mut Reporter) -> Result<Value, LoadError> {
    if plan.senders.is_empty() {
        return Err(LoadError::Usage("no socket has a thread to send to".to_owned()));
    }
    reporter.stage("measuring", plan.seconds.ceil() as u64);
    let before = Snapshot::take(&plan.watched);
    let start = now_ns();
    let from = engine.tally.counts;
    let mut schedule = Schedule::new(plan.pace, start, plan.seconds);
    let mut senders = plan.senders.iter().cycle();
    let mut second = Second { number: 0, counts: from, snapshot: before.clone() };
    let mut held_back = 0u64;
    while !schedule.over(now_ns()) {
        for _ in 0..ISSUES_A_TURN {
            let Some(intended) = schedule.due(now_ns(), engine.in_flight(plan.until)) else { break };
            let Some((socket, thread)) = senders.next().copied() else { break };
            held_back += u64::from(!engine.send(socket as usize, thread, intended));
        }
        engine.turn(schedule.wake_ns())?;
        let now = now_ns();
        if now >= start + (second.number + 1) * SECOND_NS {
            second.turn(engine, plan, reporter)?;
        }
        if engine.live == 0 || now > start + (plan.seconds * SECOND_NS as f64) as u64 + DRAIN_NS {
            break;
        }
    }
    let elapsed = now_ns() - start;
    let counts = engine.tally.counts;
    let after = Snapshot::take(&plan.watched);
    drain(engine)?;
    reporter.end_stage();
    let deliveries = counts.deliveries - from.deliveries;
    let acked = counts.acked - from.acked;
    let reads = counts.reads - from.reads;
    let generator_s = after.generator.cpu_s - before.generator.cpu_s;
    let remote = engine.tally.remote.total();
    Ok(json!({
        "sockets": engine.live, "seconds": round(elapsed as f64 / SECOND_NS as f64, 3),
        "offered": counts.offered - from.offered, "offeredPerS": per_second(counts.offered - from.offered, elapsed),
        "acked": acked, "ackedPerS": per_second(acked, elapsed),
        "deliveries": deliveries, "deliveriesPerS": per_second(deliveries, elapsed),
        "framesPerRead": per((counts.frames - from.frames) as f64, reads),
        "frameBytes": per((counts.delivery_bytes - from.delivery_bytes) as f64, deliveries).map(f64::round),
        "ackMs": engine.tally.acks.total(), "deliveryMs": engine.tally.deliveries.total(), "deliveryOtherUrlMs": remote,
        "otherFrames": engine.tally.plain,
        "processes": after.report_since(&before, &plan.watched, deliveries, acked),
        "generator": {"cpuS": round(generator_s, 2), "cpuUsPerDelivery": per(generator_s * 1e6, deliveries),
            "rssKiB": after.generator.rss_kib, "heldBack": held_back},
        "idlePercent": round(after.idle_percent_since(&before), 1),
    }))
}

/// Waits until nothing is owed any more, or too long.
fn drain(engine: &mut Engine) -> Result<(), LoadError> {
    let end = now_ns() + DRAIN_NS;
    while now_ns() < end
        && engine.live > 0
        && (engine.tally.missing_acks() > 0 || engine.tally.missing_deliveries() > 0)
    {
        engine.turn(end)?;
    }
    Ok(())
}

/// The running second of a report.
struct Second {
    number: u64,
    counts: crate::tally::Counts,
    snapshot: Snapshot,
}

impl Second {
    fn turn(&mut self, engine: &mut Engine, plan: &Plan, reporter: &Reporter) -> Result<(), LoadError> {
        self.number += 1;
        let snapshot = Snapshot::take(&plan.watched);
        let now = engine.tally.counts;
        let (deliveries, acked) = (now.deliveries - self.counts.deliveries, now.acked - self.counts.acked);
        let figures = json!({
            "second": self.number, "offered": now.offered - self.counts.offered, "acked": acked, "deliveries": deliveries,
            "inFlight": engine.in_flight(plan.until),
            "ackMs": engine.tally.acks.turn_second(), "deliveryMs": engine.tally.deliveries.turn_second(),
            "deliveryOtherUrlMs": engine.tally.remote.turn_second(),
            "processes": snapshot.report_since(&self.snapshot, &plan.watched, deliveries, acked),
            "idlePercent": round(snapshot.idle_percent_since(&self.snapshot), 1),
        });
        (self.counts, self.snapshot) = (now, snapshot);
        reporter.second(self.number, &figures)
    }
}
