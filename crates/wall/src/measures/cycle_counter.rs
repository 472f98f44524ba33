//! The cycle counter can't be read: `rdtsc` and `rdtscp` on x86-64, `cntvct_el0`
//! on aarch64 (since Linux 6.12) end the process by SIGSEGV (prctl(2),
//! `PR_SET_TSC`).
//!
//! The vDSO's fine clocks read the counter in user space, so a process that took
//! this can't ask for them: clock_gettime(2) of the coarse clocks, and system
//! calls, still work. A tenant's worker asks for no clock at all (its filter
//! allows none, so where the vDSO has no clock it would have been a forbidden
//! call), a program's only for coarse ones unless it was given exact ones, and
//! the compiler times its passes: it keeps the counter.

use std::io;

use super::Standing;
use crate::layer::Probe;

/// Has reads refused, for this process and for good: the running filter has no
/// prctl.
pub fn apply() -> io::Result<()> {
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What this host has.
pub fn probe() -> Probe {
    let mut state = 0i32;
    // SAFETY: a place for an int on this stack.
    match unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut state, 0, 0, 0) } {
        0 => Probe::Works("reading it can be refused".into()),
        _ => Probe::Missing(io::Error::last_os_error().to_string()),
    }
}

/// There is no trace of it in `/proc`; the red team tries it from inside.
pub fn verify(missing: bool) -> Standing {
    match missing {
        false => Standing::Applied("reading it is refused: the worker's word".into()),
        true => Standing::Missing("the worker could not have it refused".into()),
    }
}
