//! Pages of a worker are not merged with anybody's of the same content (KSM,
//! kernel: Documentation/admin-guide/mm/ksm.rst): a write to a merged page takes
//! longer, which tells that somebody else has that page.
//!
//! Merging asked for by `MADV_MERGEABLE` is a forbidden call. But a process can be
//! born with it (`PR_SET_MEMORY_MERGE`, Linux 6.4; systemd's `MemoryKSM=`), so a
//! worker turns it off.

use std::io;

use super::Standing;
use crate::layer::Probe;
use crate::layers::read;

const PR_SET_MEMORY_MERGE: i32 = 67;
const PR_GET_MEMORY_MERGE: i32 = 68;

/// Whether it is on for this process; an error of a kernel that can't be asked.
fn is_on() -> io::Result<bool> {
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) } {
        state if state >= 0 => Ok(state != 0),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Turns it off. A kernel that doesn't know it has nobody born with it.
pub fn apply() -> io::Result<()> {
    match is_on() {
        Ok(false) | Err(_) => return Ok(()),
        Ok(true) => {}
    }
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What this host has.
pub fn probe() -> Probe {
    Probe::Works(match is_on() {
        Ok(true) => "this process is merged; its workers are not".into(),
        Ok(false) => "it is off for this process already".into(),
        Err(_) => "this kernel merges nothing that didn't ask for it".into(),
    })
}

/// From outside: `/proc/PID/ksm_stat` (Linux 6.1; kernel: `proc_pid_ksm_stat`,
/// fs/proc/base.c), where the kernel shows it.
pub fn verify(pid: i32, missing: bool) -> Standing {
    if missing {
        return Standing::Missing("the worker could not turn it off".into());
    }
    let Ok(stat) = read(pid, "ksm_stat") else {
        return Standing::Applied("this kernel shows nothing of it".into());
    };
    let stat = String::from_utf8_lossy(&stat);
    let line = |name: &str| {
        stat.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    match (line("ksm_merge_any:"), line("ksm_merging_pages ")) {
        (Some("yes"), _) => Standing::Missing("it is on for the whole worker".into()),
        (any, Some("0")) => Standing::Verified(match any {
            Some(_) => "off, 0 pages merged".into(),
            None => "0 pages merged".into(),
        }),
        (_, merged) => Standing::Missing(format!(
            "{} pages are merged",
            merged.unwrap_or("an unknown number of")
        )),
    }
}
