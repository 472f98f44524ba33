//! Directories for the workers of a root host.
//!
//! Root's workers run under ids of their own, which own nothing. So each
//! directory is granted through an id-mapped clone of its mount
//! (mount_setattr(2), `MOUNT_ATTR_IDMAP`, Linux 5.12): in it, what belongs to
//! the directory's owner belongs to the worker, and what the worker creates
//! belongs to the directory's owner. The clone is attached nowhere, so `..`
//! leads out of it nowhere.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use thiserror::Error;

use crate::launcher::{Cloned, Grants, clone, set_attributes};

/// Why a directory can't be granted.
#[derive(Debug, Error)]
#[error(
    "{step}: {errno}; the worker runs as uid {uid} on the host. Grant a directory on a file system with id-mapped mounts (ext4, xfs, btrfs, tmpfs since Linux 6.3), or run as a user that may use it: --as-user UID"
)]
pub struct GrantError {
    /// The directory.
    pub path: PathBuf,
    /// What failed.
    pub step: &'static str,
    /// The kernel's reason.
    pub errno: Errno,
    /// The worker's id.
    pub uid: u32,
}

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;

/// Opens directories for the worker with host id `uid`. With `plain`, the
/// worker has what that user has, and nothing is mapped.
pub fn open_as_root(grants: &[Grants], uid: u32, plain: bool) -> Result<Vec<OwnedFd>, GrantError> {
    grants
        .iter()
        .map(|grant| open_one(grant, uid, plain))
        .collect()
}

fn open_one(grant: &Grants, uid: u32, plain: bool) -> Result<OwnedFd, GrantError> {
    let fail = |step: &'static str| {
        let path = grant.path.clone();
        move |errno| GrantError {
            path,
            step,
            errno,
            uid,
        }
    };
    let tree = rustix::mount::open_tree(
        CWD,
        &grant.path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .map_err(fail("open_tree"))?;
    let flags = NOSUID | NODEV | if grant.writable { 0 } else { RDONLY };
    set_attributes(&tree, flags, None).map_err(fail("mount_setattr"))?;
    if !plain {
        let owner = rustix::fs::fstat(&tree).map_err(fail("stat"))?;
        let namespace =
            mapping(owner.st_uid, owner.st_gid, uid).map_err(fail("id-mapping namespace"))?;
        set_attributes(&tree, 0, Some(&namespace)).map_err(fail("id-mapped mount"))?;
    }
    rustix::fs::openat(
        &tree,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(fail("open"))
}

/// A user namespace that maps the owner's ids to the worker's. It needs a
/// process to be made in, for as long as it takes to open it.
fn mapping(owner: u32, group: u32, worker: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the child makes no call but to wait for its end.
    match unsafe { clone(libc::CLONE_NEWUSER, None) }? {
        Cloned::Child => loop {
            // SAFETY: plain numbers: it ends with the thread that waits for it.
            unsafe {
                libc::syscall(
                    libc::SYS_prctl,
                    libc::PR_SET_PDEATHSIG,
                    libc::SIGKILL,
                    0,
                    0,
                    0,
                )
            };
            // SAFETY: sleeps for ever; SIGKILL ends it.
            unsafe { libc::syscall(libc::SYS_ppoll, 0usize, 0usize, 0usize, 0usize, 0usize) };
        },
        Cloned::Parent(pid, pidfd) => {
            let open = || {
                let write = |file: &str, line: String| {
                    std::fs::write(format!("/proc/{pid}/{file}"), line)
                        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
                };
                write("uid_map", format!("{owner} {worker} 1\n"))?;
                write("gid_map", format!("{group} {worker} 1\n"))?;
                rustix::fs::open(
                    format!("/proc/{pid}/ns/user"),
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
            };
            let namespace = open();
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            namespace
        }
    }
}
