//! Why a worker could not be started, or didn't answer.

use lazaret_wall::launcher::LauncherError;
use lazaret_wall::receipt::Unverified;
use lazaret_wall::{Grade, Layer, LayerError};
use lazaret_wire::message::Failed;
use lazaret_wire::socket::ChannelError;
use lazaret_wire::{EncodeError, SharedError};
use thiserror::Error;

use crate::ending::Ending;
use crate::measures::Refused;

/// Why a worker could not be started, or didn't answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The launcher could not start it.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// A layer of its wall could not be put on.
    #[error("{message}{}", layer.without())]
    Layer {
        /// The layer.
        layer: Layer,
        /// What failed and what to do.
        message: String,
    },
    /// It could not be set up for another reason: usually the module's.
    #[error("{0}")]
    Setup(String),
    /// What was seen of it from outside is not what it should be.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// It ended.
    #[error("the worker ended: {0}")]
    Ended(Ending),
    /// A request is too large.
    #[error("the request is too large: {0}")]
    TooLarge(#[from] EncodeError),
    /// Shared memory.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The set-up socket.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Its wall is not as good as the operator demands.
    #[error("the wall has grade {grade} here ({}), and {required} is required (--require-grade): {missing}", grade.meaning())]
    Grade {
        /// Its grade.
        grade: Grade,
        /// The least that is accepted.
        required: Grade,
        /// What it lacks.
        missing: String,
    },
    /// A measure that the operator requires doesn't hold for it.
    #[error(transparent)]
    Measure(#[from] Refused),
    /// There is no thread or descriptor left to look after it.
    #[error("the supervisor of workers: {0}")]
    Supervisor(#[source] std::io::Error),
}

impl WorkerError {
    /// Whether it was ended from outside, or its launcher was, while it was set up:
    /// no fault of its own, nor of what it was to run.
    pub(crate) fn was_killed(&self) -> bool {
        match self {
            Self::Ended(ending) => ending.was_not_its_own(),
            Self::Launcher(error) => error.was_killed(),
            Self::Channel(error) => matches!(error, ChannelError::Closed),
            _ => false,
        }
    }
}

impl From<Failed> for WorkerError {
    fn from(failed: Failed) -> Self {
        match failed.layer.and_then(|name| name.parse().ok()) {
            Some(layer) => Self::Layer {
                layer,
                message: failed.message,
            },
            None => Self::Setup(failed.message),
        }
    }
}

impl From<Ending> for WorkerError {
    fn from(ending: Ending) -> Self {
        Self::Ended(ending)
    }
}

impl From<LayerError> for WorkerError {
    fn from(error: LayerError) -> Self {
        Self::Layer {
            layer: error.layer,
            message: error.to_string(),
        }
    }
}
