//! Why no launcher or worker could be started.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use lazaret_wire::socket::ChannelError;
use rustix::io::Errno;
use thiserror::Error;

use super::ids::IdsError;
use crate::cgroup::CgroupError;
use crate::layer::Layer;
use crate::shortage::{NoProcess, Resource};

/// How long the launcher may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Why no launcher or worker could be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// The executable can't be opened.
    #[error("worker executable: {0}")]
    Executable(#[source] io::Error),
    /// The executable can't be executed.
    #[error("worker executable: it can't be executed here: does a security module forbid it?")]
    NotExecuted,
    /// No user ids for workers.
    #[error(transparent)]
    Ids(#[from] IdsError),
    /// A layer is missing and the operator didn't accept that.
    #[error("{message}{}", layer.without())]
    Layer {
        /// The layer.
        layer: Layer,
        /// What failed and what to do.
        message: String,
    },
    /// A granted directory can't be used.
    #[error("directory {path}: {source}")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A worker has no control group, or not the one that it should have.
    #[error("{0}")]
    Cgroup(#[source] Box<CgroupError>),
    /// The kernel refused to make a process.
    #[error("{0}")]
    Process(#[source] NoProcess),
    /// The launcher failed for another reason.
    #[error("launcher: {0}")]
    Failed(String),
    /// It said nothing in time.
    #[error("launcher: no answer within {} s; does the worker executable call lazaret::init() first in main?", PATIENCE.as_secs())]
    Silent,
    /// The socket to it.
    #[error("launcher: {0}")]
    Channel(#[from] ChannelError),
    /// Somebody ended a process that was just being born.
    #[error("{0} was ended from outside as it was born; try again")]
    EndedAtBirth(&'static str),
    /// It has ended, and its workers with it.
    #[error("launcher: it has ended, and its workers with it")]
    Ended,
}

impl LauncherError {
    /// Whether somebody from outside has ended it, or the worker that was to be born: the
    /// same may succeed another time.
    pub fn was_killed(&self) -> bool {
        matches!(
            self,
            Self::Ended | Self::EndedAtBirth(_) | Self::Channel(ChannelError::Closed)
        )
    }
}

impl From<CgroupError> for LauncherError {
    fn from(error: CgroupError) -> Self {
        Self::Cgroup(Box::new(error))
    }
}

/// What the launcher said it failed for.
pub(super) fn refusal(layer: Option<String>, message: String, errno: i32) -> LauncherError {
    let layer = layer.and_then(|name| name.parse().ok());
    let errno = (errno > 0).then(|| Errno::from_raw_os_error(errno));
    no_process(layer, message, errno)
}

/// Why a process could not be made: a layer is missing, or there is too little of
/// something for it.
pub(super) fn no_process(
    layer: Option<Layer>,
    message: String,
    errno: Option<Errno>,
) -> LauncherError {
    match (layer, errno) {
        (_, Some(errno)) if Resource::of_clone(errno).is_some() => {
            LauncherError::Process(NoProcess {
                doing: message,
                errno,
            })
        }
        (None, Some(Errno::SRCH)) => LauncherError::EndedAtBirth("the worker"),
        (Some(layer), _) => LauncherError::Layer { layer, message },
        (None, _) => LauncherError::Failed(message),
    }
}
