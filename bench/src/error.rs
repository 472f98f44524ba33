//! Why a table could not be made.

use std::io;

use thiserror::Error;

/// Why a table could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The host could not be made.
    #[error(transparent)]
    Host(#[from] lazaret::BuildError),
    /// A tenant could not be installed.
    #[error(transparent)]
    Tenant(#[from] lazaret::TenantError),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] lazaret::CallError),
    /// A checkpoint failed.
    #[error(transparent)]
    Checkpoint(#[from] lazaret::CheckpointError),
    /// The engine of the in-process baseline.
    #[error("in-process baseline: {step}: {message}")]
    InProcess {
        /// The step.
        step: &'static str,
        /// What the engine says.
        message: String,
    },
    /// A guest answered something else than it must.
    #[error(
        "{who} answered {found:?}, not {expected:?}: what it did is not what was to be measured"
    )]
    Answer {
        /// Which side.
        who: &'static str,
        /// Its answer.
        found: Vec<u8>,
        /// What it should have been.
        expected: Vec<u8>,
    },
    /// A program that is to be measured failed.
    #[error("`{program}` failed: {message}")]
    Program {
        /// Its command line.
        program: String,
        /// How.
        message: String,
    },
    /// A plot can't be drawn.
    #[error("{}: {message}", path.display())]
    Plot {
        /// The file that it was to be in.
        path: std::path::PathBuf,
        /// Why.
        message: String,
    },
    /// The operating system refused something.
    #[error("{step}: {source}")]
    System {
        /// What.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl BenchError {
    pub(crate) fn system(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    pub(crate) fn in_process(step: &'static str) -> impl Fn(wasmtime::Error) -> Self {
        move |error| Self::InProcess {
            step,
            message: format!("{error:#}"),
        }
    }
}
