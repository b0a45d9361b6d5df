//! What the operating system says of a process: processor time and memory.

use anyhow::Context;
use std::fs;
use std::time::Duration;

/// Units of processor time in `/proc`, a second. Linux has shown 100 to user
/// space on every architecture since 2.6 (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Processor time that a process has used so far, user and system, all threads.
pub(super) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    ticks(&stat).map(time_of).with_context(|| format!("{path} is not as expected: {stat}"))
}

/// Memory of a process that is in RAM, in bytes.
pub(super) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmRSS:")
}

/// The most of it that was in RAM at any time, in bytes.
pub(super) fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, line: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    memory(&status, line).with_context(|| format!("{path} has no {line}"))
}

fn time_of(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Fields 14 and 15 of proc(5). The second field, the program's name in brackets,
/// may itself hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn memory(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 500 0 0 0 150 25 7 9 20 0 4 0 100 1 2 3";
        assert_eq!(ticks(stat).map(time_of), Some(Duration::from_millis(1750)));
        let status = "VmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(memory(status, "VmRSS:"), Some(2 << 20));
        assert_eq!(memory(status, "VmHWM:"), Some(9 << 10));
        assert_eq!((ticks("nonsense"), memory("", "VmRSS:")), (None, None));
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        cpu_time(pid).expect("readable");
        assert!(resident_bytes(pid).expect("readable") > 1 << 20);
        assert!(peak_bytes(pid).expect("readable") > 1 << 20);
    }
}
