//! What a group has used, and whether the kernel killed in it for memory.

use std::path::Path;

use serde::Serialize;

use super::hierarchy::Version;
use super::surroundings::{read, write};

/// What is known of a kill for memory when a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKill {
    /// There is no memory group, so nobody counted.
    Unknown,
    /// Its group counted none.
    No,
    /// The kernel killed it for memory.
    Yes {
        /// The limit of its group, in bytes.
        limit: u64,
        /// Whether the group was at its limit; else the whole machine, or a group
        /// above, had too little.
        at_limit: bool,
    },
}

/// What a group has used since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct GroupUsage {
    /// Bytes charged to it now.
    pub memory_bytes: Option<u64>,
    /// The most there were.
    pub memory_peak_bytes: Option<u64>,
    /// Processor time, in microseconds. Version 1 counts it elsewhere.
    pub cpu_us: Option<u64>,
    /// Time for which it was held back by its ceiling, in microseconds.
    pub throttled_us: Option<u64>,
}

/// A number of a file of lines `name number` (cgroup-v2.rst, "flat keyed").
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// How often the kernel killed a task of a memory group.
pub(super) fn kills(directory: &Path, version: Version) -> Option<u64> {
    let file = match version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    keyed(&read(&directory.join(file)).ok()?, "oom_kill")
}

/// Bytes below its limit at which a group counts as full: the kernel charges 64
/// pages at a time (`MEMCG_CHARGE_BATCH`, kernel: include/linux/memcontrol.h), of up
/// to 64 KiB.
const NEARLY: u64 = 4 << 20;

/// Begins to watch whether a memory group gets full: what [`was_full`] compares with.
pub(super) fn watch(directory: &Path, version: Version) -> u64 {
    match version {
        // Any number makes it begin anew (cgroup-v1/memory.rst, "Control files").
        Version::V1 => {
            let _ = write(&directory.join("memory.max_usage_in_bytes"), "0");
            0
        }
        Version::V2 => times_full(directory),
    }
}

/// Whether a memory group has been full since. (`memory.failcnt` isn't counted by
/// newer kernels.)
pub(super) fn was_full(directory: &Path, version: Version, limit: u64, before: u64) -> bool {
    match version {
        Version::V1 => read(&directory.join("memory.max_usage_in_bytes"))
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .is_some_and(|most| most.saturating_add(NEARLY) >= limit),
        Version::V2 => times_full(directory) > before,
    }
}

/// How often nothing could be reclaimed at the group's limit.
fn times_full(directory: &Path) -> u64 {
    let events = read(&directory.join("memory.events")).unwrap_or_default();
    keyed(&events, "oom").unwrap_or(0)
}

/// Adds what a directory of a group tells.
pub(super) fn add(directory: &Path, version: Version, to: &mut GroupUsage) {
    let number = |file: &str| read(&directory.join(file)).ok()?.parse().ok();
    let (now, peak) = match version {
        Version::V1 => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
        Version::V2 => ("memory.current", "memory.peak"),
    };
    to.memory_bytes = number(now).or(to.memory_bytes);
    to.memory_peak_bytes = number(peak).or(to.memory_peak_bytes);
    if let Ok(text) = read(&directory.join("cpu.stat")) {
        to.cpu_us = keyed(&text, "usage_usec").or(to.cpu_us);
        to.throttled_us = keyed(&text, "throttled_usec")
            .or_else(|| keyed(&text, "throttled_time").map(|nanoseconds| nanoseconds / 1000))
            .or(to.throttled_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| {
            std::fs::write(directory.path().join(file), text).unwrap();
        };
        assert_eq!(kills(directory.path(), Version::V2), None);
        put(
            "memory.events",
            "low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n",
        );
        put(
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        );
        put("memory.max_usage_in_bytes", "67000000\n");
        assert_eq!(kills(directory.path(), Version::V2), Some(3));
        assert_eq!(kills(directory.path(), Version::V1), Some(4));
        let full = |version, before| was_full(directory.path(), version, 64 << 20, before);
        assert!(full(Version::V2, 1) && !full(Version::V2, 2) && full(Version::V1, 0));
        assert_eq!(watch(directory.path(), Version::V2), 2);
        watch(directory.path(), Version::V1);
        put("memory.max_usage_in_bytes", "60000000\n");
        assert!(!full(Version::V1, 0));

        put("memory.current", "4096\n");
        put("memory.peak", "8192\n");
        put("cpu.stat", "usage_usec 12\nuser_usec 6\nthrottled_usec 5\n");
        let mut usage = GroupUsage::default();
        add(directory.path(), Version::V2, &mut usage);
        let expected = GroupUsage {
            memory_bytes: Some(4096),
            memory_peak_bytes: Some(8192),
            cpu_us: Some(12),
            throttled_us: Some(5),
        };
        assert_eq!(usage, expected);
        put("cpu.stat", "nr_periods 0\nthrottled_time 7000\n");
        add(directory.path(), Version::V1, &mut usage);
        assert_eq!(usage.throttled_us, Some(7));
        // A file that another kernel writes otherwise is nothing, never a number.
        put("memory.events", "oom_kill many\n");
        assert_eq!(kills(directory.path(), Version::V2), None);
    }
}
