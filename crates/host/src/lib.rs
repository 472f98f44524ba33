//! Lazaret runs code nobody trusts at the price of code that one does.
//!
//! Every tenant's WebAssembly runs in an operating-system process of its own,
//! locked by several independent layers, and talks to a trusted host over one
//! narrow wire. This crate is the trusted side.
//!
//! * [`Host::program`] runs one WASI program, once, with only what it is given.
//! * [`Host::install`] makes a [`Tenant`]: a canister-style module whose memory
//!   is kept. [`Tenant::update`] runs a method and commits what it wrote;
//!   [`Tenant::query`] runs one on the last committed version.
//!
//! # The first line of `main`
//!
//! Launcher and workers are the same executable, started again. [`init`] is
//! where they begin, so it must be the first line of `main`.
#![deny(missing_docs)]

/// Having no memory left is an abort with a reason in a worker, never taken
/// for a break-out. A program with an allocator of its own turns the feature
/// `allocator` off and wraps its allocator in [`Guarded`].
#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: Guarded<std::alloc::System> = Guarded(std::alloc::System);

mod aside;
mod budget;
mod builder;
mod cache_dir;
mod compile;
mod data_dir;
mod ending;
mod fsck;
mod functions;
mod host;
pub mod incident;
mod init;
mod launchers;
pub mod live_worker;
mod measures;
mod memory;
pub mod metrics;
mod module;
mod page_copy;
mod pool;
mod program;
mod quarantine;
mod registry;
mod scheduler;
mod sealed;
mod stack;
mod supervisor;
mod tenant;
mod tracker;
mod watch;
mod worker;
mod worker_pages;

pub use budget::{MemoryBudget, NodeMemory};
pub use builder::{BuildError, Builder};
pub use compile::{CompileError, CompileLimits, Compiling};
pub use data_dir::DataDirError;
pub use ending::{Ending, Violation};
pub use fsck::{FsckError, FsckEvent, FsckFinding, fsck};
pub use functions::{Declaration, HostFunction, Offered, Rate};
pub use host::{Host, WORKER_KINDS};
pub use init::init;
pub use lazaret_guest::allocator::Guarded;
pub use lazaret_image::{ArchiveError, Depth, ExportError, Exported, ImportError, Severity};
pub use lazaret_wall as wall;
pub use lazaret_wall::cgroup::{CgroupError, CgroupOptions, Mode as CgroupMode};
pub use lazaret_wall::shortage::{Resource, Shortage};
pub use lazaret_wire as wire;
pub use lazaret_wire::message::{Clock, Trap, TrapKind};
pub use measures::{MeasureOptions, Refused};
pub use module::{MAX_MODULE, ModuleError, ModuleInfo, binary, inspect};
pub use page_copy::PageCopy;
pub use pool::{AllBusy, PoolOptions, PoolState, Priority};
pub use program::{
    DEFAULT_MEMORY, Input, Learned, Module, Output, Program, Report, RunError, SnapshotError,
    SnapshotUse, StreamError, UnusedCall, UsedCall, UsedDirectory, Verdict,
};
pub use quarantine::{QuarantineError, QuarantinePolicy, Quarantined};
pub use registry::Change;
pub use scheduler::{QueueFull, QueuedCall, SchedulerOptions, SchedulerState};
pub use tenant::archive::Progress;
pub use tenant::{
    ANONYMOUS, CallError, CallOptions, Checkpoint, CheckpointError, Commit, DamagedSnapshot,
    DiskQuota, HeldBack, LogLine, Replay, ReplayError, Replayed, Reply, Resident, SnapshotInfo,
    StateHash, Tenant, TenantError, TenantInfo, TenantLimits, check_name, check_tag,
};
pub use tracker::TrackerKind;
pub use worker::WorkerError;
