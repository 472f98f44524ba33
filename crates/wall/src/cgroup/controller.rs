//! The controllers that Lazaret uses.

use std::fmt;

use serde::Serialize;

use super::hierarchy::Version;

/// A controller of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    /// Memory, the kernel's for the group included.
    Memory,
    /// Processor time: a share, and a ceiling.
    Cpu,
    /// Number of tasks.
    Pids,
    /// Share of the disks.
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::Io];

    /// Those without which the limits are not whole (`Mode::Require`). A share of
    /// the disks depends on the disks' scheduler and is never required.
    pub const REQUIRED: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// Its name in version 2, and here.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }

    /// What the kernel calls it in this version.
    pub fn kernel_name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Io, Version::V1) => "blkio",
            _ => self.name(),
        }
    }

    /// What it limits, in a few words.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Memory => {
                "a worker can't have more memory than its limit, what the kernel keeps for it included"
            }
            Self::Cpu => {
                "a worker gets its share of the processors beside its neighbours, or a ceiling"
            }
            Self::Pids => "a worker is one task, whatever its filter allows",
            Self::Io => "a worker gets its share of the disks beside its neighbours",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
