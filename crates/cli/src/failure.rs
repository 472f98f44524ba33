//! Everything that can go wrong with a command, and what it exits with.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use lazaret::incident::StoreError;
use lazaret::live_worker::LiveWorkerError;
use lazaret::{
    ArchiveError, BuildError, CallError, CgroupError, CheckpointError, CompileError, FsckError,
    ImportError, ModuleError, ReplayError, StreamError, TenantError,
};
use thiserror::Error;

use crate::encoded::ArgumentError;
use crate::interface::InterfaceError;
use crate::module_file::shown;
use crate::output::chain;

/// Why a command failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// `lazaret` alone.
    #[error("what shall it do? Try `lazaret run PROGRAM.wasm`, or `lazaret --help` for all verbs")]
    NoVerb,
    /// Options of a benchmark that don't go together.
    #[error("{0}")]
    Suite(&'static str),
    /// A module can't be read.
    #[error("module {}: {source}", shown(path))]
    ReadModule {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A module is no good.
    #[error("module {}: {source}", shown(path))]
    Module {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: ModuleError,
    },
    /// An argument for a program is no text.
    #[error("the argument {argument:?} is not UTF-8, which WASI asks for")]
    ProgramArgument {
        /// Which.
        argument: OsString,
    },
    /// The file for standard input can't be opened.
    #[error("--stdin {}: {source}", path.display())]
    Stdin {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The standard streams can't be used.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A report, a man page can't be written.
    #[error("{}: {source}", path.display())]
    WriteFile {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard output can't be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// There is no data directory.
    #[error("there is no data directory {}: `lazaret install` makes one, --data names another", path.display())]
    NoData {
        /// Where it should be.
        path: PathBuf,
    },
    /// An argument for a tenant.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// An argument or a reply that doesn't fit the interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The host can't be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A tenant can't be installed, upgraded, opened or removed.
    #[error("{}", tenant_words(.0))]
    Tenant(Box<TenantError>),
    /// A call failed.
    #[error("{tenant}.{method}: {}", call_words(error))]
    Call {
        /// The tenant.
        tenant: String,
        /// The method.
        method: String,
        /// Why.
        error: CallError,
    },
    /// Some tenants can't be read.
    #[error("{0} of the tenants can't be read; the table says why")]
    Damaged(usize),
    /// Some snapshots can't be read.
    #[error("{0} of the snapshots can't be read; the table says why")]
    DamagedSnapshots(usize),
    /// A checkpoint can't be made.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The record of incidents can't be read.
    #[error(transparent)]
    Incidents(#[from] StoreError),
    /// An incident can't be run again.
    #[error("{}", chain(&**.0))]
    Replay(#[from] Box<ReplayError>),
    /// Some incidents can't be read.
    #[error("{0} of the incidents can't be read; the list says why")]
    DamagedIncidents(usize),
    /// The workers that run can't be listed.
    #[error(transparent)]
    ListWorkers(#[from] LiveWorkerError),
    /// Some workers are not as they should be.
    #[error("{0} of the workers are not as they were verified, or can't be looked at")]
    LiveWorkers(usize),
    /// A check can't be made.
    #[error(transparent)]
    Fsck(#[from] FsckError),
    /// A check found damage.
    #[error("{0} findings of damage; nothing was changed")]
    DamageFound(usize),
    /// An archive can't be opened.
    #[error("archive {}: {source}", shown(path))]
    ReadArchive {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output shows what is written there.
    #[error("an archive is nothing for a terminal: name a file, or send standard output elsewhere")]
    Terminal,
    /// The benchmark.
    #[error(transparent)]
    Bench(#[from] lazaret_bench::BenchError),
    /// There is no attack to be run.
    #[error("no attack has {filter:?} in its name or kind; `lazaret redteam --list` prints all")]
    NoAttack {
        /// What was looked for.
        filter: String,
    },
    /// A layer that can't be taken off.
    #[cfg(target_arch = "x86_64")]
    #[error("--without: {0}")]
    Barrier(#[from] lazaret_redteam::drill::UnknownBarrier),
    /// The red team can't go on.
    #[cfg(target_arch = "x86_64")]
    #[error("red team: {0}")]
    RedTeam(#[from] Box<lazaret_redteam::range::RangeError>),
    /// Attacks are native code.
    #[cfg(not(target_arch = "x86_64"))]
    #[error("the attacks are native code for x86-64, and this is another architecture")]
    NoRedTeam,
}

/// The Internet Computer's reject code for a canister that trapped or didn't
/// reply (interface specification, "Reject codes").
const CANISTER_ERROR: &str = "code 5, canister error";

/// A call's error, with its reject code.
fn call_words(error: &CallError) -> String {
    match error {
        CallError::Trap(trap) => format!("trapped ({CANISTER_ERROR}): {}", trap.message),
        CallError::NoReply => format!("did not reply ({CANISTER_ERROR})"),
        other => chain(other),
    }
}

fn tenant_words(error: &TenantError) -> String {
    match error {
        TenantError::Call { step, error } => format!("{step}: {}", call_words(error)),
        other => chain(other),
    }
}

/// Bad usage: an argument, a name, a method or a module that can't be used.
const USAGE: u8 = 2;
/// The tenant rejected or trapped.
const TENANT: u8 = 3;
/// The host failed.
const HOST: u8 = 1;

fn call_code(error: &CallError) -> u8 {
    match error {
        CallError::Reject(_) | CallError::Trap(_) | CallError::NoReply => TENANT,
        CallError::NoMethod { .. }
        | CallError::ArgumentTooLarge { .. }
        | CallError::Compile(CompileError::Invalid(_)) => USAGE,
        _ => HOST,
    }
}

fn tenant_code(error: &TenantError) -> u8 {
    match error {
        TenantError::Name { .. }
        | TenantError::Exists(_)
        | TenantError::SnapshotsLeft { .. }
        | TenantError::NotFound { .. }
        | TenantError::Tag { .. }
        | TenantError::NoSnapshot { .. }
        | TenantError::SnapshotExists { .. }
        | TenantError::Module(_)
        | TenantError::Archive { .. }
        | TenantError::Compile(CompileError::Invalid(_)) => USAGE,
        TenantError::Import(ImportError::Archive(error)) => match error {
            ArchiveError::Read { .. } => HOST,
            _ => USAGE,
        },
        TenantError::Call { error, .. } => call_code(error),
        _ => HOST,
    }
}

fn replay_code(error: &ReplayError) -> u8 {
    match error {
        ReplayError::NoTenant { .. }
        | ReplayError::NoCall { .. }
        | ReplayError::StateGone { .. }
        | ReplayError::AnotherTenant { .. } => USAGE,
        ReplayError::Tenant(error) => tenant_code(error),
        ReplayError::Worker(error) => call_code(error),
        _ => HOST,
    }
}

// Not `#[from]`, which would make it the source too: its words are told already.
impl From<TenantError> for Failure {
    fn from(error: TenantError) -> Self {
        Self::Tenant(Box::new(error))
    }
}

impl Failure {
    /// What the command exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Barrier(_) => USAGE,
            #[cfg(not(target_arch = "x86_64"))]
            Self::NoRedTeam => USAGE,
            Self::Suite(_)
            | Self::NoVerb
            | Self::ReadModule { .. }
            | Self::Module { .. }
            | Self::ProgramArgument { .. }
            | Self::Stdin { .. }
            | Self::Stream(_)
            | Self::Argument(_)
            | Self::NoData { .. }
            | Self::ReadArchive { .. }
            | Self::Terminal
            | Self::NoAttack { .. }
            | Self::Incidents(StoreError::NotFound { .. } | StoreError::Ambiguous { .. })
            | Self::Fsck(FsckError::NotFound { .. })
            | Self::Build(BuildError::Cgroup(CgroupError::Limits(_)))
            | Self::Interface(InterfaceError::Parse { .. } | InterfaceError::Misfit { .. }) => {
                USAGE
            }
            Self::Replay(error) => replay_code(error),
            Self::Tenant(error) => tenant_code(error),
            Self::Call { error, .. } => call_code(error),
            _ => HOST,
        }
    }

    /// The Wasm backtrace of a trap, a frame a line; empty without one.
    pub(crate) fn backtrace(&self) -> String {
        let error = match self {
            Self::Call { error, .. } => error,
            Self::Tenant(tenant) => match &**tenant {
                TenantError::Call { error, .. } => error,
                _ => return String::new(),
            },
            _ => return String::new(),
        };
        match error {
            CallError::Trap(trap) if !trap.backtrace.trim().is_empty() => {
                format!("{}\n", trap.backtrace.trim_end())
            }
            _ => String::new(),
        }
    }
}
