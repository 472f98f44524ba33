//! `clone3`, and `clone` where a filter refuses it: a child with a copy of this
//! process's memory.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `struct clone_args` (kernel: `include/uapi/linux/sched.h`), as of Linux 5.7.
#[repr(C, align(8))]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pub(super) pidfd: u64,
    pub(super) child_tid: u64,
    pub(super) parent_tid: u64,
    pub(super) exit_signal: u64,
    pub(super) stack: u64,
    pub(super) stack_size: u64,
    pub(super) tls: u64,
    pub(super) set_tid: u64,
    pub(super) set_tid_size: u64,
    pub(super) cgroup: u64,
}

/// `CLONE_INTO_CGROUP` (Linux 5.7): the child begins in the group whose directory
/// `cgroup` is.
pub(super) const INTO_CGROUP: u64 = 0x2_0000_0000;
/// Size of the structure without groups: Linux 5.3 to 5.4 know no longer one.
const WITHOUT_CGROUP: usize = 64;

/// Which side of the clone this is.
pub enum Cloned {
    /// The new process.
    Child,
    /// The old one: the child's number in the caller's PID namespace, and its pidfd.
    Parent(i32, OwnedFd),
}

/// Clones this process with `flags` (namespaces), as fork does: the child has
/// a copy of the memory and goes on after the call. Where the kernel can and may,
/// it begins in the control group `into`.
///
/// # Safety
/// If this process has other threads, the child may only make system calls
/// (signal-safety(7)): locks may be held by threads that it doesn't have.
pub unsafe fn clone(flags: i32, into: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: (flags | libc::CLONE_PIDFD) as u32 as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let mut pid = -1;
    if let Some(into) = into {
        args.flags |= INTO_CGROUP;
        args.cgroup = into.as_raw_fd() as u64;
        // SAFETY: as below.
        pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
        args.flags &= !INTO_CGROUP;
        args.cgroup = 0;
    }
    if pid < 0 {
        // SAFETY: `args` is a valid clone_args of the size given, and without
        // CLONE_VM the child gets a copy of this stack; the rest is the caller's
        // promise.
        pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, WITHOUT_CGROUP) };
    }
    let refused = match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOSYS) => true,
        // A filter may refuse all of clone3, and clone for its flags only.
        Some(libc::EPERM) => flags == 0,
        _ => false,
    };
    if pid < 0 && refused {
        // Docker's default profile answers ENOSYS to clone3, so that callers
        // fall back to clone, whose flags a filter can look at.
        // SAFETY: as above; arguments in the order of x86-64 and aarch64
        // (flags, stack, parent_tid = pidfd, ...).
        pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                (flags | libc::CLONE_PIDFD | libc::SIGCHLD) as u32 as u64,
                0u64,
                &raw mut pidfd,
                0u64,
                0u64,
            )
        };
    }
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has just stored a new descriptor there.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(pid as i32, pidfd))
        }
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}
