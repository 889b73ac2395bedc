//! `slow`: some members stop reading while messages go on. Measured: whether the others notice (their latencies), what the stalled
//! ones cost the server, and whether they catch up without a hole once they read again.

use crate::cli::{Slow, pace};
use crate::clock::{SECOND_NS, now_ns};
use crate::conn::Phase;
use crate::drive::{Plan, connect_all, drive};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::outgoing::Until;
use crate::paced::{Spread, engine_for, senders};
use crate::procfs::{Snapshot, round};
use crate::report::{Reporter, merge};
use crate::resume::behind;
use crate::schedule::Pace;
use serde_json::json;

/// Messages a second when `--rate` is not given.
const USUAL_PER_SECOND: f64 = 100.0;
/// Longest wait for the stalled ones to catch up, nanoseconds.
const PATIENCE_NS: u64 = 30 * SECOND_NS;
/// Close code of a socket that took nothing for too long; expected here.
const TOO_SLOW: &str = "4013";

/// Runs the scenario; the report says whether it was clean.
pub fn run(args: &Slow) -> Result<bool, LoadError> {
    let common = &args.common;
    if args.stalled >= common.sockets {
        return Err(LoadError::Usage("--stalled must be below --sockets".to_owned()));
    }
    let mut reporter = Reporter::new(common.json);
    let pace = match pace(common.rate, common.in_flight, 1)? {
        Pace::Closed { .. } => Pace::Open { per_second: USUAL_PER_SECOND, most: u64::MAX },
        open => open,
    };
    let mut engine = engine_for(common, 0)?;
    connect_all(&mut engine, common.dialing(), &mut reporter)?;
    let stalled: Vec<usize> = (0..args.stalled).collect();
    let mut pairs = senders(&engine, Spread::OneThread, usize::MAX);
    pairs.retain(|(socket, _)| *socket as usize >= args.stalled);
    stall(&mut engine, &stalled);
    let before = Snapshot::take(&common.pid);
    let plan = Plan { senders: pairs, pace, until: Until::Acked, seconds: common.seconds, watched: common.pid.clone() };
    let figures = drive(&mut engine, &plan, &mut reporter)?;
    let stalled_at = Snapshot::take(&common.pid);
    let mut memory = json!({});
    for (at, process) in common.pid.iter().enumerate() {
        let grown = stalled_at.usages[at].rss_kib as i64 - before.usages[at].rss_kib as i64;
        memory[&process.name] =
            json!({"grownKiB": grown, "perStalledKiB": round(grown as f64 / args.stalled.max(1) as f64, 1)});
    }

    let start = now_ns();
    release(&mut engine, &stalled);
    while now_ns() < start + PATIENCE_NS && behind_alive(&engine, &stalled) > 0 {
        engine.turn(start + PATIENCE_NS)?;
    }
    let caught_up_ns = now_ns() - start;
    let closed = engine.tally.closed.remove(TOO_SLOW).unwrap_or(0);
    let left_behind = behind_alive(&engine, &stalled);
    let clean = engine.tally.is_clean() && left_behind == 0;
    let mut report = json!({"final": true, "scenario": "slow", "clean": clean,
        "stalled": {"sockets": args.stalled, "closedTooSlow": closed, "positionsBehind": left_behind,
            "caughtUpS": round(caught_up_ns as f64 / 1e9, 3), "memory": memory}});
    report["otherFramesAfterwards"] = json!(engine.tally.plain);
    merge(&mut report, figures);
    report["checks"] = engine.tally.checks();
    reporter.last(&report)?;
    Ok(clean)
}

/// Stops reading; what a stalled socket will get is not owed within the run.
fn stall(engine: &mut Engine, which: &[usize]) {
    for i in which {
        let conn = &mut engine.conns[*i];
        conn.paused = true;
        for slot in &conn.slots {
            engine.directory.threads[slot.thread as usize].members -= 1;
        }
    }
}

/// Reads again, first what has waited: its readiness was reported long ago.
fn release(engine: &mut Engine, which: &[usize]) {
    for i in which {
        let conn = &mut engine.conns[*i];
        conn.paused = false;
        if conn.phase == Phase::Live {
            for slot in &conn.slots {
                engine.directory.threads[slot.thread as usize].members += 1;
            }
            engine.read(*i);
        }
    }
}

fn behind_alive(engine: &Engine, which: &[usize]) -> usize {
    let alive: Vec<usize> = which.iter().copied().filter(|i| engine.conns[*i].phase == Phase::Live).collect();
    behind(engine, &alive)
}
