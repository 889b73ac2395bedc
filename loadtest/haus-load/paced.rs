//! `fanout`, `rooms`, `sends` and `hot`: who sends to which thread, the warm-up, the floors around the run, and the ratio.

use crate::cli::{Common, Paced, pace};
use crate::conn::{Target, make_room};
use crate::database_floor;
use crate::directory::ID_BYTES;
use crate::drive::{Plan, connect_all, drive};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::floor::{self, FloorPlan};
use crate::floor_server::Mode;
use crate::outgoing::{FLOOR_FRAME_MIN, Peer, Until};
use crate::procfs::round;
use crate::report::{Reporter, merge};
use crate::schedule::Pace;
use crate::tokens::{self, Person};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Messages whose arrival everywhere is followed in an open loop that has a cap.
const RING_LIMIT: u64 = 1 << 16;
/// Frame length assumed for a floor when the server's is not known.
const USUAL_FRAME_BYTES: f64 = 560.0;
/// The shortest warm-up, seconds: one is needed to learn how long the server's frames are.
const SHORTEST_WARM_UP_S: f64 = 0.2;

/// Which threads are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The largest alone.
    OneThread,
    /// All.
    AllThreads,
}

/// The four scenarios that differ only in who sends where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One thread, all its members; judged by deliveries.
    Fanout,
    /// All threads; judged by deliveries.
    Rooms,
    /// All threads; judged by replies.
    Sends,
    /// One thread; judged by replies.
    Hot,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Rooms => "rooms",
            Self::Sends => "sends",
            Self::Hot => "hot",
        }
    }

    fn spread(self) -> Spread {
        match self {
            Self::Fanout | Self::Hot => Spread::OneThread,
            Self::Rooms | Self::Sends => Spread::AllThreads,
        }
    }

    fn usual_in_flight(self) -> u64 {
        match self {
            Self::Fanout => 32,
            Self::Rooms => 64,
            Self::Sends | Self::Hot => 1000,
        }
    }

    fn until(self) -> Until {
        match self {
            Self::Fanout | Self::Rooms => Until::Delivered,
            Self::Sends | Self::Hot => Until::Acked,
        }
    }
}

/// An engine for a server: targets, people and sockets of the command line.
pub fn engine_for(common: &Common, in_flight: u64) -> Result<Engine, LoadError> {
    make_room(common.sockets)?;
    let people = people_of(common)?;
    let targets = common.url.iter().map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>()?;
    Engine::new(Peer::Haus, targets, people, common.sockets, in_flight)
}

/// The people of the tokens file, no more than there are sockets.
fn people_of(common: &Common) -> Result<Vec<Person>, LoadError> {
    let path = common.tokens.as_ref().ok_or_else(|| LoadError::Usage("--tokens is needed".to_owned()))?;
    tokens::load(path, common.sockets.max(1))
}

/// The pairs that send: for one thread every member of the largest, for many each socket with each of its threads, well mixed.
/// Only threads of the tokens file count, unless it names none.
pub fn senders(engine: &Engine, spread: Spread, most: usize) -> Vec<(u32, u32)> {
    let named: HashSet<&[u8]> = engine.people.iter().flat_map(|p| &p.threads).map(String::as_bytes).collect();
    let wanted = |id: &[u8; ID_BYTES]| named.is_empty() || named.contains(&id[..]);
    let threads = &engine.directory.threads;
    let largest = (0..threads.len()).filter(|t| wanted(&threads[*t].id)).max_by_key(|t| threads[*t].members);
    let mut pairs = Vec::new();
    for (i, conn) in engine.conns.iter().enumerate() {
        for slot in &conn.slots {
            let thread = slot.thread as usize;
            if wanted(&threads[thread].id) && (spread == Spread::AllThreads || Some(thread) == largest) {
                pairs.push((i as u32, slot.thread));
            }
        }
    }
    mix(&mut pairs);
    pairs.truncate(most);
    pairs
}

/// A fixed shuffle (Fisher–Yates over xorshift), so that neighbours in the file are not neighbours in time, and every run is alike.
fn mix(pairs: &mut [(u32, u32)]) {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for at in (1..pairs.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pairs.swap(at, (state % (at as u64 + 1)) as usize);
    }
}

/// Runs the scenario; the report says whether it was clean.
pub fn run(args: &Paced, shape: Shape) -> Result<bool, LoadError> {
    let is_durable = matches!(shape, Shape::Sends | Shape::Hot);
    if is_durable == args.floor_db.is_none() && args.floor || !is_durable && args.floor_db.is_some() {
        return Err(LoadError::Usage(
            "fanout and rooms have --floor; sends and hot have --floor-db, alone or with --floor".to_owned(),
        ));
    }
    let common = &args.common;
    let mut reporter = Reporter::new(common.json);
    if let (Some(url), false) = (&args.floor_db, args.floor) {
        return database_alone(args, shape, url, reporter);
    }
    let pace = pace(common.rate, common.in_flight, shape.usual_in_flight())?;
    let until = args.until.unwrap_or(shape.until());
    let ring = match (pace, until) {
        (Pace::Closed { in_flight: most } | Pace::Open { most, .. }, Until::Delivered) if most <= RING_LIMIT => most,
        (_, Until::Delivered) if matches!(pace, Pace::Closed { .. }) => {
            return Err(LoadError::Usage(format!("--in-flight: at most {RING_LIMIT}")));
        }
        _ => 0,
    };
    // Before any socket is there: what it writes would come to each as something missed, and be caught up while it counts.
    let mut runs = Vec::new();
    if let (Some(url), true) = (&args.floor_db, args.floor) {
        runs.push(database_floor::run(url, &people_of(common)?, shape.spread(), args.floor_seconds)?);
    }
    let mut engine = engine_for(common, ring)?;
    let connect_ns = connect_all(&mut engine, common.dialing(), &mut reporter)?;
    let pairs = senders(&engine, shape.spread(), args.senders.unwrap_or(usize::MAX));
    let used: HashSet<u32> = pairs.iter().map(|(_, thread)| *thread).collect();
    let members = used.iter().map(|t| u64::from(engine.directory.threads[*t as usize].members)).sum();
    let mut plan =
        Plan { senders: pairs, pace, until, seconds: args.warmup.max(SHORTEST_WARM_UP_S), watched: common.pid.clone() };
    let frame_bytes = warm_up(&mut engine, &plan)?;
    plan.seconds = common.seconds;

    let rooms = used.len() as u32;
    let floors = Floors { args, shape, pace, rooms, members, frame_bytes, people: engine.people.clone() };
    if runs.is_empty() {
        runs = floors.run(&mut reporter)?;
    }
    let figures = drive(&mut engine, &plan, &mut reporter)?;
    runs.extend(floors.run(&mut reporter)?);

    let clean = engine.tally.is_clean();
    let mut report = json!({"final": true, "scenario": shape.name(), "clean": clean, "threads": rooms, "members": members,
        "connectS": round(connect_ns as f64 / 1e9, 2), "pace": describe(pace), "until": format!("{until:?}").to_lowercase()});
    if !runs.is_empty() {
        report["ratios"] = ratios(&figures, &runs);
        report["floors"] = Value::Array(runs);
    }
    merge(&mut report, figures);
    report["checks"] = engine.tally.checks();
    reporter.last(&report)?;
    Ok(clean)
}

/// Only the floor of durable sends.
fn database_alone(args: &Paced, shape: Shape, url: &str, mut reporter: Reporter) -> Result<bool, LoadError> {
    let people = people_of(&args.common)?;
    let mut report = database_floor::run(url, &people, shape.spread(), args.floor_seconds)?;
    merge(&mut report, json!({"final": true, "scenario": shape.name()}));
    reporter.last(&report)?;
    Ok(true)
}

/// Sends for a while without counting it; returns how long the server's frames are.
fn warm_up(engine: &mut Engine, plan: &Plan) -> Result<usize, LoadError> {
    let figures = drive(engine, plan, &mut Reporter::quiet())?;
    if !engine.tally.is_clean() {
        return Err(LoadError::Failed(format!("warm-up: {}", engine.tally.checks())));
    }
    engine.tally.clear_figures()?;
    Ok(figures["frameBytes"].as_f64().unwrap_or(USUAL_FRAME_BYTES) as usize)
}

fn describe(pace: Pace) -> String {
    match pace {
        Pace::Open { per_second, most: u64::MAX } => format!("{per_second} a second"),
        Pace::Open { per_second, most } => format!("{per_second} a second, at most {most} in flight"),
        Pace::Closed { in_flight } => format!("{in_flight} in flight"),
    }
}

/// The floors that belong to one run.
struct Floors<'a> {
    args: &'a Paced,
    shape: Shape,
    pace: Pace,
    rooms: u32,
    members: u64,
    frame_bytes: usize,
    people: Vec<Person>,
}

impl Floors<'_> {
    /// Each floor once; nothing without `--floor`.
    fn run(&self, reporter: &mut Reporter) -> Result<Vec<Value>, LoadError> {
        if let (Some(url), true) = (&self.args.floor_db, self.args.floor) {
            return Ok(vec![database_floor::run(url, &self.people, self.shape.spread(), self.args.floor_seconds)?]);
        }
        let modes: &[Mode] = match self.shape {
            _ if !self.args.floor => &[],
            Shape::Rooms => &[Mode::OneWrite],
            _ => &[Mode::OneWrite, Mode::Coalesced],
        };
        let plan = |mode| FloorPlan {
            mode,
            members: self.members as usize,
            rooms: self.rooms,
            pace: self.pace,
            seconds: self.args.floor_seconds,
            frame_bytes: self.args.floor_frame_bytes.unwrap_or(self.frame_bytes).max(FLOOR_FRAME_MIN),
        };
        modes.iter().map(|mode| floor::run(plan(*mode), reporter)).collect()
    }
}

/// The run against the mean of each floor before and after: deliveries a second, and CPU of the process named `haus` per delivery.
fn ratios(figures: &Value, runs: &[Value]) -> Value {
    let mean = |mode: &str, field: &str| {
        let values: Vec<f64> =
            runs.iter().filter(|run| run["mode"] == mode).filter_map(|run| run[field].as_f64()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let over = |value: &Value, floor: Option<f64>| Some(round(value.as_f64()? / floor.filter(|f| *f > 0.0)?, 3));
    let mut ratios = json!({"database": {"sends": over(&figures["ackedPerS"], mean("database", "rowsPerS"))}});
    for mode in [Mode::OneWrite.name(), Mode::Coalesced.name()] {
        ratios[mode] = json!({
            "deliveries": over(&figures["deliveriesPerS"], mean(mode, "deliveriesPerS")),
            "cpuPerDelivery": over(&figures["processes"]["haus"]["cpuUsPerDelivery"], mean(mode, "cpuUsPerDelivery")),
        });
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::{mix, ratios};
    use serde_json::json;

    #[test]
    fn mixing_keeps_every_pair_and_is_the_same_each_time() {
        let mut first: Vec<_> = (0..100).map(|i| (i, i / 2)).collect();
        let mut again = first.clone();
        mix(&mut first);
        mix(&mut again);
        assert_eq!(first, again);
        assert_ne!(first[0..3], [(0, 0), (1, 0), (2, 1)]);
        first.sort_unstable();
        assert!(first.iter().enumerate().all(|(at, pair)| pair.0 == at as u32));
    }

    #[test]
    fn a_ratio_is_against_the_mean_of_the_floors_around_the_run() {
        let figures = json!({"deliveriesPerS": 150, "processes": {"haus": {"cpuUsPerDelivery": 3.0}}});
        let runs = [
            json!({"mode": "coalesced", "deliveriesPerS": 100, "cpuUsPerDelivery": 2.0}),
            json!({"mode": "coalesced", "deliveriesPerS": 300, "cpuUsPerDelivery": 4.0}),
        ];
        let found = ratios(&figures, &runs);
        assert_eq!(
            (&found["coalesced"]["deliveries"], &found["coalesced"]["cpuPerDelivery"]),
            (&json!(0.75), &json!(1.0))
        );
        assert!(found["one-write"]["deliveries"].is_null());
    }
}
