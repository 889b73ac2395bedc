//! `idle` and `connect`: sockets that only come and stay. Memory of each, or how many come to ready a second.

use crate::cli::Common;
use crate::clock::{SECOND_NS, now_ns};
use crate::drive::{Dialing, connect, connect_all};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::paced::engine_for;
use crate::procfs::{Snapshot, round};
use crate::report::{Reporter, per_second};
use serde_json::{Value, json};

/// Time given to a server to settle before its memory is read, nanoseconds.
const SETTLE_NS: u64 = 2 * SECOND_NS;

/// Opens the sockets, holds them, and reports what each costs.
pub fn idle(common: &Common) -> Result<bool, LoadError> {
    let mut reporter = Reporter::new(common.json);
    let mut engine = engine_for(common, 0)?;
    let empty = Snapshot::take(&common.pid);
    let connect_ns = connect_all(&mut engine, common.dialing(), &mut reporter)?;
    hold(&mut engine, SETTLE_NS)?;
    let full = Snapshot::take(&common.pid);

    reporter.stage("holding", common.seconds.ceil() as u64);
    let mut earlier = full.clone();
    for second in 1..=common.seconds.ceil() as u64 {
        hold(&mut engine, SECOND_NS)?;
        let now = Snapshot::take(&common.pid);
        let processes = now.report_since(&earlier, &common.pid, 0, 0);
        let idle = round(now.idle_percent_since(&earlier), 1);
        reporter.second(second, &json!({"second": second, "live": engine.live, "acked": 0, "deliveries": 0, "processes": processes, "idlePercent": idle}))?;
        earlier = now;
    }

    let per_socket = |kib: i64| round(kib as f64 / engine.live.max(1) as f64, 3);
    let mut memory = json!({});
    for (at, process) in common.pid.iter().enumerate() {
        let grown = full.usages[at].rss_kib as i64 - empty.usages[at].rss_kib as i64;
        memory[&process.name] = json!({"beforeKiB": empty.usages[at].rss_kib, "afterKiB": full.usages[at].rss_kib, "perSocketKiB": per_socket(grown)});
    }
    let slab = full.machine.slab_kib as i64 - empty.machine.slab_kib as i64;
    let threads: usize = engine.conns.iter().map(|conn| conn.slots.len()).sum();
    let clean = engine.tally.is_clean();
    reporter.last(&json!({
        "final": true, "scenario": "idle", "clean": clean, "sockets": engine.live,
        "threadsPerSocket": round(threads as f64 / engine.live.max(1) as f64, 2),
        "connectS": round(connect_ns as f64 / 1e9, 2), "memory": memory, "kernelSlabPerSocketKiBBothEnds": per_socket(slab),
        "held": {"seconds": common.seconds, "processes": earlier.report_since(&full, &common.pid, 0, 0), "idlePercent": round(earlier.idle_percent_since(&full), 1)},
        "frames": engine.tally.plain, "generator": {"rssKiB": earlier.generator.rss_kib}, "checks": engine.tally.checks(),
    }))?;
    Ok(clean)
}

/// Only answers what comes, for so long.
fn hold(engine: &mut Engine, for_ns: u64) -> Result<(), LoadError> {
    let end = now_ns() + for_ns;
    while now_ns() < end {
        engine.turn(end)?;
    }
    Ok(())
}

/// Opens all sockets once, as fast as `--connecting` at once allow or at `--rate`, and reports how many came to ready a second.
pub fn storm(common: &Common) -> Result<bool, LoadError> {
    let mut reporter = Reporter::new(common.json);
    let mut engine = engine_for(common, 0)?;
    let before = Snapshot::take(&common.pid);
    let all: Vec<usize> = (0..engine.conns.len()).collect();
    let dialing = Dialing { per_second: common.rate, ..common.dialing() };
    let elapsed = connect(&mut engine, &all, dialing, &mut reporter)?;
    let after = Snapshot::take(&common.pid);
    let clean = engine.tally.is_clean() && engine.live == all.len();
    reporter.last(&json!({
        "final": true, "scenario": "connect", "clean": clean, "sockets": all.len(), "ready": engine.live,
        "connecting": common.connecting, "offeredPerS": common.rate.map_or(Value::Null, |rate| json!(rate)),
        "seconds": round(elapsed as f64 / 1e9, 3), "readyPerS": per_second(engine.live as u64, elapsed), "readyMs": engine.tally.ready.total(),
        "processes": after.report_since(&before, &common.pid, 0, engine.live as u64),
        "generator": {"cpuS": round(after.generator.cpu_s - before.generator.cpu_s, 2)},
        "idlePercent": round(after.idle_percent_since(&before), 1), "checks": engine.tally.checks(),
    }))?;
    Ok(clean)
}
