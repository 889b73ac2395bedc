//! What `/proc` says of the machine and of the processes under test: CPU time, resident memory, idle share, kernel slab.
//! A process that cannot be read any more (it ended) counts as zero, so that a killed node does not end a run.

use serde_json::{Value, json};
use std::fs;

/// Clock ticks a second in `/proc/PID/stat`; fixed at 100 in the kernel's interface to user space on every platform we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// The name that stands for a tree: the parent and all its children are summed.
const TREE_NAME: &str = "postgres";

/// A process named on the command line as `name=PID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Its name in the report.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected name=PID")?;
        let pid = pid.parse().map_err(|_| format!("{pid} is not a process id"))?;
        if name.is_empty() { Err("expected name=PID".to_owned()) } else { Ok(Self { name: name.to_owned(), pid }) }
    }
}

/// CPU time and memory of one watched process at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// User and system time since its start, seconds.
    pub cpu_s: f64,
    /// Resident memory, KiB.
    pub rss_kib: u64,
}

/// The whole machine at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    idle_ticks: u64,
    all_ticks: u64,
    /// Kernel slab, KiB: where the kernel's own share of a socket lies.
    pub slab_kib: u64,
}

/// Everything `/proc` tells at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The watched processes, in the order given.
    pub usages: Vec<Usage>,
    /// This process.
    pub generator: Usage,
    /// The machine.
    pub machine: Machine,
}

/// Fields of `/proc/PID/stat` after the command name, which may itself hold spaces and brackets.
fn stat_fields(stat: &str) -> Option<Vec<u64>> {
    let (_, after) = stat.rsplit_once(") ")?;
    Some(after.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
}

/// Parent and CPU ticks of one process; with `reaped`, those of children that ended too.
fn ticks(pid: u32, reaped: bool) -> Option<(u32, u64)> {
    let fields = stat_fields(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    // Counted from the state field: 1 parent, 11 user, 12 system, 13 and 14 those of reaped children.
    let own = fields.get(11)? + fields.get(12)?;
    let gone = if reaped { fields.get(13)? + fields.get(14)? } else { 0 };
    Some((*fields.get(1)? as u32, own + gone))
}

fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    labelled_kib(&status, "VmRSS:")
}

fn labelled_kib(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn usage(watched: &Watched) -> Usage {
    let tree = watched.name == TREE_NAME;
    let mut sum = Usage {
        cpu_s: ticks(watched.pid, tree).map_or(0.0, |(_, t)| t as f64 / TICKS_PER_SECOND),
        rss_kib: rss_kib(watched.pid),
    };
    if tree {
        for child in children(watched.pid) {
            sum.cpu_s += ticks(child, false).map_or(0.0, |(_, t)| t as f64 / TICKS_PER_SECOND);
            sum.rss_kib += rss_kib(child);
        }
    }
    sum
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    pids.filter(|pid| ticks(*pid, false).is_some_and(|(of, _)| of == parent)).collect()
}

fn machine() -> Machine {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let cpu: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let idle_ticks = cpu.get(3).copied().unwrap_or(0) + cpu.get(4).copied().unwrap_or(0);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Machine { idle_ticks, all_ticks: cpu.iter().take(8).sum(), slab_kib: labelled_kib(&meminfo, "Slab:") }
}

impl Snapshot {
    /// Reads everything now.
    pub fn take(watched: &[Watched]) -> Self {
        let generator = Watched { name: "generator".to_owned(), pid: std::process::id() };
        Self { usages: watched.iter().map(usage).collect(), generator: usage(&generator), machine: machine() }
    }

    /// Share of the machine's time that was idle since `earlier`, percent.
    pub fn idle_percent_since(&self, earlier: &Self) -> f64 {
        let all = self.machine.all_ticks.saturating_sub(earlier.machine.all_ticks);
        let idle = self.machine.idle_ticks.saturating_sub(earlier.machine.idle_ticks);
        if all == 0 { 0.0 } else { 100.0 * idle as f64 / all as f64 }
    }

    /// What each watched process used since `earlier`, per delivery and per acknowledged send where there were any.
    pub fn report_since(&self, earlier: &Self, watched: &[Watched], deliveries: u64, acked: u64) -> Value {
        let mut report = serde_json::Map::new();
        for (at, process) in watched.iter().enumerate() {
            let (Some(now), Some(then)) = (self.usages.get(at), earlier.usages.get(at)) else { continue };
            let cpu_s = (now.cpu_s - then.cpu_s).max(0.0);
            report.insert(
                process.name.clone(),
                json!({
                    "cpuS": round(cpu_s, 2),
                    "cpuUsPerDelivery": per(cpu_s * 1e6, deliveries),
                    "cpuUsPerAck": per(cpu_s * 1e6, acked),
                    "rssKiB": now.rss_kib,
                    "rssKiBBefore": then.rss_kib,
                }),
            );
        }
        Value::Object(report)
    }
}

/// `total / count` to three places; null for a count of zero.
pub fn per(total: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| round(total / count as f64, 3))
}

/// Rounds to `places` decimals, for reports.
pub fn round(value: f64, places: i32) -> f64 {
    let scale = 10f64.powi(places);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, Watched, labelled_kib, stat_fields};

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let fields = stat_fields("7 (a (b) c) S 3 7 7 0 -1 4 1 2 3 4 50 60 7 8 20").unwrap_or_default();
        assert_eq!((fields[1], fields[11], fields[12]), (3, 50, 60));
    }

    #[test]
    fn labels_units_and_arguments_are_read() {
        assert_eq!(labelled_kib("VmPeak: 9 kB\nVmRSS:\t  5120 kB\n", "VmRSS:"), 5120);
        assert_eq!("haus=12".parse(), Ok(Watched { name: "haus".to_owned(), pid: 12 }));
        assert!("haus".parse::<Watched>().is_err());
        assert!("=4".parse::<Watched>().is_err());
        assert!("a=b".parse::<Watched>().is_err());
    }

    #[test]
    fn this_process_has_memory_and_the_machine_has_time() {
        let own = [Watched { name: "own".to_owned(), pid: std::process::id() }];
        let now = Snapshot::take(&own);
        assert!(now.usages[0].rss_kib > 100 && now.machine.all_ticks > 0);
    }
}
