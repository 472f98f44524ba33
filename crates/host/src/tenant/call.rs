//! A call from outside: what is asked, what comes back.

use std::time::Duration;

use lazaret_image::Version;
use lazaret_wire::layout::{MAX_ARGUMENT, MAX_METHOD};
use lazaret_wire::message::{Call, Entry, Outcome, Sizes};

use super::error::CallError;
use super::meta::Meta;
use crate::module::ModuleInfo;

/// Who calls, and with what limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOptions {
    /// The caller's principal; the anonymous one if not set.
    pub caller: Vec<u8>,
    /// Whether the caller counts as a controller.
    pub controller: bool,
    /// Fuel, if not the tenant's limit.
    pub fuel: Option<u64>,
    /// Wall-clock time, if not the tenant's limit.
    pub time: Option<Duration>,
    /// A certificate that a query may read.
    pub certificate: Option<Vec<u8>>,
}

/// The anonymous principal (Internet Computer interface specification,
/// "Principals").
pub const ANONYMOUS: &[u8] = &[4];

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            caller: ANONYMOUS.to_vec(),
            controller: true,
            fuel: None,
            time: None,
            certificate: None,
        }
    }
}

/// A reply, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The bytes: Candid, as a rule.
    pub bytes: Vec<u8>,
    /// Fuel used.
    pub fuel_used: u64,
    /// The version of the tenant's memory that the call ran on.
    pub version: u64,
    /// What was committed; nothing for a query or an update that changed
    /// nothing.
    pub committed: Option<Commit>,
}

/// A committed update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The version of the tenant's memory that it made.
    pub version: u64,
    /// Pages of 4 KiB that were written.
    pub pages: u64,
    /// Time from the request to the worker's answer.
    pub run_time: Duration,
    /// Time to find them.
    pub scan_time: Duration,
    /// Time to copy them out of the worker and write them to the page cache.
    pub write_time: Duration,
    /// Time until they were on disk.
    pub sync_time: Duration,
}

/// Refuses what can't be called, before any worker is troubled.
pub(super) fn check(
    info: &ModuleInfo,
    entry: Entry,
    method: &str,
    argument: &[u8],
) -> Result<(), CallError> {
    let known = |prefix: &str| {
        info.exports
            .iter()
            .any(|export| export.strip_prefix(prefix) == Some(method))
    };
    let (kind, prefix, other) = match entry {
        Entry::Query => ("query", "canister_query ", "canister_composite_query "),
        _ => ("update", "canister_update ", "canister_update "),
    };
    if !(known("canister_query ") || known(other)) || method.len() > MAX_METHOD {
        let mut names: Vec<String> = methods(info, prefix, "")
            .map(|name| name.trim().to_owned())
            .collect();
        // What a compiler adds for itself is nobody's to call.
        names.retain(|name| !name.starts_with("__") && !name.starts_with('@'));
        return Err(CallError::NoMethod {
            kind,
            method: method.to_owned(),
            known: names,
        });
    }
    if argument.len() > MAX_ARGUMENT {
        return Err(CallError::ArgumentTooLarge {
            size: argument.len(),
            limit: MAX_ARGUMENT,
        });
    }
    Ok(())
}

/// The methods whose exports begin with `prefix`, as `kind name`.
pub(super) fn methods<'a>(
    info: &'a ModuleInfo,
    prefix: &'static str,
    kind: &'static str,
) -> impl Iterator<Item = String> + 'a {
    info.exports
        .iter()
        .filter_map(move |export| Some(format!("{kind} {}", export.strip_prefix(prefix)?)))
}

/// What a worker is told, for a call at a version.
pub(super) struct Asked<'a> {
    pub entry: Entry,
    pub method: &'a str,
    pub argument: &'a [u8],
    pub options: &'a CallOptions,
    /// Fuel, if the options say nothing.
    pub fuel: u64,
}

impl Asked<'_> {
    /// The request, on the state that `meta` and `sizes` are of.
    pub(super) fn request(&self, principal: &[u8], meta: &Meta, sizes: Sizes) -> Call {
        Call {
            entry: self.entry,
            method: self.method.to_owned(),
            argument: self.argument.to_vec(),
            caller: self.options.caller.clone(),
            canister: principal.to_vec(),
            controller: self.options.controller,
            time: super::now(),
            version: meta.version,
            cycles: meta.cycles,
            fuel: self.options.fuel.unwrap_or(self.fuel),
            certificate: self.options.certificate.clone(),
            sizes,
            globals: meta.globals.clone(),
            close_heap: Vec::new(),
            close_stable: Vec::new(),
        }
    }
}

/// The reply of a call that ran on `version`.
pub(super) fn reply(
    outcome: Outcome,
    fuel_used: u64,
    version: Version,
    committed: Option<Commit>,
) -> Result<Reply, CallError> {
    bytes(outcome).map(|bytes| Reply {
        bytes,
        fuel_used,
        version: version.0,
        committed,
    })
}

/// What a call replied, or why it didn't.
pub(super) fn bytes(outcome: Outcome) -> Result<Vec<u8>, CallError> {
    match outcome {
        Outcome::Reply(bytes) => Ok(bytes),
        Outcome::Reject(message) => Err(CallError::Reject(message)),
        Outcome::Trap(trap) => Err(CallError::Trap(trap)),
        Outcome::NoReply => Err(CallError::NoReply),
        Outcome::NoMethod => Err(CallError::NoMethod {
            kind: "such",
            method: String::new(),
            known: Vec::new(),
        }),
        Outcome::Aborted(reason) => Err(CallError::Aborted(reason)),
    }
}
