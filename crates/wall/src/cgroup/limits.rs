//! What may be limited, and the files that say so in either version.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::controller::Controller;
use super::hierarchy::Version;

/// The least memory that a worker's group may have, in bytes: a worker that has
/// loaded a module and called nothing yet has 10 to 20 MiB.
pub const MIN_WORKER_MEMORY: u64 = 32 << 20;
/// What a group may have beside what RLIMIT_DATA counts, in bytes: pages shared
/// with the host, code, stacks' guard pages, socket buffers.
const ALLOWANCE: u64 = 64 << 20;
/// The period over which a ceiling is kept, in microseconds: the kernel's own
/// default.
const PERIOD_US: u64 = 100_000;

/// Whether control groups are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As far as they can be had; what is missing is said.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Nothing runs without memory, cpu and pids.
    Require,
}

/// What the operator wants of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CgroupOptions {
    /// Whether they are used.
    pub mode: Mode,
    /// Whether what is missing is logged as information, not as a warning: for
    /// who says it elsewhere.
    pub quiet: bool,
    /// Bytes that a worker may have at most, if that is less than follows from
    /// the limits of its memories.
    pub memory: Option<u64>,
    /// A worker's share of the processors, 1 to 10,000; 100 if not set, which is
    /// the share of one ordinary process.
    pub cpu_weight: Option<u32>,
    /// A worker's ceiling, in thousandths of a processor, 10 to 1,000.
    pub cpu_limit: Option<u32>,
    /// A worker's share of the disks, 1 to 10,000; 100 if not set.
    pub io_weight: Option<u32>,
}

/// Limits that can't be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A weight out of range.
    #[error("{option} {value}: a weight is between 1 and 10000; 100 is an ordinary process's")]
    Weight {
        /// The option.
        option: &'static str,
        /// The value.
        value: u32,
    },
    /// A ceiling out of range.
    #[error(
        "--cpu-limit {}: a worker has one thread, so its limit is between 0.01 and 1 processor", Cores(*.0)
    )]
    Ceiling(u32),
    /// Too little memory for any worker.
    #[error(
        "--worker-memory {0}: a worker needs {MIN_WORKER_MEMORY} bytes for itself before any module runs"
    )]
    Memory(u64),
    /// A limit of a group, and no groups.
    #[error(
        "{0} is kept by control groups, and --cgroup off turns them off: leave one of both out"
    )]
    Off(&'static str),
}

/// Thousandths of a processor, as people write them.
struct Cores(u32);

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

impl Mode {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Require => "require",
        }
    }
}

/// A mode that isn't one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not `auto`, `off` or `require`")]
pub struct UnknownMode(pub String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        [Self::Auto, Self::Off, Self::Require]
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| UnknownMode(name.to_owned()))
    }
}

impl CgroupOptions {
    /// Checks that the limits can be, and don't contradict each other.
    pub fn check(&self) -> Result<(), LimitsError> {
        for (option, value) in [
            ("--cpu-weight", self.cpu_weight),
            ("--io-weight", self.io_weight),
        ] {
            if let Some(value) = value.filter(|value| !(1..=10_000).contains(value)) {
                return Err(LimitsError::Weight { option, value });
            }
        }
        if let Some(ceiling) = self.cpu_limit.filter(|limit| !(10..=1000).contains(limit)) {
            return Err(LimitsError::Ceiling(ceiling));
        }
        if let Some(memory) = self.memory.filter(|bytes| *bytes < MIN_WORKER_MEMORY) {
            return Err(LimitsError::Memory(memory));
        }
        match (self.mode, self.asked().next()) {
            (Mode::Off, Some((option, _))) => Err(LimitsError::Off(option)),
            _ => Ok(()),
        }
    }

    /// Whether something is required or was asked for, so that it is an error if it
    /// is missing.
    pub fn must_be_there(&self) -> bool {
        self.mode == Mode::Require || self.asked().next().is_some()
    }

    /// Whether anything but the kernel's defaults was asked of the processors.
    pub(super) fn shares_processors(&self) -> bool {
        self.cpu_weight.is_some() || self.cpu_limit.is_some()
    }

    /// The limits that were asked for by name, with the controllers that keep them.
    pub(super) fn asked(&self) -> impl Iterator<Item = (&'static str, Controller)> {
        [
            ("--worker-memory", Controller::Memory, self.memory.is_some()),
            ("--cpu-weight", Controller::Cpu, self.cpu_weight.is_some()),
            ("--cpu-limit", Controller::Cpu, self.cpu_limit.is_some()),
            ("--io-weight", Controller::Io, self.io_weight.is_some()),
        ]
        .into_iter()
        .filter_map(|(option, controller, asked)| asked.then_some((option, controller)))
    }

    /// The limit of a worker's group, in bytes: what it may have of private
    /// memory (`data`, RLIMIT_DATA) and write to a file that may be in memory,
    /// the page tables for it and for as much again that it only maps, and an
    /// allowance; if it is `capped`, at most what the operator has set.
    pub fn memory_of(&self, data: u64, file: u64, capped: bool) -> u64 {
        // Eight bytes of page table for a page of 4 KiB.
        let tables = data / 256;
        let file = if file == u64::MAX { 0 } else { file };
        let most = data
            .saturating_add(file)
            .saturating_add(tables)
            .saturating_add(ALLOWANCE)
            // What the kernel doesn't round: a multiple of every page size.
            .saturating_add(0xffff)
            & !0xffff;
        self.memory
            .filter(|_| capped)
            .map_or(most, |bytes| (bytes & !0xffff).min(most))
            .min(i64::MAX as u64 & !0xffff)
    }
}

/// A value for a file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub controller: Controller,
    pub file: &'static str,
    pub value: String,
    /// Whether the limit is none without it. What isn't is left out where the
    /// kernel doesn't have it (swap accounting, the disks' scheduler).
    pub essential: bool,
}

/// What the files of a new group say that are written here.
pub(super) const DEFAULTS: [(&str, &str); 7] = [
    ("cpu.weight", "100"),
    ("cpu.max", "max 100000"),
    ("cpu.shares", "1024"),
    ("cpu.cfs_quota_us", "-1"),
    ("io.weight", "default 100"),
    ("blkio.bfq.weight", "100"),
    ("memory.oom.group", "0"),
];

/// The settings of a worker's group with `memory` bytes, for a controller of a
/// hierarchy, in the order in which they are written.
pub(super) fn settings(
    options: &CgroupOptions,
    controller: Controller,
    version: Version,
    memory: u64,
) -> Vec<Setting> {
    let of = |file, value: String, essential| Setting {
        controller,
        file,
        value,
        essential,
    };
    let weight = u64::from(options.cpu_weight.unwrap_or(100));
    let quota = options
        .cpu_limit
        .map(|limit| u64::from(limit) * PERIOD_US / 1000);
    match (controller, version) {
        (Controller::Memory, Version::V2) => vec![
            of("memory.max", memory.to_string(), true),
            of("memory.swap.max", "0".into(), false),
            of("memory.oom.group", "1".into(), false),
        ],
        // Memory and swap together are never less than memory alone: the kernel
        // refuses whichever would make it so.
        (Controller::Memory, Version::V1) => vec![
            of("memory.limit_in_bytes", memory.to_string(), true),
            of("memory.memsw.limit_in_bytes", memory.to_string(), false),
        ],
        (Controller::Cpu, Version::V2) => vec![
            of("cpu.weight", weight.to_string(), true),
            of(
                "cpu.max",
                quota.map_or_else(
                    || format!("max {PERIOD_US}"),
                    |quota| format!("{quota} {PERIOD_US}"),
                ),
                options.cpu_limit.is_some(),
            ),
        ],
        (Controller::Cpu, Version::V1) => vec![
            // 1024 is what 100 is in version 2, and 2 the least
            // (kernel: MIN_SHARES, kernel/sched/core.c).
            of("cpu.shares", (weight * 1024 / 100).max(2).to_string(), true),
            of(
                "cpu.cfs_quota_us",
                quota.map_or_else(|| "-1".into(), |quota| quota.to_string()),
                options.cpu_limit.is_some(),
            ),
        ],
        (Controller::Pids, _) => vec![of("pids.max", "1".into(), true)],
        (Controller::Io, version) => {
            let weight = options.io_weight.unwrap_or(100);
            vec![match version {
                Version::V2 => of(
                    "io.weight",
                    format!("default {weight}"),
                    options.io_weight.is_some(),
                ),
                // 1 to 1000 (kernel: BFQ_MIN_WEIGHT, BFQ_MAX_WEIGHT, block/bfq-iosched.h).
                Version::V1 => of(
                    "blkio.bfq.weight",
                    weight.min(1000).to_string(),
                    options.io_weight.is_some(),
                ),
            }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(options: &CgroupOptions, version: Version) -> Vec<(&'static str, String)> {
        Controller::ALL
            .into_iter()
            .flat_map(|controller| settings(options, controller, version, 1 << 30))
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    #[test]
    fn the_files_of_both_versions() {
        let options = CgroupOptions {
            cpu_weight: Some(50),
            cpu_limit: Some(250),
            ..CgroupOptions::default()
        };
        let own = |list: &[(&'static str, &str)]| {
            let own = list
                .iter()
                .map(|(file, value)| (*file, (*value).to_owned()));
            own.collect::<Vec<_>>()
        };
        assert_eq!(
            written(&options, Version::V2),
            own(&[
                ("memory.max", "1073741824"),
                ("memory.swap.max", "0"),
                ("memory.oom.group", "1"),
                ("cpu.weight", "50"),
                ("cpu.max", "25000 100000"),
                ("pids.max", "1"),
                ("io.weight", "default 100"),
            ])
        );
        assert_eq!(
            written(&options, Version::V1),
            own(&[
                ("memory.limit_in_bytes", "1073741824"),
                ("memory.memsw.limit_in_bytes", "1073741824"),
                ("cpu.shares", "512"),
                ("cpu.cfs_quota_us", "25000"),
                ("pids.max", "1"),
                ("blkio.bfq.weight", "100"),
            ])
        );
        let least = CgroupOptions {
            cpu_weight: Some(1),
            ..CgroupOptions::default()
        };
        assert!(written(&least, Version::V1).contains(&("cpu.shares", "10".into())));
    }

    #[test]
    fn what_is_not_asked_for_is_what_a_new_group_has() {
        for version in [Version::V1, Version::V2] {
            for controller in [Controller::Cpu, Controller::Io] {
                for setting in settings(&CgroupOptions::default(), controller, version, 0) {
                    assert!(
                        DEFAULTS.contains(&(setting.file, setting.value.as_str())),
                        "{setting:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn memory_is_enough_for_what_rlimits_allow_and_at_most_what_was_set() {
        let options = CgroupOptions::default();
        assert!(options.memory_of(1 << 30, 0, true) >= (1 << 30) + ALLOWANCE);
        assert!(options.memory_of(1 << 30, 512 << 20, true) >= (1 << 30) + (512 << 20));
        assert_eq!(options.memory_of(u64::MAX, u64::MAX, true) % 0x1_0000, 0);
        assert!(options.memory_of(u64::MAX, 0, true) <= i64::MAX as u64);
        let less = CgroupOptions {
            memory: Some(100_000_000),
            ..options
        };
        assert_eq!(less.memory_of(1 << 30, 0, true), 100_000_000 & !0xffff);
        assert_eq!(
            less.memory_of(1 << 20, 0, true),
            options.memory_of(1 << 20, 0, true)
        );
        let compilers = less.memory_of(1 << 30, 0, false);
        assert_eq!(compilers, options.memory_of(1 << 30, 0, true));
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let check = |change: fn(&mut CgroupOptions)| {
            let mut options = CgroupOptions::default();
            change(&mut options);
            options.check().map_err(|error| error.to_string())
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|options| options.mode = Mode::Off), Ok(()));
        for (change, words) in [
            (
                (|options| options.cpu_weight = Some(0)) as fn(&mut CgroupOptions),
                "--cpu-weight 0: a weight is between 1 and 10000",
            ),
            (
                |options| options.io_weight = Some(10_001),
                "--io-weight 10001",
            ),
            (|options| options.cpu_limit = Some(5), "--cpu-limit 0.005:"),
            (
                |options| options.cpu_limit = Some(1500),
                "--cpu-limit 1.5: a worker has one thread",
            ),
            (
                |options| options.memory = Some(1 << 20),
                "--worker-memory 1048576",
            ),
            (
                |options| {
                    options.mode = Mode::Off;
                    options.cpu_limit = Some(500);
                },
                "--cpu-limit is kept by control groups, and --cgroup off",
            ),
        ] {
            let error = check(change).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        for mode in [Mode::Auto, Mode::Off, Mode::Require] {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert!("on".parse::<Mode>().is_err());
    }
}
