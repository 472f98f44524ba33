//! Core scheduling: tasks with different cookies never run on the threads of one
//! core at the same time (kernel: Documentation/admin-guide/hw-vuln/core-scheduling.rst,
//! Linux 5.14).
//!
//! Each worker has a cookie of its own, so a tenant's worker shares a core with no
//! other tenant's, and not with the host either. (Two workers of one tenant don't
//! share one as well: a cookie can only be handed on by a process that has both in
//! reach, and that would have to take it itself for a moment.)

use std::io;

use super::Standing;
use crate::layer::Probe;

const PR_SCHED_CORE: i32 = 62;
const GET: u64 = 0;
const CREATE: u64 = 1;
/// `PR_SCHED_CORE_SCOPE_THREAD`.
const THREAD: u64 = 0;

/// The cookie of a thread, 0 for none.
fn cookie(pid: i32) -> io::Result<u64> {
    let mut cookie = 0u64;
    let number = u64::from(pid.cast_unsigned());
    // SAFETY: a place for eight bytes on this stack.
    let done = unsafe { libc::prctl(PR_SCHED_CORE, GET, number, THREAD, &raw mut cookie as u64) };
    match done {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether cores run one thread at a time (kernel:
/// Documentation/ABI/testing/sysfs-devices-system-cpu, `smt/active`).
fn one_thread_a_core() -> bool {
    std::fs::read("/sys/devices/system/cpu/smt/active").is_ok_and(|active| active.starts_with(b"0"))
}

const ALONE: &str = "no core runs more than one thread, as far as this kernel knows (in a virtual machine the host decides)";

/// In words: ENODEV, as `sched_core_share_pid` has it without SMT, and EINVAL of a
/// kernel that doesn't know the call.
fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "the kernel has no core scheduling".into(),
        _ => error.to_string(),
    }
}

/// What this host has.
pub fn probe() -> Probe {
    match cookie(0) {
        Ok(_) => Probe::Works("a cookie for each worker".into()),
        Err(_) if one_thread_a_core() => Probe::Works(ALONE.into()),
        Err(error) => Probe::Missing(explain(&error)),
    }
}

/// Gives this process a cookie of its own.
pub fn apply() -> io::Result<()> {
    // SAFETY: plain numbers; 0 is this thread.
    match unsafe { libc::prctl(PR_SCHED_CORE, CREATE, 0u64, THREAD, 0u64) } {
        0 => Ok(()),
        _ if one_thread_a_core() => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// From outside: the worker has a cookie.
pub fn verify(pid: i32) -> Standing {
    match cookie(pid) {
        // Cookies are addresses in the kernel, hashed before they are told.
        Ok(cookie) if cookie != 0 => Standing::Verified(format!("cookie {cookie:x}")),
        Ok(_) => Standing::Missing("it has no cookie".into()),
        Err(_) if one_thread_a_core() => Standing::NotNeeded(ALONE.into()),
        Err(error) => Standing::Missing(explain(&error)),
    }
}
