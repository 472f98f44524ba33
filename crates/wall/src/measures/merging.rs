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
/// fs/proc/base.c), where the kernel shows it; its number of merged pages was in
/// `/proc/PID/ksm_merging_pages` (Linux 5.19) alone before Linux 6.4.
pub fn verify(pid: i32, missing: bool) -> Standing {
    if missing {
        return Standing::Missing("the worker could not turn it off".into());
    }
    let shown = |file| {
        let bytes = read(pid, file).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (stat, alone) = (shown("ksm_stat"), shown("ksm_merging_pages"));
    let line = |name: &str| {
        stat.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let merged = line("ksm_merging_pages ").unwrap_or(alone.trim());
    match (line("ksm_merge_any:"), merged) {
        (Some("yes"), _) => Standing::Missing("it is on for the whole worker".into()),
        (_, "") => Standing::Applied("this kernel shows nothing of it".into()),
        (Some(_), "0") => Standing::Verified("off, 0 pages merged".into()),
        (None, "0") => Standing::Verified("0 pages merged".into()),
        (_, merged) => Standing::Missing(format!("{merged} pages are merged")),
    }
}
