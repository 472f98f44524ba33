//! What the host has too little of, told from an error of the kernel: which limit was
//! reached, and what raises it.
//!
//! The kernel says only a number, and the same one for several limits. So the limits are
//! read when an error comes of one ([`capacity`]), and the one with least left is named.

use std::error::Error;
use std::fmt;
use std::io;

use rustix::io::Errno;
use serde::Serialize;

use crate::capacity::{self, Bound};
use crate::cgroup::CgroupError;

/// What there may be too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Processes and threads.
    Processes,
    /// Open files, of this process or of the machine.
    Descriptors,
    /// Mappings of this process.
    Mappings,
    /// Memory, or address space of this process.
    Memory,
    /// Space on a disk.
    Disk,
    /// Namespaces.
    Namespaces,
    /// Control groups.
    ControlGroups,
}

impl Resource {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Descriptors => "descriptors",
            Self::Mappings => "mappings",
            Self::Memory => "memory",
            Self::Disk => "disk space",
            Self::Namespaces => "namespaces",
            Self::ControlGroups => "control groups",
        }
    }

    /// What raises the limit, if it isn't known which it is.
    fn raise(self) -> &'static str {
        match self {
            Self::Processes => {
                "raise the limit of processes: of the user (ulimit -u, LimitNPROC= of systemd), of \
                 the control group (pids.max, TasksMax= of systemd, --pids-limit of containers), or \
                 of the machine (kernel.pid_max, kernel.threads-max)"
            }
            Self::Descriptors => {
                "raise the limit of open files: of the process (ulimit -n, LimitNOFILE= of systemd) \
                 or of the machine (fs.file-max)"
            }
            Self::Mappings => "raise vm.max_map_count",
            Self::Memory => {
                "more memory, a larger limit of the control group, or of the address space (ulimit -v)"
            }
            Self::Disk => "make space on the disk, or raise the quota of the user",
            Self::Namespaces => {
                "raise user.max_user_namespaces and its like for mnt, pid, ipc, uts, net and cgroup"
            }
            Self::ControlGroups => {
                "raise cgroup.max.descendants of the group, or remove groups: there are at most \
                 65,535 with memory limits on a machine (kernel: MEM_CGROUP_ID_MAX)"
            }
        }
    }

    /// Which one an errno speaks of, wherever it comes from.
    fn of_errno(errno: Errno, mappings: impl Fn() -> bool) -> Option<Self> {
        Some(match errno {
            Errno::MFILE | Errno::NFILE => Self::Descriptors,
            // A thread's stack is a mapping (pthread_create(3)). Of a file that can't be
            // read at once no error is made.
            Errno::AGAIN | Errno::NOMEM if mappings() => Self::Mappings,
            Errno::AGAIN => Self::Processes,
            Errno::NOMEM => Self::Memory,
            Errno::NOSPC | Errno::DQUOT => Self::Disk,
            Errno::USERS => Self::Namespaces,
            _ => return None,
        })
    }

    /// Which one an errno of making a process speaks of (clone(2)).
    pub(crate) fn of_clone(errno: Errno) -> Option<Self> {
        match errno {
            // Where there may be none, that is no shortage.
            Errno::NOSPC => (!capacity::namespaces_are_forbidden()).then_some(Self::Namespaces),
            other => Self::of_errno(other, capacity::mappings_are_used_up),
        }
    }

    /// Which one an errno of making a control group speaks of (kernel:
    /// `cgroup_mkdir`, kernel/cgroup/cgroup.c; `mem_cgroup_alloc`, mm/memcontrol.c).
    fn of_group(errno: Errno) -> Option<Self> {
        match errno {
            Errno::AGAIN | Errno::NOSPC | Errno::NOMEM => Some(Self::ControlGroups),
            other => Self::of_errno(other, || false),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The host has too little of something for the request at hand. Worth another try, when
/// others need less or the limit is higher; everything else goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shortage {
    /// Of what.
    pub of: Resource,
    /// The limit that was reached, as far as it is known: what was read where.
    pub limit: Option<String>,
    /// What raises it.
    pub raise: &'static str,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host has too little left: {}", self.of)?;
        if let Some(limit) = &self.limit {
            write!(f, " ({limit})")?;
        }
        write!(f, "; {}; try again", self.raise)
    }
}

/// The kernel refused to make a process.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct NoProcess {
    /// What was tried, and what came of it.
    pub doing: String,
    /// What the kernel said.
    pub errno: Errno,
}

impl Shortage {
    /// What the host has too little of, if that is what an error comes of.
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        let mut group = false;
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<NoProcess>() {
                return Resource::of_clone(error.errno).map(Self::now);
            }
            group |= error.downcast_ref::<CgroupError>().is_some()
                || error.downcast_ref::<Box<CgroupError>>().is_some();
            if let Some(errno) = errno(error) {
                return match group {
                    true => Resource::of_group(errno),
                    false => Resource::of_errno(errno, capacity::mappings_are_used_up),
                }
                .map(Self::now);
            }
            next = error.source();
        }
        None
    }

    /// A shortage of this, by the limits as they are now.
    pub fn now(of: Resource) -> Self {
        Self::by(of, capacity::bounds())
    }

    fn by(of: Resource, bounds: Vec<Bound>) -> Self {
        // The tightest comes first. One of which plenty is left isn't it.
        let bound = bounds
            .into_iter()
            .find(|bound| bound.resource == of)
            .filter(|bound| bound.workers < FEW);
        match bound {
            Some(bound) => Self {
                of,
                limit: Some(bound.source),
                raise: bound.raise,
            },
            None => Self {
                of,
                limit: None,
                raise: of.raise(),
            },
        }
    }
}

/// A limit that allows fewer workers than this may be the one that was reached: others may
/// have let go since, and to start one takes more than to have one.
const FEW: u64 = 16;

fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    if let Some(errno) = error.downcast_ref::<Errno>() {
        return Some(*errno);
    }
    Errno::from_io_error(error.downcast_ref::<io::Error>()?)
}
