//! The launcher: the small process that starts workers.
//!
//! It has one thread, few mappings and no secrets, so that starting a worker
//! costs the same however large the host is and however many workers live.

mod client;
mod clone;
mod ids;
mod process;
mod protocol;
mod root;
mod spawn;

pub use client::{
    DEPTH, Event, Grants, Launcher, LauncherError, LauncherOptions, Limits, Spawned, depth,
};
pub(crate) use clone::{Cloned, clone};
pub use ids::{HostIds, IdsError};
pub use process::main;
pub use protocol::{ExitStatus, Usage};
pub(crate) use root::{enter_empty, set_attributes};

/// `argv[0]` of a launcher.
pub const ARGV0: &std::ffi::CStr = c"lazaret:launcher";
