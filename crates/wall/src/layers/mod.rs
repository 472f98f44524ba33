//! The layers, one file each: `probe`, `apply`, `verify`.
//!
//! `probe` tries the layer for real in a child process, `apply` puts it on in
//! the worker (or, for namespaces and limits, in the launcher), and `verify`
//! looks from outside, through `/proc/PID`, with the host's rights.

pub mod capabilities;
pub mod descriptors;
pub mod dumpable;
pub mod environment;
pub mod landlock;
pub mod mdwe;
pub mod namespaces;
pub mod no_new_privs;
pub mod rlimits;
pub mod root;
pub mod seccomp;

use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

/// A file of `/proc/PID`.
pub(crate) fn proc(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// What a file of `/proc/PID` holds, read in as few steps as it takes: the
/// kernel says of none of them how long it is.
pub(crate) fn read(pid: i32, file: &str) -> Result<Vec<u8>, String> {
    let fail = |errno: rustix::io::Errno| format!("/proc/{pid}/{file}: {errno}");
    let opened = rustix::fs::open(
        proc(pid, file),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(fail)?;
    let mut bytes = Vec::with_capacity(8 << 10);
    loop {
        bytes.reserve(4 << 10);
        match rustix::io::read(&opened, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
}

/// A field of `/proc/PID/status` (kernel: `fs/proc/array.c`), as text.
pub(crate) fn status_field<'a>(status: &'a str, name: &str) -> Result<&'a str, String> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .ok_or_else(|| format!("/proc/PID/status has no {name} line"))
}
