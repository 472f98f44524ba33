//! A call from outside: what is asked, what comes back.

use std::time::Duration;

use lazaret_image::Version;
use lazaret_wire::layout::{MAX_ARGUMENT, MAX_METHOD};
use lazaret_wire::message::{Call, Entry, Outcome, Sizes};

use super::error::CallError;
use super::meta::Meta;
use super::module::Module;
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
    module: &Module,
    entry: Entry,
    method: &str,
    argument: &[u8],
) -> Result<(), CallError> {
    let query = entry == Entry::Query;
    let may = module.methods.get(method).is_some_and(|kinds| match query {
        true => kinds.query || kinds.composite_query,
        false => kinds.update || kinds.query,
    });
    if !may || method.len() > MAX_METHOD {
        let (kind, prefix) = match query {
            true => ("query", "canister_query "),
            false => ("update", "canister_update "),
        };
        let mut names: Vec<String> = methods(&module.info, prefix, "")
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

/// Which kind of call: those of one kind wait behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Update,
    Query,
}

/// A call from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub method: &'a str,
    pub argument: &'a [u8],
    pub options: &'a CallOptions,
    /// Whether another one of its kind is to follow at once.
    pub more: bool,
}

impl<'a> Incoming<'a> {
    /// One that none is to follow.
    pub(super) fn new(method: &'a str, argument: &'a [u8], options: &'a CallOptions) -> Self {
        Self {
            method,
            argument,
            options,
            more: false,
        }
    }
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
    /// Makes `call` the request, on the state that `meta` and `sizes` are of. Its
    /// buffers are used again.
    pub(super) fn request(&self, call: &mut Call, principal: &[u8], meta: &Meta, sizes: Sizes) {
        call.entry = self.entry;
        call.method.clear();
        call.method.push_str(self.method);
        for (buffer, bytes) in [
            (&mut call.argument, self.argument),
            (&mut call.caller, &self.options.caller),
            (&mut call.canister, principal),
        ] {
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
        call.controller = self.options.controller;
        call.time = super::now();
        call.version = meta.version;
        call.cycles = meta.cycles;
        call.fuel = self.options.fuel.unwrap_or(self.fuel);
        call.certificate.clone_from(&self.options.certificate);
        call.sizes = sizes;
        call.globals.clone_from(&meta.globals);
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
