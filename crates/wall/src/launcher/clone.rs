//! `clone3`, and `clone` where a filter refuses it: a child with a copy of this
//! process's memory.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `struct clone_args` (kernel: `include/uapi/linux/sched.h`), as of Linux 5.3.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Which side of the clone this is.
pub enum Cloned {
    /// The new process.
    Child,
    /// The old one: the child's number in the caller's PID namespace, and its pidfd.
    Parent(i32, OwnedFd),
}

/// Clones this process with `flags` (namespaces), as fork does: the child has
/// a copy of the memory and goes on after the call.
///
/// # Safety
/// If this process has other threads, the child may only make system calls
/// (signal-safety(7)): locks may be held by threads that it doesn't have.
pub unsafe fn clone(flags: i32) -> Result<Cloned, Errno> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: (flags | libc::CLONE_PIDFD) as u32 as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args of the size given, and without
    // CLONE_VM the child gets a copy of this stack; the rest is the caller's
    // promise.
    let mut pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    if pid < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
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
