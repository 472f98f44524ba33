//! One error type an operation.

mod archive;
mod fold;
mod snapshot;

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::decode::DecodeError;
use crate::page::{MAX_META, MAX_SIZE, PAGE_SIZE, PageId, Region, TenantId};
use crate::storage::Storage;

pub use archive::{ArchiveError, ExportError, ImportError};
pub use fold::FoldError;
pub(crate) use fold::SealError;
pub use snapshot::{RestoreError, SnapshotError};

/// What was being done when the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Opening or locking a file or directory.
    Open,
    /// Making a file or directory.
    Create,
    /// Listing a directory.
    List,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Waiting until something is on disk.
    Sync,
    /// Cutting a file.
    Truncate,
    /// Giving a file another name.
    Rename,
    /// Removing a name.
    Remove,
    /// Giving a file a further name, or copying it.
    Link,
    /// Drawing random bytes.
    Random,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Open => "open",
            Action::Create => "create",
            Action::List => "list",
            Action::Read => "read",
            Action::Write => "write",
            Action::Sync => "sync",
            Action::Truncate => "truncate",
            Action::Rename => "rename",
            Action::Remove => "remove",
            Action::Link => "link or copy",
            Action::Random => "draw a tenant id for",
        })
    }
}

/// The operating system refused something.
#[derive(Debug)]
pub struct FileError {
    /// What was being done.
    pub action: Action,
    /// To which file or directory.
    pub path: PathBuf,
    /// Where in the file, in bytes; 0 if that means nothing here.
    pub offset: u64,
    /// What the operating system said.
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn at(action: Action, path: PathBuf, offset: u64, source: io::Error) -> FileError {
        FileError {
            action,
            path,
            offset,
            source,
        }
    }

    pub(crate) fn new<S: Storage>(
        storage: &S,
        action: Action,
        name: &str,
        offset: u64,
        source: io::Error,
    ) -> FileError {
        FileError {
            action,
            path: storage.path().join(name),
            offset,
            source,
        }
    }

    /// What to do about it, where that is known.
    pub(crate) fn remedy(&self) -> &'static str {
        match self.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => "; free some space and try again",
            Some(Errno::ROFS) => "; mount the file system writable or give another directory",
            Some(Errno::ACCESS | Errno::PERM) => {
                "; the directory must belong to the user that the host runs as"
            }
            Some(Errno::IO) => "; check the disk and the kernel log",
            Some(Errno::MFILE | Errno::NFILE) => "; raise the limit of open files",
            _ => "",
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.action, self.path.display())?;
        if matches!(self.action, Action::Read | Action::Write) {
            write!(f, " at offset {}", self.offset)?;
        }
        write!(f, ": {}{}", self.source, self.remedy())
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why an image couldn't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is an image already.
    #[error("{} holds an image already; remove it first or give another directory", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else has the directory open.
    #[error("{} is in use by another process; stop that first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What is wrong with a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The header is not a valid one.
    #[error("segment header: {0}")]
    Header(#[from] DecodeError),
    /// The segment goes beyond the end of the file.
    #[error("the segment takes {expected} bytes, the file has {found} more")]
    Short {
        /// The bytes that it takes.
        expected: u64,
        /// The bytes that the file has from there on.
        found: u64,
    },
    /// The segment doesn't continue the one before.
    #[error(
        "the segment has version {found} where version {expected} should follow, or follows another history"
    )]
    Chain {
        /// The version that should come here.
        expected: u64,
        /// The version that the header gives.
        found: u64,
    },
    /// The header claims that more of the log was durable than there was.
    #[error("the segment claims {durable_upto} durable bytes in front of it")]
    DurableUpto {
        /// What it claims.
        durable_upto: u64,
    },
    /// A page doesn't match its checksum.
    #[error("the checksum of {page} does not match")]
    Page {
        /// Which.
        page: PageId,
    },
}

/// Why an image couldn't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no image.
    #[error("{} holds no image (it has no manifest); create one first", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else has the directory open.
    #[error("{} is in use by another process; stop that first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error("{} at offset {offset}: format version {found} is newer than this release reads; use a newer release", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The version found there.
        found: u32,
    },
    /// The manifest or a shard's header is damaged.
    #[error("{} at offset {offset} is damaged: {source}; restore the directory from a backup", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        source: DecodeError,
    },
    /// A commit that was on disk is damaged.
    #[error("{} at offset {offset}: an acknowledged commit is damaged: {damage}; restore the directory from a backup", path.display())]
    Segment {
        /// The log.
        path: PathBuf,
        /// Where the segment begins.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// A file of another tenant.
    #[error("{} at offset {offset} belongs to tenant {found}, not to {expected}; put the right file back", path.display())]
    OtherTenant {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The manifest's tenant.
        expected: TenantId,
        /// The tenant found.
        found: TenantId,
    },
    /// A shard isn't the one that the manifest lists.
    #[error("{} is not the file that the manifest lists: its {what} differs; restore the directory from a backup", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A file is longer or shorter than it must be.
    #[error("{} has {found} bytes instead of {expected}; restore the directory from a backup", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The bytes that it should have.
        expected: u64,
        /// The bytes that it has.
        found: u64,
    },
    /// The image is larger than the index can address.
    #[error("{} is too large for this release", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a commit failed. The image is at the version that it had before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// An earlier fsync failed.
    #[error("an earlier sync of {} failed, so what is on disk is unknown; open the image again", path.display())]
    Poisoned {
        /// The directory.
        path: PathBuf,
    },
    /// The pages aren't in ascending order, or one is there twice.
    #[error("{page} follows {previous}: pages must be in ascending order, each once")]
    Order {
        /// The page out of order.
        page: PageId,
        /// The page before it.
        previous: PageId,
    },
    /// A page lies outside its region.
    #[error("{page} lies outside the region, which has {size} bytes")]
    Outside {
        /// The page.
        page: PageId,
        /// The region's size in bytes.
        size: u64,
    },
    /// A region would be too large.
    #[error("{size} bytes of {region} are more than the limit of {MAX_SIZE}")]
    Size {
        /// The region.
        region: Region,
        /// Its size in bytes.
        size: u64,
    },
    /// `meta` is too long.
    #[error("{length} bytes of meta are more than the limit of {MAX_META}")]
    Meta {
        /// Its length in bytes.
        length: usize,
    },
    /// The image may not take so much space.
    #[error("{} would take more than its quota of {quota} bytes; it takes {used}, this commit at least {needed}", path.display())]
    Quota {
        /// The directory.
        path: PathBuf,
        /// The limit in bytes.
        quota: u64,
        /// What the image takes.
        used: u64,
        /// What the commit takes at least.
        needed: u64,
    },
    /// The log or the version number has reached its end.
    #[error("the log of {} is full; fold the image", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
    },
    /// The pages couldn't be read from where they come from.
    #[error("cannot read the pages to commit: {0}")]
    Source(#[source] io::Error),
    /// The disk is full. Commits work again when there is space.
    #[error(transparent)]
    NoSpace(FileError),
    /// The operating system refused to write. The next commit may succeed.
    #[error(transparent)]
    Write(FileError),
    /// The sync failed: the image takes no more commits until it is opened again.
    #[error("{0}; the image takes no more commits until it is opened again")]
    Sync(#[source] FileError),
}

impl CommitError {
    pub(crate) fn writing(error: FileError) -> CommitError {
        match error.source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => CommitError::NoSpace(error),
            _ => CommitError::Write(error),
        }
    }
}

/// Why [`sync`](crate::Image::sync) or [`checkpoint`](crate::Image::checkpoint) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// An earlier fsync failed.
    #[error("an earlier sync of {} failed, so what is on disk is unknown; open the image again", path.display())]
    Poisoned {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused. If the action is a sync, the image takes no more commits until it is opened again.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why pages couldn't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The buffer has another size than the pages.
    #[error("a buffer of {found} bytes for {pages} pages of {PAGE_SIZE} bytes")]
    Buffer {
        /// The pages asked for.
        pages: usize,
        /// The length of the buffer.
        found: usize,
    },
    /// A page on disk isn't what was written.
    #[error("{} at offset {offset}: {page} is damaged: its checksum does not match; restore the directory from a backup", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The page.
        page: PageId,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why an image couldn't be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// Somebody else has the directory open.
    #[error("{} is in use by another process; stop that first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such directory.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds files that aren't an image's.
    #[error("{} holds {name:?}, which is not a part of an image; move it away first", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The file.
        name: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}
