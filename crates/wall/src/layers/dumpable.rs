//! Not dumpable: no core file, and no other process of the same user may look
//! into a worker. The host still may: it owns the user namespace that the
//! worker was executed in (kernel: `__ptrace_may_access`, kernel/ptrace.c).

use crate::layer::{Layer, LayerError};

/// Clears the flag.
pub fn apply() -> Result<(), LayerError> {
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(LayerError::last(Layer::Rlimits, "prctl(PR_SET_DUMPABLE)")),
    }
}
