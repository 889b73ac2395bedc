//! What the kernel says about this process. Read at a scrape, never in between; 0 where it cannot be read.

use rustix::time::{ClockId, clock_gettime};

/// Open file descriptors.
pub fn open_descriptors() -> i64 {
    // The one that reads the folder is among them.
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as i64)
}

/// Resident memory, bytes.
pub fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|value| value.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// CPU time of all threads, seconds.
pub fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
