//! The server's process: signals, its stop in order, and its end where whoever waited for it goes away.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Child;
use tokio::time::timeout;

/// A stop in order; then at once, then by SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a server whose owner goes away: the program is about to end.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Sends a signal; a process that is gone is no error.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Fast shutdown, then immediate, then SIGKILL.
pub(super) async fn stop(child: &mut Child) {
    let Some(pid) = child.id() else { return };
    for step in [Signal::INT, Signal::QUIT, Signal::KILL] {
        signal(pid.cast_signed(), step);
        if timeout(STOP_DEADLINE, child.wait()).await.is_ok() {
            return;
        }
    }
}

/// For a drop: asks a server to stop in order and blocks until it has, up to [`LEAVE_DEADLINE`]. One that takes longer goes
/// on stopping by itself; the next start waits for it.
pub(super) fn leave(pid: u32) {
    signal(pid.cast_signed(), Signal::INT);
    let deadline = Instant::now() + LEAVE_DEADLINE;
    while is_running(pid) && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A process that nobody has waited for yet is listed, but ended.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let state = stat.ok().and_then(|stat| stat.rsplit_once(')')?.1.split_whitespace().next().map(str::to_owned));
    state.is_some_and(|state| state != "Z")
}

/// A running server: it does not outlive whoever holds it.
pub(super) struct Running(Child);

impl Running {
    pub fn new(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // None: it has ended.
        if let Some(pid) = self.0.id() {
            leave(pid);
        }
    }
}

/// A child that leads a process group: dropped before it has ended, the whole group is killed.
pub(super) struct Group(Option<Pid>);

impl Group {
    pub fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())))
    }

    pub fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
