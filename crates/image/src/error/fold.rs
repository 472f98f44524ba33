//! What can go wrong with a fold.

use std::path::PathBuf;

use super::{FileError, ReadError, SyncError};
use crate::page::Version;

/// Why folding failed. The image is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// An earlier fsync failed.
    #[error("an earlier sync of {} failed, so what is on disk is unknown; open the image again", path.display())]
    Poisoned {
        /// The directory.
        path: PathBuf,
    },
    /// A fold of the image is under way.
    #[error("a fold of {} is under way; finish or drop its job first", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The job was told to stop. It may be run again.
    #[error("the fold was stopped")]
    Stopped,
    /// The job to finish hasn't been run to its end.
    #[error("the fold isn't complete; run its job first")]
    Unfinished,
    /// The job to finish isn't this image's newest one, or the image was restored meanwhile.
    #[error("the image is no longer the one that the fold began with; begin another")]
    Stale,
    /// The commits so far couldn't be put on disk.
    #[error("{0}")]
    Sync(#[source] FileError),
    /// A page couldn't be read, or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The image has more pages or files than the format or the index can hold.
    #[error("{} at version {version} is too large to fold", path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
        /// The version to fold.
        version: Version,
    },
    /// The new files couldn't be written; they were removed again.
    #[error(transparent)]
    File(#[from] FileError),
    /// It isn't known which manifest is in place: the image takes no more commits until it is opened again.
    #[error("{0}; the image takes no more commits until it is opened again")]
    Switch(#[source] FileError),
}

impl From<SealError> for FoldError {
    fn from(error: SealError) -> FoldError {
        match error {
            SealError::Sync(SyncError::Poisoned { path }) => FoldError::Poisoned { path },
            SealError::Sync(SyncError::File(error)) => FoldError::Sync(error),
            SealError::Full { path, version } => FoldError::TooLarge { path, version },
            SealError::File(error) => FoldError::File(error),
            SealError::Switch(error) => FoldError::Switch(error),
        }
    }
}

/// Why the log couldn't be sealed.
pub(crate) enum SealError {
    Sync(SyncError),
    Full { path: PathBuf, version: Version },
    File(FileError),
    Switch(FileError),
}

impl From<SyncError> for SealError {
    fn from(error: SyncError) -> SealError {
        SealError::Sync(error)
    }
}

impl From<FileError> for SealError {
    fn from(error: FileError) -> SealError {
        SealError::File(error)
    }
}
