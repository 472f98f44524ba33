//! The file that a worker runs can't be written by whoever runs it: it is sealed,
//! or on a read-only mount of its own ([`crate::executable`]).

use rustix::fs::{Mode, OFlags};

use super::Standing;
use crate::executable::unwritable;
use crate::layer::Probe;
use crate::layers::proc;

/// What the launcher does here.
pub fn probe() -> Probe {
    Probe::Works("the launcher seals it, or mounts it read-only".into())
}

/// From outside: the mount, or the seals, of `/proc/PID/exe`.
pub fn verify(pid: i32) -> Standing {
    let opened = rustix::fs::open(
        proc(pid, "exe"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    match opened {
        Ok(file) => match unwritable(file) {
            Some(how) => Standing::Verified(how.to_owned()),
            None => Standing::Missing("its executable is neither sealed nor read-only".into()),
        },
        Err(errno) => Standing::Missing(format!("/proc/PID/exe: {errno}")),
    }
}
