//! What can go wrong with tenants, by operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use lazaret_image::{
    CommitError, CreateError, ExportError, FoldError, ImportError, OpenError, ReadError,
    RestoreError, SnapshotError,
};
use lazaret_wall::Shortage;
use lazaret_wire::DecodeError;
use lazaret_wire::message::Trap;
use thiserror::Error;

use super::back_off::HeldBack;
use super::disk::DiskQuota;
use crate::budget::{NodeMemory, Reservation};
use crate::compile::CompileError;
use crate::ending::Ending;
use crate::module::ModuleError;
use crate::pool::AllBusy;
use crate::quarantine::{QuarantineError, Quarantined};
use crate::registry::Change;
use crate::scheduler::QueueFull;
use crate::worker::WorkerError;

/// Why a call failed. After any of these the tenant is at the version before
/// the call, except where a variant says otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The guest rejected the call. What it wrote is kept.
    #[error("rejected (code 4, canister reject): {0}")]
    Reject(String),
    /// The guest trapped.
    #[error("trapped: {}", .0.message)]
    Trap(Trap),
    /// The guest returned without an answer. What it wrote is kept.
    #[error("the method returned without a reply")]
    NoReply,
    /// No such method.
    #[error("the tenant has no {kind} method `{method}`; it has: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NoMethod {
        /// `update` or `query`.
        kind: &'static str,
        /// The name asked for.
        method: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The argument is too large.
    #[error("the argument has {size} bytes; the limit is {limit}")]
    ArgumentTooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The host lacks something. Worth another try.
    #[error(
        "aborted for want of something that the host owns: {0}; nothing was changed, try again"
    )]
    Aborted(String),
    /// The tenant may grow, but the node's memory budget has too little left.
    /// Worth another try.
    #[error(transparent)]
    NodeMemory(#[from] NodeMemory),
    /// The commit would take more of the disk than the tenant may.
    #[error(transparent)]
    DiskQuota(#[from] DiskQuota),
    /// None of its code runs until it is released.
    #[error("the tenant is in quarantine since {}: {}; `lazaret release` lets it run again", .0.at, .0.reason)]
    Quarantined(Box<Quarantined>),
    /// The worker ended in the middle.
    #[error("the worker ended in the middle of the call: {0}; nothing was changed")]
    WorkerEnded(Ending),
    /// The time limit.
    #[error("the call took longer than {0:?} and was stopped; nothing was changed")]
    TimeLimit(Duration),
    /// Its workers ended in its last calls. Worth another try, later.
    #[error(transparent)]
    HeldBack(#[from] HeldBack),
    /// All workers that the host may have are busy. Worth another try.
    #[error(transparent)]
    AllBusy(#[from] AllBusy),
    /// A worker could not be started.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The module could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The pages of the worker could not be read or written.
    #[error("pages of the worker: {0}; nothing was changed")]
    Memory(#[source] io::Error),
    /// The host must copy the worker's pages, and the kernel refuses it.
    #[error(
        "the host may not reach into its worker's memory: {0}; let the worker copy its pages (page copy `worker` or `auto`), or allow it: kernel.yama.ptrace_scope below 3, and process_vm_readv and process_vm_writev in the container's seccomp profile"
    )]
    PageCopy(#[source] io::Error),
    /// A file of the image that was closed can't be opened again. Worth another try
    /// if it is for want of descriptors.
    #[error(
        "a file of the tenant's image can't be opened: {0}; raise the limit of open files (ulimit -n) if there are too many"
    )]
    ImageFiles(#[source] io::Error),
    /// The commit failed.
    #[error("the update ran but could not be committed: {0}")]
    Commit(#[from] CommitError),
    /// The image can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the image says of the tenant's state makes no sense.
    #[error("the tenant's state is of another version or damaged: {0}")]
    State(#[source] DecodeError),
    /// As many queries run as may.
    #[error(
        "{running} queries were running, which is the limit, and none ended within {waited:?}; try again, or raise the limit of queries"
    )]
    Busy {
        /// The limit.
        running: usize,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Compaction failed.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The tenant was removed.
    #[error("tenant `{0}` was removed")]
    Removed(String),
    /// As many calls of the tenant wait as may. Worth another try.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    /// There is no thread for submitted calls, and none can be had.
    #[error("no thread for the tenant's calls: {0}")]
    Thread(#[source] io::Error),
    /// The host has too little of something. Worth another try.
    #[error("{error}; {shortage}")]
    Shortage {
        /// Of what, and what to do.
        shortage: Shortage,
        /// What failed for that.
        #[source]
        error: Box<CallError>,
    },
}

/// Why a tenant could not be installed, upgraded, opened or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TenantError {
    /// A quarantine can't be kept, lifted or forgotten.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// A bad name.
    #[error("`{name}` is no name for a tenant: {reason}; use 1 to 64 of the characters a-z, A-Z, 0-9, `-`, `_`, `.`, and begin with a letter or digit", name = .name.escape_default())]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is there already.
    #[error(
        "tenant `{0}` exists already; `upgrade` replaces its module and keeps its state, `remove` deletes it"
    )]
    Exists(String),
    /// Snapshots of an earlier tenant of this name are still there.
    #[error(
        "there is no tenant `{name}`, but snapshots of one that is gone are in {path}; `remove` deletes them, or move them away, before the name is used again"
    )]
    SnapshotsLeft {
        /// The name.
        name: String,
        /// Where they are.
        path: PathBuf,
    },
    /// Somebody else is just installing or removing it.
    #[error("tenant `{name}` is being {change} by another thread; try again when that is done")]
    Busy {
        /// Its name.
        name: String,
        /// What is being done.
        change: Change,
    },
    /// It isn't there.
    #[error("there is no tenant `{name}` in {directory}; `lazaret ps` lists those that exist")]
    NotFound {
        /// The name.
        name: String,
        /// The data directory.
        directory: PathBuf,
    },
    /// The module is no good.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Or can't be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The initialising call failed.
    #[error("{step}: {error}")]
    Call {
        /// Which entry point.
        step: &'static str,
        /// Why.
        error: Box<CallError>,
    },
    /// The node's memory budget has too little left for the state. Worth another
    /// try.
    #[error(transparent)]
    NodeMemory(#[from] NodeMemory),
    /// The tenant would take more of the disk than it may.
    #[error(transparent)]
    DiskQuota(#[from] DiskQuota),
    /// The image can't be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The image can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A bad tag.
    #[error("`{tag}` is no tag for a snapshot: {reason}; use 1 to 64 of the characters a-z, A-Z, 0-9, `-`, `_`, `.`, and begin with a letter or digit", tag = .tag.escape_default())]
    Tag {
        /// The tag.
        tag: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no such snapshot.
    #[error("tenant `{name}` has no snapshot `{tag}`; it has: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NoSnapshot {
        /// The tenant.
        name: String,
        /// The tag asked for.
        tag: String,
        /// The tags there are.
        known: Vec<String>,
    },
    /// There is one already.
    #[error("tenant `{name}` has a snapshot `{tag}` already; delete it first, or give another tag")]
    SnapshotExists {
        /// The tenant.
        name: String,
        /// The tag.
        tag: String,
    },
    /// The snapshot or fork can't be made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The snapshot can't be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The archive can't be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The archive can't be used, or no image be made of it.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The archive is whole, but what is in it can't be a tenant.
    #[error("the archive is whole, but it can't be a tenant: {reason}")]
    Archive {
        /// Why.
        reason: String,
    },
    /// The image can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the image says of itself makes no sense.
    #[error("tenant `{name}`: its state is of another version or damaged: {source}")]
    State {
        /// The tenant.
        name: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The host has too little of something. Worth another try.
    #[error("{error}; {shortage}")]
    Shortage {
        /// Of what, and what to do.
        shortage: Shortage,
        /// What failed for that.
        #[source]
        error: Box<TenantError>,
    },
    /// A file of the tenant's.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The stored module isn't the one that the state names.
    #[error(
        "{path}: the stored module does not have the hash that the tenant's state names; restore the file"
    )]
    ModuleHash {
        /// Where.
        path: PathBuf,
    },
}

impl CallError {
    /// What a call was refused, if that is why it was aborted.
    pub(crate) fn or_refused(self, growth: &Reservation<'_>) -> Self {
        match (self, growth.refused()) {
            (Self::Aborted(_), Some(refused)) => Self::NodeMemory(refused),
            (error, _) => error,
        }
    }
}

impl TenantError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    pub(crate) fn call(step: &'static str) -> impl FnOnce(CallError) -> Self {
        move |error| Self::Call {
            step,
            error: Box::new(error),
        }
    }
}
