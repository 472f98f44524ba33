//! Speculation controls of one process (kernel:
//! Documentation/userspace-api/spec_ctrl.rst).
//!
//! They are forced off, so that the worker can't turn them on again. Where the
//! processor isn't affected there is nothing to do; where the kernel has turned
//! the control on for all processes, or has no control, prctl(2) says so.

use std::io;

use super::Standing;
use crate::layer::Probe;
use crate::layers::status_field;

const PR_GET_SPECULATION_CTRL: i32 = 52;
const PR_SET_SPECULATION_CTRL: i32 = 53;
/// `PR_SPEC_PRCTL`: the control can be set for a task.
const PRCTL: i32 = 1;
/// `PR_SPEC_DISABLE`: the speculation is off.
const DISABLE: i32 = 4;
/// `PR_SPEC_FORCE_DISABLE`: the speculation is off for good.
const FORCE_DISABLE: i32 = 8;

/// A kind of speculation.
#[derive(Debug)]
pub struct Speculation {
    /// `PR_SPEC_*`: which.
    which: u64,
    /// Its line in `/proc/PID/status` (kernel: `task_seccomp`, fs/proc/array.c).
    line: &'static str,
}

/// `PR_SPEC_STORE_BYPASS`.
pub const STORE_BYPASS: Speculation = Speculation {
    which: 0,
    line: "Speculation_Store_Bypass",
};

/// `PR_SPEC_INDIRECT_BRANCH`.
pub const INDIRECT_BRANCH: Speculation = Speculation {
    which: 1,
    line: "SpeculationIndirectBranch",
};

/// What the kernel shows of a task's state, in its own words.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// Off, for this task or for all.
    Off,
    /// The processor isn't affected.
    NotAffected,
    /// On.
    On,
}

/// Reads the words of `/proc/PID/status` (`task_seccomp`, fs/proc/array.c).
fn shown(words: &str) -> Shown {
    match words {
        "not vulnerable" | "not affected" => Shown::NotAffected,
        "thread force mitigated"
        | "thread mitigated"
        | "globally mitigated"
        | "conditional force disabled"
        | "conditional disabled"
        | "always disabled" => Shown::Off,
        _ => Shown::On,
    }
}

impl Speculation {
    /// What this process may set.
    fn state(&self) -> io::Result<i32> {
        // SAFETY: plain numbers.
        match unsafe { libc::prctl(PR_GET_SPECULATION_CTRL, self.which, 0, 0, 0) } {
            state if state >= 0 => Ok(state),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What this host has.
    pub fn probe(&self) -> Probe {
        match self.state() {
            Ok(0) => Probe::Works("the processor is not affected".into()),
            Ok(state) if state & (DISABLE | FORCE_DISABLE) != 0 => {
                Probe::Works("off for this process already".into())
            }
            Ok(state) if state & PRCTL != 0 => {
                Probe::Works("can be forced off for a process".into())
            }
            Ok(_) => Probe::Missing(
                "it is on for all processes, and the kernel has no control for one".into(),
            ),
            Err(error) => Probe::Missing(error.to_string()),
        }
    }

    /// Forces it off for this process, for good.
    pub fn apply(&self) -> io::Result<()> {
        match self.state()? {
            0 => return Ok(()),
            state if state & FORCE_DISABLE != 0 => return Ok(()),
            // Off for all: PRCTL isn't set, and there is nothing to force.
            state if state & PRCTL == 0 && state & DISABLE != 0 => return Ok(()),
            _ => {}
        }
        let off = u64::from(FORCE_DISABLE.cast_unsigned());
        // SAFETY: plain numbers.
        match unsafe { libc::prctl(PR_SET_SPECULATION_CTRL, self.which, off, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// From outside: the kernel's own words.
    pub fn verify(&self, status: &str) -> Standing {
        match status_field(status, self.line) {
            Ok(words) => match shown(words) {
                Shown::Off => Standing::Verified(words.to_owned()),
                Shown::NotAffected => Standing::NotNeeded(words.to_owned()),
                Shown::On => Standing::Missing(words.to_owned()),
            },
            Err(missing) => Standing::Missing(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word that fs/proc/array.c has for the two lines.
    #[test]
    fn the_kernel_s_words_are_understood() {
        for (words, standing) in [
            ("unknown", Shown::On),
            ("not vulnerable", Shown::NotAffected),
            ("thread force mitigated", Shown::Off),
            ("thread mitigated", Shown::Off),
            ("thread vulnerable", Shown::On),
            ("globally mitigated", Shown::Off),
            ("vulnerable", Shown::On),
            ("unsupported", Shown::On),
            ("not affected", Shown::NotAffected),
            ("conditional force disabled", Shown::Off),
            ("conditional disabled", Shown::Off),
            ("conditional enabled", Shown::On),
            ("always enabled", Shown::On),
            ("always disabled", Shown::Off),
        ] {
            assert_eq!(shown(words), standing, "{words}");
        }
        let status = "Seccomp:\t2\nSpeculation_Store_Bypass:\tthread force mitigated\n";
        assert_eq!(
            STORE_BYPASS.verify(status),
            Standing::Verified("thread force mitigated".into())
        );
        assert!(!INDIRECT_BRANCH.verify(status).holds());
    }
}
