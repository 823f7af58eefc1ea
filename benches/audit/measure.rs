//! Numbers: where they come from and how they are shown.

use std::fs;
use std::time::{Duration, Instant};

/// Says how busy the machine is, because others may work on it.
pub(crate) fn machine() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    anstream::println!("{cores} cores, load {}", load.trim());
}

/// Begins a part of the table.
pub(crate) fn title(text: &str) {
    anstream::println!("\n{text}");
}

/// Shows a number, or several, under a name.
pub(crate) fn row(name: &str, value: &str) {
    anstream::println!("  {name:<58} {value}");
}

/// Shows how long something took, in the middle and at the slow end.
pub(crate) fn latency_row(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied();
    let us = |percent| at(percent).unwrap_or_default().as_secs_f64() * 1e6;
    let (p50, p99, max) = (us(50), us(99), us(100));
    row(name, &format!("p50 {p50:.0} µs, p99 {p99:.0} µs, max {max:.0} µs"));
}

/// Does something this many times and says how long each took.
pub(crate) fn times(count: u64, mut work: impl FnMut(u64)) -> Vec<Duration> {
    let time = |round| {
        let started = Instant::now();
        work(round);
        started.elapsed()
    };
    (0..count).map(time).collect()
}

/// A number below `end` that looks random and is the same in every run.
pub(crate) fn random_below(end: u64, round: u64) -> u64 {
    let digest = blake3::hash(&round.to_le_bytes());
    u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("a hash has more than 8 bytes")) % end
}

/// How often a second, in round numbers.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
    let count = count as f64;
    count / time.as_secs_f64()
}

/// CPU time that this process used so far, in steps of 10 ms. Other processes make a run longer, but hardly change this.
pub(crate) fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells");
    // The fields after the name, which may hold anything, in its parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// A line of `/proc/PID/status` in MiB: `VmRSS` for memory in use, `VmHWM` for the most that ever was.
pub(crate) fn memory_mib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Forgets the most memory that a process ever used.
pub(crate) fn forget_peak(pid: u32) {
    // Where it is not allowed, the peak counts from the start of the process.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
