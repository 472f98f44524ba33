//! seccomp: the kernel answers only the listed system calls.
//!
//! The list is [`mod@crate::policy`]'s. It is compiled for this architecture
//! alone: a call through another entry (32-bit `int 0x80`) is forbidden, and
//! x32 numbers are on no list.
//!
//! A forbidden call never happens. What becomes of the worker that tried it is
//! the filter's [`Denied`]: a filter with a listener freezes it for the host
//! to look at ([`crate::supervisor`]), one without kills it on the spot.

pub mod compile;
pub mod interpret;

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::status_field;
use crate::layer::{Layer, LayerError};
use crate::policy::{Kind, Policy, policy};

pub use compile::{Filter, TooLong};

/// What the kernel does with a worker that tries a forbidden call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Denied {
    /// Ends it at once by SIGSYS (`SECCOMP_RET_KILL_PROCESS`).
    Kill,
    /// Stops it in the call and tells the filter's listener
    /// (`SECCOMP_RET_USER_NOTIF`). Nobody ever lets the call go on; if the
    /// listener is closed, it fails with ENOSYS.
    Notify,
}

impl Denied {
    /// The action, as a filter returns it (seccomp(2)).
    pub const fn action(self) -> u32 {
        match self {
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// Compiles a policy for the kernel.
///
/// # Errors
/// If it is longer than a filter can be.
pub fn compile(policy: &Policy, denied: Denied) -> Result<Filter, LayerError> {
    compile::compile(policy, denied.action()).map_err(|error| LayerError {
        layer: Layer::Seccomp,
        step: "compile the filter",
        source: std::io::Error::other(error),
    })
}

/// The name of the filter that a worker of this kind loads last: the blake3
/// hash of its instructions, in hexadecimal.
///
/// # Errors
/// As for [`compile()`].
pub fn name(kind: Kind, denied: Denied) -> Result<String, LayerError> {
    // Few kinds are ever used, and each is asked for at every start.
    static NAMES: Mutex<Option<HashMap<(Kind, Denied), String>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(name) = names.get(&(kind, denied)) {
        return Ok(name.clone());
    }
    let filter = compile(&policy(kind), denied)?;
    let name = blake3::hash(&filter.bytes()).to_string();
    names.insert((kind, denied), name.clone());
    Ok(name)
}

/// Loads a filter whose forbidden calls kill. Filters stack: a later one only
/// narrows, except that of two actions the more severe is taken: behind a
/// filter that kills, none can notify any more.
///
/// # Errors
/// If the kernel refuses it.
pub fn load(filter: &Filter) -> Result<(), LayerError> {
    install(filter, 0).map(drop)
}

/// Loads a filter and returns its listener. A process has one listener at a
/// time in all of its filters: an earlier one must have been closed
/// (`has_duplicate_listener`, kernel: kernel/seccomp.c). Of two filters that
/// would notify, the newest does (`seccomp_run_filters`).
///
/// # Errors
/// If the kernel refuses it: with EBUSY where somebody outside listens to a
/// filter of this process already.
pub fn load_with_listener(filter: &Filter) -> Result<OwnedFd, LayerError> {
    let listener = install(filter, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: with this flag the kernel returns a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn install(filter: &Filter, flags: libc::c_ulong) -> Result<i32, LayerError> {
    let program = filter.program();
    // SAFETY: the program points to as many instructions as it says, which
    // `filter` keeps.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match i32::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(LayerError::last(Layer::Seccomp, "load the filter")),
    }
}

/// From outside: `Seccomp: 2`, with at least `filters` filters.
pub fn verify(status: &str, filters: u32) -> Result<String, String> {
    match status_field(status, "Seccomp")? {
        "2" => {}
        other => return Err(format!("Seccomp is {other}, not 2")),
    }
    // The count came with Linux 5.10.
    let found: u32 = status_field(status, "Seccomp_filters")?
        .parse()
        .map_err(|_| "Seccomp_filters is no number".to_owned())?;
    if found < filters {
        return Err(format!("{found} filters, expected {filters}"));
    }
    Ok(format!("Seccomp 2, {found} filters"))
}

#[cfg(test)]
mod tests;
