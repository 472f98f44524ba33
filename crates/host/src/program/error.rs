//! Why a program could not be run.

use std::path::PathBuf;

use lazaret_wall::Shortage;
use lazaret_wall::launcher::{IdsError, LauncherError};
use thiserror::Error;

use super::snapshot::SnapshotError;
use super::streams::StreamError;
use crate::compile::CompileError;
use crate::module::ModuleError;
use crate::worker::WorkerError;

/// Why a program could not be run at all. How one ended that ran is a
/// [`Verdict`](super::Verdict).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The module is no good.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Or can't be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A directory can't be granted.
    #[error("--dir {path}: {reason}")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No snapshot could be made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A stream can't be used.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The launcher.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// The worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The host has too little of something. Worth another try.
    #[error("{error}; {shortage}")]
    Shortage {
        /// Of what, and what to do.
        shortage: Shortage,
        /// What failed for that.
        #[source]
        error: Box<RunError>,
    },
}

impl RunError {
    /// Whether the same may succeed later, as nothing is wrong with what was asked.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Shortage { .. } => true,
            Self::Compile(error) => error.is_retryable(),
            Self::Launcher(error) => error.was_killed(),
            Self::Worker(error) => error.was_killed(),
            _ => false,
        }
    }

    /// The same, with what the host has too little of if it comes of that.
    pub(super) fn or_shortage(self) -> Self {
        match Shortage::behind(&self) {
            Some(shortage) => Self::Shortage {
                shortage,
                error: Box::new(self),
            },
            None => self,
        }
    }

    /// Whether the fault is the module's or the caller's rather than the host's.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Module(_)
                | Self::Snapshot(SnapshotError::Exited { .. } | SnapshotError::Memory { .. })
                | Self::Directory { .. }
                | Self::Stream(_)
                | Self::Compile(CompileError::Invalid(_))
                | Self::Worker(WorkerError::Setup(_))
                | Self::Launcher(LauncherError::Ids(
                    IdsError::NotRoot { .. } | IdsError::Zero
                ))
        )
    }
}
