//! `receipts`: every member has the thread open and marks each message read as it comes; the server gathers the marks and tells the
//! others in coalesced frames. Measured: how long a mark takes, and how many frames the marks of so many people become.

use crate::cli::{Common, pace};
use crate::clock::{SECOND_NS, now_ns};
use crate::drive::{Plan, connect_all, drive};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::outgoing::Until;
use crate::paced::{Spread, engine_for, senders};
use crate::procfs::{per, round};
use crate::report::{Reporter, merge, per_second};
use crate::schedule::Pace;
use serde_json::json;

/// Messages a second when `--rate` is not given; each becomes a mark of every member.
const USUAL_PER_SECOND: f64 = 10.0;
/// Longest wait for all threads to be open, and for the last marks; nanoseconds.
const PATIENCE_NS: u64 = 15 * SECOND_NS;
/// The server tells receipts at most this often: waited for after the last mark.
const LAST_FRAMES_NS: u64 = 3 * SECOND_NS;

/// Runs the scenario; the report says whether it was clean.
pub fn run(common: &Common) -> Result<bool, LoadError> {
    let mut reporter = Reporter::new(common.json);
    let pace = match pace(common.rate, common.in_flight, 1)? {
        Pace::Closed { .. } => Pace::Open { per_second: USUAL_PER_SECOND, most: u64::MAX },
        open => open,
    };
    let mut engine = engine_for(common, 0)?;
    engine.marks.wanted = true;
    connect_all(&mut engine, common.dialing(), &mut reporter)?;
    let pairs = senders(&engine, Spread::OneThread, usize::MAX);
    for (socket, thread) in &pairs {
        engine.open_thread(*socket as usize, *thread);
    }
    settle(&mut engine, PATIENCE_NS, |engine| engine.marks.opened >= pairs.len())?;
    if engine.marks.opened < pairs.len() {
        return Err(LoadError::Failed(format!(
            "{} of {} sockets have the thread open",
            engine.marks.opened,
            pairs.len()
        )));
    }
    let members = pairs.len();
    let start = now_ns();
    let plan = Plan { senders: pairs, pace, until: Until::Acked, seconds: common.seconds, watched: common.pid.clone() };
    let figures = drive(&mut engine, &plan, &mut reporter)?;
    settle(&mut engine, PATIENCE_NS, |engine| engine.marks.answered + engine.marks.refused >= engine.marks.sent)?;
    let elapsed = now_ns() - start;
    settle(&mut engine, LAST_FRAMES_NS, |_| false)?;
    let frames = engine.tally.plain.get("receipts").copied().unwrap_or(0);
    let unanswered = engine.marks.sent - engine.marks.answered - engine.marks.refused;
    let clean = engine.tally.is_clean() && unanswered == 0 && engine.marks.refused == 0;
    let mut report = json!({"final": true, "scenario": "receipts", "clean": clean, "members": members,
        "marks": {"sent": engine.marks.sent, "answered": engine.marks.answered, "refused": engine.marks.refused, "unanswered": unanswered,
            "perS": per_second(engine.marks.answered, elapsed), "ms": engine.tally.marks.total()},
        "receiptFrames": {"total": frames, "perSocket": per(frames as f64, members as u64),
            "perSocketAndS": round(frames as f64 / members.max(1) as f64 / ((elapsed + LAST_FRAMES_NS) as f64 / 1e9), 3)}});
    merge(&mut report, figures);
    report["checks"] = engine.tally.checks();
    reporter.last(&report)?;
    Ok(clean)
}

/// Turns the loop until `done`, or for `most_ns`.
fn settle(engine: &mut Engine, most_ns: u64, done: impl Fn(&Engine) -> bool) -> Result<(), LoadError> {
    let end = now_ns() + most_ns;
    while !done(engine) && now_ns() < end {
        engine.turn(end)?;
    }
    Ok(())
}
