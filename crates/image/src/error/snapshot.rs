//! What can go wrong with snapshots, forks and restores.

use std::path::PathBuf;

use super::{FileError, OpenError, SyncError};
use crate::page::{MAX_META, TenantId};

/// Why a snapshot or a fork couldn't be made. The image is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Something has that name already.
    #[error("{} exists already; remove it first or give another name", path.display())]
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// The path doesn't end in a name.
    #[error("{} does not end in the name of a directory to make", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// The image has more files than can be numbered.
    #[error("{} has too many files", path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
    },
    /// The commits so far couldn't be put on disk.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a snapshot couldn't be restored. The image is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// An earlier fsync failed.
    #[error("an earlier sync of {} failed, so what is on disk is unknown; open the image again", path.display())]
    Poisoned {
        /// The directory.
        path: PathBuf,
    },
    /// The snapshot can't be opened, or is damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The snapshot is another tenant's.
    #[error("{} is a snapshot of tenant {found}, not of {expected}; restore it only if that is meant", path.display())]
    OtherTenant {
        /// The snapshot's directory.
        path: PathBuf,
        /// This image's tenant.
        expected: TenantId,
        /// The snapshot's tenant.
        found: TenantId,
    },
    /// The snapshot couldn't be put on disk.
    #[error(transparent)]
    Sync(SyncError),
    /// The opaque bytes are too many.
    #[error("meta has {bytes} bytes; at most {MAX_META} can be kept with a version")]
    MetaTooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// There are too many files or versions to number.
    #[error("{} has too many files or versions", path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// It isn't known which manifest is in place: the image takes no more commits until it is opened again.
    #[error("{0}; the image takes no more commits until it is opened again")]
    Switch(#[source] FileError),
}
