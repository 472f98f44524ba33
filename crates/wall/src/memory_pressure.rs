//! Hearing from the kernel that memory is short, before somebody is killed for it.
//!
//! Two sources, of which each may be missing:
//!
//! - pressure stall information (kernel: Documentation/accounting/psi.rst): the
//!   kernel says when tasks have waited for memory for too much of the time. Of the
//!   whole machine, and of this process's own control group of version 2. Who has no
//!   `CAP_SYS_RESOURCE` may choose windows of 2 s only (`psi_trigger_create`, kernel:
//!   kernel/sched/psi.c, since Linux 6.5; before it nobody else may listen).
//! - `memory.pressure_level` of its control group of version 1 (kernel:
//!   Documentation/admin-guide/cgroup-v1/memory.rst, section 11).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use crate::cgroup::{Controller, Version, hierarchies};
use crate::layer::Probe;

/// Microseconds for which some task has waited for memory, of the window's: a
/// twentieth.
const STALLED: u32 = 100_000;
/// The window, in microseconds: what anybody may choose.
const WINDOW: u32 = 2_000_000;
/// Of version 1: the kernel reclaims, and that has begun to be hard.
const LEVEL: &str = "medium";

/// The part of memory that is left when it is short: a tenth.
const LEFT: u64 = 10;

/// Where the kernel says that memory is short.
#[derive(Debug)]
pub struct MemoryPressure {
    sources: Vec<Source>,
    /// Of this process's groups, files with what they have and what they may.
    groups: Vec<[PathBuf; 2]>,
}

#[derive(Debug)]
enum Source {
    /// Priority data when it happens.
    Stall(File),
    /// Counts how often it has happened, for as long as the level's file is open.
    Level { event: OwnedFd, _level: File },
}

impl MemoryPressure {
    /// Listens to all that can be heard here; also what can't be, and why.
    pub fn listen() -> (Self, Vec<String>) {
        let mut missing = Vec::new();
        let (mut sources, mut groups) = (Vec::new(), Vec::new());
        let mut found = |path: PathBuf, source: io::Result<Source>| match source {
            Ok(source) => sources.push(source),
            Err(error) => missing.push(format!("{}: {error}", path.display())),
        };
        let machine = PathBuf::from("/proc/pressure/memory");
        found(machine.clone(), stall(&machine));
        let read = |name: &str| std::fs::read_to_string(Path::new("/proc/self").join(name));
        let (mountinfo, cgroup) = (read("mountinfo"), read("cgroup"));
        let of_groups = hierarchies(
            mountinfo.as_deref().unwrap_or_default(),
            cgroup.as_deref().unwrap_or_default(),
        );
        for hierarchy in of_groups {
            match hierarchy.version {
                // The group at the root has none: that is the machine's.
                Version::V2 if hierarchy.own.join("cgroup.type").exists() => {
                    let path = hierarchy.own.join("memory.pressure");
                    found(path.clone(), stall(&path));
                    groups.push(
                        ["memory.current", "memory.max"].map(|file| hierarchy.own.join(file)),
                    );
                }
                Version::V1 if hierarchy.controllers.contains(&Controller::Memory) => {
                    found(
                        hierarchy.own.join("memory.pressure_level"),
                        level(&hierarchy.own),
                    );
                    let files = ["memory.usage_in_bytes", "memory.limit_in_bytes"];
                    groups.push(files.map(|file| hierarchy.own.join(file)));
                }
                Version::V1 | Version::V2 => {}
            }
        }
        (Self { sources, groups }, missing)
    }

    /// Whether little is left, of the machine's memory or of what one of this process's
    /// groups may have. The kernel also tells of one who waits for memory as it is at
    /// its own group's limit, which is nobody else's business.
    pub fn is_short(&self) -> bool {
        let number = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse::<u64>().ok()
        };
        let full = |[has, may]: &[PathBuf; 2]| {
            // A group without a limit says `max`, or more than any machine has.
            let (Some(has), Some(may)) = (number(has), number(may)) else {
                return false;
            };
            may.saturating_sub(has) < may / LEFT
        };
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let [total, available] = ["MemTotal:", "MemAvailable:"].map(|name| meminfo(&text, name));
        available < total / LEFT || self.groups.iter().any(full)
    }

    /// What is listened to, in words.
    fn names(&self) -> Vec<&'static str> {
        let name = |source: &Source| match source {
            Source::Stall(_) => "pressure stall information",
            Source::Level { .. } => "the pressure level of its control group",
        };
        self.sources.iter().map(name).collect()
    }

    /// Whether nothing can be heard.
    pub fn is_deaf(&self) -> bool {
        self.sources.is_empty()
    }

    /// What to poll: once memory is short one of them is ready.
    pub fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.sources.iter().map(|source| match source {
            Source::Stall(file) => PollFd::new(file, PollFlags::PRI),
            Source::Level { event, .. } => PollFd::new(event, PollFlags::IN),
        })
    }

    /// Takes note of what has come, so that the next poll waits again. What can't be
    /// heard any more, as its group is gone, is left out from now on.
    pub fn take(&mut self) {
        self.sources.retain(|source| {
            let polled = match source {
                Source::Stall(file) => PollFd::new(file, PollFlags::PRI),
                Source::Level { event, .. } => {
                    let mut count = [0; 8];
                    let _ = rustix::io::read(event, &mut count);
                    return true;
                }
            };
            let mut polled = [polled];
            let now = rustix::event::Timespec::default();
            let _ = rustix::event::poll(&mut polled, Some(&now));
            !polled[0].revents().contains(PollFlags::ERR)
        });
    }
}

/// A line of `/proc/meminfo` (proc_meminfo(5)), in KiB.
fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

fn stall(path: &Path) -> io::Result<Source> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    // In one write, with its end.
    file.write_all(format!("some {STALLED} {WINDOW}\0").as_bytes())?;
    Ok(Source::Stall(file))
}

fn level(group: &Path) -> io::Result<Source> {
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let level = File::open(group.join("memory.pressure_level"))?;
    let order = format!("{} {} {LEVEL}", event.as_raw_fd(), level.as_raw_fd());
    let mut control = OpenOptions::new()
        .write(true)
        .open(group.join("cgroup.event_control"))?;
    control.write_all(order.as_bytes())?;
    Ok(Source::Level {
        event,
        _level: level,
    })
}

/// Whether the kernel says here that memory is short.
pub fn probe() -> Probe {
    match MemoryPressure::listen() {
        (heard, _) if !heard.is_deaf() => Probe::Works(heard.names().join(", ")),
        (_, missing) => Probe::Missing(missing.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_is_quiet_until_something_happens() {
        let (mut heard, missing) = MemoryPressure::listen();
        assert!(!heard.is_deaf() || !missing.is_empty());
        let sources = heard.sources.len();
        heard.take();
        assert_eq!(heard.sources.len(), sources, "nothing is gone");
        assert_eq!(heard.polled().count(), sources);
    }

    #[test]
    fn what_the_kernel_says_of_memory_is_read() {
        let text = "MemTotal:       24684544 kB\nMemFree:         100 kB\nMemAvailable:   12 kB\n";
        assert_eq!(meminfo(text, "MemTotal:"), 24_684_544);
        assert_eq!(meminfo(text, "MemAvailable:"), 12);
        assert_eq!(meminfo(text, "Swap:"), 0);
    }
}
