//! What a launcher and its workers are started with.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::LauncherError;
use super::protocol::Directory;
use crate::cgroup::Cgroups;
use crate::executable::Executables;
use crate::layer::Layer;
use crate::off::Off;

/// A directory to grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Its path on the host.
    pub path: PathBuf,
    /// Whether it may be written.
    pub writable: bool,
}

impl Grants {
    /// The directory as the launcher is told of it: what the host sees there now.
    pub(super) fn directory(&self) -> Result<Directory, LauncherError> {
        let fail = |source| LauncherError::Directory {
            path: self.path.clone(),
            source,
        };
        let path = std::path::absolute(&self.path).map_err(fail)?;
        let stat = rustix::fs::stat(&path).map_err(|errno| fail(errno.into()))?;
        Ok(Directory {
            path: path.as_os_str().as_bytes().to_vec(),
            device: stat.st_dev,
            inode: stat.st_ino,
            writable: self.writable,
        })
    }
}

/// How to start a launcher.
#[derive(Debug, Clone, Default)]
pub struct LauncherOptions {
    /// The executables for launcher and workers.
    pub executables: Executables,
    /// Whether it starts workers that compile. One that doesn't, and whose workers
    /// need no other file ([`Executable::Image`](crate::executable::Executable)), has
    /// nothing at all in its root, which its workers then inherit as it is.
    pub compiles: bool,
    /// Layers that may be missing.
    pub accept_missing: Vec<Layer>,
    /// Layers that are left out on purpose.
    pub off: Off,
    /// Whether workers are started under the name of the red team's
    /// ([`RED_TEAM`](crate::worker::RED_TEAM)): hostile code of the executable's
    /// own, in place of a guest's.
    pub red_team: bool,
    /// The host user that workers run as; root only.
    pub as_user: Option<u32>,
    /// Directories that its workers are given.
    pub directories: Vec<Grants>,
    /// Control groups for its workers.
    pub cgroups: Option<Arc<Cgroups>>,
}

/// The limits of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of private memory (RLIMIT_DATA).
    pub data: u64,
    /// Bytes of address space (RLIMIT_AS): reservations and all. It bounds the
    /// page tables, which RLIMIT_DATA doesn't count.
    pub address_space: u64,
    /// Open descriptors (RLIMIT_NOFILE).
    pub descriptors: u64,
    /// Bytes of a file it writes (RLIMIT_FSIZE).
    pub file: u64,
    /// Seconds of processor time (RLIMIT_CPU).
    pub cpu_seconds: Option<u64>,
    /// Bytes of native stack (RLIMIT_STACK).
    pub stack: u64,
    /// Whether it is a compiler, which has an executable of its own, and which what
    /// the operator lets a worker have
    /// ([`CgroupOptions::memory`](crate::cgroup::CgroupOptions::memory)) doesn't bound.
    pub compiler: bool,
}
