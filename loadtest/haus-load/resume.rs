//! `resume`: every socket learns its positions, is cut (or its node is killed), messages are sent meanwhile, and all come back at once
//! with `resume`. Measured: how long until every `resumed`, and whether each then holds every thread up to its head.

use crate::cli::{Resume, pace};
use crate::clock::{SECOND_NS, now_ns};
use crate::conn::{Conn, Phase, make_room};
use crate::drive::{Dialing, connect, connect_all};
use crate::engine::{Ended, Engine};
use crate::error::{LoadError, doing};
use crate::outgoing::Until;
use crate::paced::engine_for;
use crate::procfs::{Snapshot, round};
use crate::report::{Reporter, per_second};
use crate::schedule::Schedule;
use crate::tally::Tally;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};

/// Sockets that stay and send while the others are away.
const SENDERS: usize = 64;
/// Sends in flight while the others are away.
const IN_FLIGHT: u64 = 64;
/// How often a socket that was turned away dials at most.
const ROUNDS: usize = 5;
/// Longest wait for a killed node's sockets to end, for the sends, and for the last `resumed`; nanoseconds.
const PATIENCE_NS: u64 = 60 * SECOND_NS;

/// Runs the scenario; the report says whether it was clean.
pub fn run(args: &Resume) -> Result<bool, LoadError> {
    let common = &args.common;
    if args.kill_pid.is_some() && common.url.len() < 2 {
        return Err(LoadError::Usage("--kill-pid needs a second --url to come back to".to_owned()));
    }
    make_room(common.sockets + SENDERS)?;
    let mut reporter = Reporter::new(common.json);
    let mut engine = engine_for(common, 0)?;
    let away: Vec<usize> = (0..common.sockets).collect();
    add_senders(&mut engine);
    for i in &away {
        engine.conns[*i].url = 0;
    }
    let first_ns = connect_all(&mut engine, common.dialing(), &mut reporter)?;

    cut(&mut engine, &away, args.kill_pid)?;
    let cut_ns = now_ns();
    let sent = send_meanwhile(&mut engine, common.sockets, args.away_sends)?;

    let others = engine.targets.len() - 1;
    for i in &away {
        engine.conns[*i].url = if others == 0 { 0 } else { (1 + i % others) as u8 };
    }
    engine.resumed = 0;
    let before = Snapshot::take(&common.pid);
    let start = now_ns();
    let dialing = Dialing { per_second: common.rate, ..common.dialing() };
    let redials = come_back(&mut engine, &away, dialing, &mut reporter)?;
    let ready_ns = now_ns() - start;
    wait(&mut engine, "the last resumed", |engine| engine.resumed >= engine.live.saturating_sub(SENDERS))?;
    let resumed_ns = now_ns() - start;
    let after = Snapshot::take(&common.pid);
    let behind = behind(&engine, &away);
    let clean = engine.tally.is_clean() && behind == 0 && engine.resumed == away.len();
    reporter.last(&json!({
        "final": true, "scenario": "resume", "clean": clean, "sockets": away.len(), "resumed": engine.resumed,
        "killed": args.kill_pid, "firstConnectS": round(first_ns as f64 / 1e9, 3), "sentWhileAway": sent,
        "readyS": round(ready_ns as f64 / 1e9, 3), "resumedS": round(resumed_ns as f64 / 1e9, 3),
        "resumedPerS": per_second(engine.resumed as u64, resumed_ns), "sinceCutS": round((now_ns() - cut_ns) as f64 / 1e9, 3),
        "redials": redials, "resumedMs": engine.tally.resumes.total(), "updatesReplayed": engine.tally.counts.deliveries.saturating_sub(engine.tally.counts.owed),
        "positionsBehind": behind, "frames": engine.tally.plain,
        "processes": after.report_since(&before, &common.pid, 0, engine.resumed as u64),
        "idlePercent": round(after.idle_percent_since(&before), 1), "checks": engine.tally.checks(),
    }))?;
    Ok(clean)
}

/// Opens all sockets, and those that were turned away again, as a client would. Returns how many dials were repeated, by cause.
fn come_back(
    engine: &mut Engine,
    away: &[usize],
    dialing: Dialing,
    reporter: &mut Reporter,
) -> Result<BTreeMap<String, u64>, LoadError> {
    let mut redials = BTreeMap::new();
    let mut left = away.to_vec();
    for _ in 0..ROUNDS {
        connect(engine, &left, dialing, reporter)?;
        left.retain(|i| engine.conns[*i].phase == Phase::Ended);
        if left.is_empty() {
            break;
        }
        for (why, count) in std::mem::take(&mut engine.tally.closed) {
            *redials.entry(why).or_insert(0) += count;
        }
    }
    for _ in left {
        Tally::count(&mut engine.tally.closed, b"never came back");
    }
    Ok(redials)
}

/// Adds the sockets that stay, on the last url, their people spread over the file.
fn add_senders(engine: &mut Engine) {
    let (people, last) = (engine.people.len(), engine.targets.len() - 1);
    for n in 0..SENDERS {
        engine.conns.push(Conn::new((n * people / SENDERS) as u32, last as u8));
    }
}

/// Closes the sockets, or kills their node and waits until each has noticed.
fn cut(engine: &mut Engine, away: &[usize], kill_pid: Option<u32>) -> Result<(), LoadError> {
    let Some(pid) = kill_pid else {
        away.iter().for_each(|i| engine.end(*i, Ended::OnPurpose));
        return Ok(());
    };
    let pid = Pid::from_raw(pid as i32).ok_or_else(|| LoadError::Usage("--kill-pid 0".to_owned()))?;
    kill_process(pid, Signal::KILL).map_err(|e| doing("--kill-pid")(e.into()))?;
    wait(engine, "the killed node's sockets to end", |engine| engine.live <= SENDERS)?;
    engine.tally.closed.clear();
    Ok(())
}

/// Sends `count` messages from the sockets that stayed, to all their threads in turn; returns how many were acknowledged.
fn send_meanwhile(engine: &mut Engine, first: usize, count: u64) -> Result<u64, LoadError> {
    let named: HashSet<&[u8]> = engine.people.iter().flat_map(|p| &p.threads).map(String::as_bytes).collect();
    let threads = &engine.directory.threads;
    let wanted = |thread: u32| named.is_empty() || named.contains(&threads[thread as usize].id[..]);
    let stayed = engine.conns.iter().enumerate().skip(first);
    let pairs: Vec<(usize, u32)> = stayed
        .flat_map(|(i, conn)| conn.slots.iter().filter(|slot| wanted(slot.thread)).map(move |slot| (i, slot.thread)))
        .collect();
    if count == 0 || pairs.is_empty() {
        return Ok(0);
    }
    let start = now_ns();
    let mut schedule = Schedule::new(pace(None, Some(IN_FLIGHT), IN_FLIGHT)?, start, PATIENCE_NS as f64 / 1e9);
    let mut senders = pairs.iter().cycle();
    while engine.tally.counts.acked + engine.tally.counts.refused < count && !schedule.over(now_ns()) {
        while engine.tally.counts.offered < count {
            let Some(intended) = schedule.due(now_ns(), engine.in_flight(Until::Acked)) else { break };
            let Some((socket, thread)) = senders.next() else { break };
            engine.send(*socket, *thread, intended);
        }
        engine.turn(schedule.wake_ns())?;
    }
    Ok(engine.tally.counts.acked)
}

/// Turns the loop until `done`, or fails naming what was waited for.
fn wait(engine: &mut Engine, what: &str, done: impl Fn(&Engine) -> bool) -> Result<(), LoadError> {
    let end = now_ns() + PATIENCE_NS;
    while !done(engine) {
        if now_ns() > end {
            return Err(LoadError::Failed(format!("waited {} s for {what}", PATIENCE_NS / SECOND_NS)));
        }
        engine.turn(end)?;
    }
    Ok(())
}

/// Positions below the highest one anybody has seen of that thread.
pub fn behind(engine: &Engine, which: &[usize]) -> usize {
    let slots = which.iter().flat_map(|i| &engine.conns[*i].slots);
    slots.filter(|slot| slot.last < engine.directory.threads[slot.thread as usize].head).count()
}
