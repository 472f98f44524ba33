//! What can go wrong with control groups.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::limits::LimitsError;

/// Why a control group could not be had, or doesn't hold.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The limits contradict each other or are none.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// They are required, and something is missing.
    #[error(
        "control groups are required (--cgroup require), but {missing}; {remedy}; or run with the limits underneath only (--cgroup auto)"
    )]
    Required {
        /// What is missing, and why.
        missing: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A limit was asked for that needs a controller which is missing.
    #[error(
        "{option} needs the {controller} controller, but {why}; {remedy}; or leave {option} out"
    )]
    Asked {
        /// The option.
        option: &'static str,
        /// The controller's name.
        controller: &'static str,
        /// Why it can't be used.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file or directory of the control group file system.
    #[error("control group {path}: {action}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is seen of a worker's group is not what it should be.
    #[error("control group of worker {pid}: {found}")]
    Unverified {
        /// The worker's number.
        pid: i32,
        /// What was found.
        found: String,
    },
}

impl CgroupError {
    /// An error of `action` on `path`.
    pub(super) fn file(path: &Path, action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let (path, action) = (path.to_owned(), action.into());
        move |source| Self::File {
            path,
            action,
            source,
        }
    }
}
