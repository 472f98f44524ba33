//! The launcher: the small process that starts workers.
//!
//! It has one thread, few mappings and no secrets, so that starting a worker
//! costs the same however large the host is and however many workers live.

mod birth;
mod book;
mod borrow;
mod client;
mod clone;
mod copies;
mod error;
mod ids;
mod options;
mod process;
mod protocol;
mod root;
mod spawn;
mod starting;
mod strangers;

pub use birth::{DEPTH, depth};
pub use book::Event;
pub use client::{Launcher, Ordered, Spawned, lowers_limits};
pub(crate) use clone::{Cloned, clone};
pub use error::LauncherError;
pub use ids::{HostIds, IdsError};
pub use options::{Grants, LauncherOptions, Limits};
pub use process::main;
pub use protocol::{ExitStatus, SETUP_FD, Usage};
pub(crate) use root::{enter_empty, set_attributes};
pub use starting::Starting;

/// `argv[0]` of a launcher.
pub const ARGV0: &std::ffi::CStr = c"lazaret:launcher";
