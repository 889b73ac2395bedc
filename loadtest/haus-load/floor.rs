//! Runs a floor: starts the bare loop as a child, opens its sockets, and drives it with the very code that drives a server.

use crate::conn::{Slot, Target};
use crate::drive::{Dialing, Plan, connect_all, drive};
use crate::engine::Engine;
use crate::error::{LoadError, doing};
use crate::floor_server::{Mode, PUBLISHER};
use crate::outgoing::{FLOOR_FRAME_MIN, Peer, Until};
use crate::procfs::Watched;
use crate::report::Reporter;
use crate::schedule::Pace;
use crate::tokens::Person;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Handshakes of a floor at once.
const AT_ONCE: usize = 512;
/// Seconds of warm-up before a floor is measured.
const WARM_UP_S: f64 = 0.3;

/// What a floor's other side knows of its sockets: number 0 publishes, the others are dealt round the rooms.
pub struct FloorPeer {
    /// Rooms.
    pub rooms: u32,
    /// Payload bytes of each ready frame.
    pub frame_bytes: usize,
}

impl FloorPeer {
    /// The room socket `i` is in.
    pub fn room_of(&self, i: usize) -> u32 {
        if i == 0 { PUBLISHER } else { (i as u32 - 1) % self.rooms.max(1) }
    }
}

/// What a floor is to do.
#[derive(Debug, Clone, Copy)]
pub struct FloorPlan {
    /// How it writes.
    pub mode: Mode,
    /// Receiving sockets.
    pub members: usize,
    /// Rooms they are dealt over.
    pub rooms: u32,
    /// Open or closed loop.
    pub pace: Pace,
    /// How long, seconds.
    pub seconds: f64,
    /// Payload bytes of a frame.
    pub frame_bytes: usize,
}

/// The child; ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself when its publisher leaves; both calls fail only when it has.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one floor and returns its figures.
pub fn run(plan: FloorPlan, reporter: &mut Reporter) -> Result<Value, LoadError> {
    if plan.frame_bytes < FLOOR_FRAME_MIN || plan.rooms == 0 || plan.members == 0 {
        return Err(LoadError::Usage(format!(
            "a floor needs members, rooms and frames of at least {FLOOR_FRAME_MIN} bytes"
        )));
    }
    let exe = std::env::current_exe().map_err(doing("floor: own program"))?;
    let mut child = Command::new(exe);
    child.args(["floor-server", "--mode", plan.mode.name()]).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut server = Server(child.spawn().map_err(doing("floor: start"))?);
    let mut line = String::new();
    let output = server.0.stdout.take().ok_or_else(|| LoadError::Failed("floor: no output".to_owned()))?;
    BufReader::new(output).read_line(&mut line).map_err(doing("floor: port"))?;
    let target = Target::parse(&format!("http://127.0.0.1:{}", line.trim()))?;

    let peer = FloorPeer { rooms: plan.rooms, frame_bytes: plan.frame_bytes };
    let nobody = Person::default();
    let in_flight = match plan.pace {
        Pace::Closed { in_flight } => in_flight,
        Pace::Open { .. } => 0,
    };
    let rooms_of: Vec<u32> = (1..=plan.members).map(|i| peer.room_of(i)).collect();
    let mut engine = Engine::new(Peer::Floor(peer), vec![target], vec![nobody], plan.members + 1, in_flight)?;
    let mut keys = Vec::new();
    for room in 0..plan.rooms {
        keys.push(engine.directory.intern(&format!("{room:08x}-f100-7000-8000-{room:012x}"))?.1);
    }
    for (conn, room) in engine.conns.iter_mut().skip(1).zip(rooms_of) {
        conn.slots.push(Slot { key: keys[room as usize], thread: room, last: 0 });
    }
    connect_all(&mut engine, Dialing { at_once: AT_ONCE, per_second: None }, reporter)?;
    let watched = vec![Watched { name: "floor".to_owned(), pid: server.0.id() }];
    let senders = (0..plan.rooms).map(|room| (0, room)).collect();
    let mut work = Plan { senders, pace: plan.pace, until: Until::Delivered, seconds: WARM_UP_S, watched };
    let mut quiet = Reporter::quiet();
    drive(&mut engine, &work, &mut quiet)?;
    engine.tally.clear_figures()?;
    work.seconds = plan.seconds;
    let figures = drive(&mut engine, &work, &mut quiet)?;
    if !engine.tally.is_clean() {
        return Err(LoadError::Failed(format!("floor: {}", engine.tally.checks())));
    }
    let mut summary = json!({"mode": plan.mode.name(), "members": plan.members, "rooms": plan.rooms, "cpuUsPerDelivery": figures["processes"]["floor"]["cpuUsPerDelivery"]});
    for name in ["deliveriesPerS", "frameBytes", "framesPerRead", "deliveryMs", "generator", "idlePercent", "seconds"] {
        summary[name] = figures[name].clone();
    }
    Ok(summary)
}
