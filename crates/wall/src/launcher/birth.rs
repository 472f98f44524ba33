//! The birth of a launcher: a clone of the host into new namespaces that
//! executes itself again.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lazaret_wire::socket::Channel;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::WaitIdStatus;

use super::clone::{Cloned, clone};
use super::error::{LauncherError, PATIENCE, no_process};
use super::ids::HostIds;
use super::starting::end;
use crate::layer::Layer;
use crate::off::Off;
use crate::shortage::Resource;

/// The environment variable that says how many Lazaret processes lie between
/// this one and the first host: a host that starts itself by mistake must not
/// become a fork bomb.
pub const DEPTH: &str = "LAZARET_DEPTH";

/// How many Lazaret processes lie between this one and the first host.
pub fn depth() -> u32 {
    std::env::var(DEPTH)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// How long the host waits for a launcher to be another program. That only makes it quicker,
/// so it isn't waited for in vain: a copy of this process that somebody else has made
/// meanwhile may hold the pipe open.
const EXECUTION: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// How a launcher ends whose executable can't be executed.
const NOT_EXECUTED: i32 = 127;

/// The namespaces of the launcher, which its workers inherit where they have
/// none of their own.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// Clones this process into new namespaces, and into the control group `group` if
/// there is one, and makes it the launcher.
///
/// Workers have cgroup namespaces of their own. With groups of version 2 the
/// launcher keeps the host's: with a namespace whose root is the host's own group,
/// it could start nobody in a group beside that (cgroup-v2.rst, "nsdelegate").
pub(super) fn start(
    ours: &Channel,
    theirs: Channel,
    executable: &OwnedFd,
    ids: &HostIds,
    environment: &CStr,
    group: Option<BorrowedFd<'_>>,
    off: Off,
) -> Result<(i32, OwnedFd), LauncherError> {
    let arguments = [super::ARGV0.as_ptr(), std::ptr::null()];
    let environment = [environment.as_ptr(), std::ptr::null()];
    let theirs: OwnedFd = theirs.into();
    // Closed when it executes itself, or ends.
    let (executed, executes) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| no_process(None, format!("launcher: a pipe: {errno}"), Some(errno)))?;
    let (executable, socket, executes_raw) = (
        executable.as_raw_fd(),
        theirs.as_raw_fd(),
        executes.as_raw_fd(),
    );
    let parents = [ours.as_fd().as_raw_fd(), executed.as_raw_fd()];
    let flags = match group {
        Some(_) => NAMESPACES,
        None => NAMESPACES | libc::CLONE_NEWCGROUP,
    };
    let (flags, mapped) = (off.namespaces(flags), !off.has(Layer::UserNamespace));
    // SAFETY: this process may have threads, so the child makes system calls
    // only, on data that was prepared before, until it is another program.
    let cloned = unsafe { clone(flags, group) }.map_err(|errno| {
        let (layer, message) = match flags {
            0 => (None, format!("launcher: clone3: {errno}")),
            _ if Resource::of_clone(errno).is_some() => (
                None,
                format!("launcher: clone3 into new namespaces: {errno}"),
            ),
            _ => (
                Some(Layer::UserNamespace),
                format!(
                    "clone3 into new namespaces: {errno}; {}",
                    Layer::UserNamespace.remedy()
                ),
            ),
        };
        no_process(layer, message, Some(errno))
    })?;
    match cloned {
        Cloned::Child => {
            // SAFETY: as above; numbers and pointers that were made before.
            unsafe {
                // The parent's ends must not stay open here, or their closing
                // would not be seen.
                libc::close(parents[0]);
                libc::close(parents[1]);
                // A host that gave up root is not dumpable, and neither is
                // this copy of it: its files in /proc would be root's, and the
                // ids could not be mapped. Exec decides anew.
                libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
                let mut byte = [0u8; 4];
                // This side says when it can be mapped, the parent when it is.
                if libc::syscall(libc::SYS_write, socket, byte.as_ptr(), 1usize) != 1 {
                    libc::_exit(126);
                }
                if libc::syscall(
                    libc::SYS_recvfrom,
                    socket,
                    byte.as_mut_ptr(),
                    byte.len(),
                    0,
                    0usize,
                    0usize,
                ) < 1
                    || mapped && libc::syscall(libc::SYS_setresgid, 0, 0, 0) != 0
                    || mapped && libc::syscall(libc::SYS_setresuid, 0, 0, 0) != 0
                    || libc::syscall(libc::SYS_dup3, socket, 0, 0) < 0
                {
                    libc::_exit(126);
                }
                // Everything else but standard error goes, and by execution the executable
                // and the pipe. Copies are made above the range first.
                let high = |descriptor: i32| {
                    libc::syscall(libc::SYS_fcntl, descriptor, libc::F_DUPFD_CLOEXEC, 10)
                };
                let (executable, executes) = (high(executable), high(executes_raw));
                if libc::syscall(libc::SYS_dup3, executable, 3, libc::O_CLOEXEC) != 3
                    || libc::syscall(libc::SYS_dup3, executes, 4, libc::O_CLOEXEC) != 4
                {
                    libc::_exit(126);
                }
                libc::syscall(libc::SYS_close_range, 5u32, u32::MAX, 0);
                libc::syscall(
                    libc::SYS_execveat,
                    3,
                    c"".as_ptr(),
                    arguments.as_ptr(),
                    environment.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
                libc::_exit(NOT_EXECUTED)
            }
        }
        Cloned::Parent(pid, pidfd) => {
            drop((theirs, executes));
            let born = ours.poll(PATIENCE).map_err(LauncherError::from);
            let born = born.and_then(|told| {
                if !told {
                    return Err(LauncherError::Silent);
                }
                ours.receive()?;
                if mapped {
                    map_ids(pid, ids).map_err(|(file, source)| LauncherError::Layer {
                        layer: Layer::UserNamespace,
                        message: format!(
                            "/proc/{pid}/{file}: {source}; {}",
                            Layer::UserNamespace.remedy()
                        ),
                    })?;
                }
                ours.send(b"go", &[])?;
                // It was woken on this processor, and would stay there if this thread were
                // busy now. Whoever wakes up when it is another program gets another one.
                let _ = rustix::event::poll(
                    &mut [PollFd::new(&executed, PollFlags::IN)],
                    Some(&EXECUTION),
                );
                Ok(())
            });
            match born {
                Ok(()) => Ok((pid, pidfd)),
                Err(error) => Err(end(pid, &pidfd, error)),
            }
        }
    }
}

fn map_ids(pid: i32, ids: &HostIds) -> Result<(), (&'static str, io::Error)> {
    let write = |file: &'static str, text: &str| {
        std::fs::write(Path::new("/proc").join(pid.to_string()).join(file), text)
            .map_err(|error| (file, error))
    };
    if ids.deny_setgroups {
        write("setgroups", "deny")?;
    }
    write("uid_map", &ids.uid_map)?;
    write("gid_map", &ids.gid_map)
}

/// How it ended that should have been ready by now.
pub(super) fn early_end(status: rustix::io::Result<Option<WaitIdStatus>>) -> LauncherError {
    let status = match status {
        Ok(Some(status)) => status,
        Ok(None) => return LauncherError::Silent,
        Err(errno) => {
            return LauncherError::Failed(format!(
                "it ended before it was ready, and how can't be told: {errno}"
            ));
        }
    };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(NOT_EXECUTED), _) => LauncherError::NotExecuted,
        (Some(code), _) => {
            LauncherError::Failed(format!("it ended with code {code} before it was ready"))
        }
        (None, Some(libc::SIGKILL)) => LauncherError::EndedAtBirth("the launcher"),
        (None, signal) => LauncherError::Failed(format!(
            "signal {} ended it before it was ready",
            signal.unwrap_or_default()
        )),
    }
}
