//! What can go wrong with archives.

use std::io;

use super::{CommitError, CreateError, ReadError, SyncError};
use crate::decode::DecodeError;
use crate::page::PageId;

/// Why an archive couldn't be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A page is damaged or can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The compressor refused.
    #[error("cannot compress: {0}")]
    Compress(#[source] io::Error),
    /// It can't be written.
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
}

/// Why an archive can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Something else.
    #[error("this is not an archive that `lazaret export` made: it begins with something else")]
    NotAnArchive,
    /// Written by a newer release.
    #[error(
        "the archive has format version {found}, newer than this release reads; use a newer release"
    )]
    NewerFormat {
        /// Its version.
        found: u32,
    },
    /// It is larger than the reader accepts.
    #[error("the archive has {found} {what}; the limit is {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: u64,
        /// The most that there may be.
        limit: u64,
    },
    /// It ends in the middle.
    #[error("the archive ends early, behind offset {offset}; get a whole copy of it")]
    Truncated {
        /// What should be at this offset isn't all there.
        offset: u64,
    },
    /// It can't be read.
    #[error("cannot read the archive at offset {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// The header or a frame has impossible fields.
    #[error("the archive is damaged at offset {offset}: {source}; get a whole copy of it")]
    Record {
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        source: DecodeError,
    },
    /// A frame's checksum doesn't match.
    #[error(
        "the archive is damaged: the frame at offset {offset} does not match its checksum; get a whole copy of it"
    )]
    Checksum {
        /// Where the frame begins.
        offset: u64,
    },
    /// The contents of a frame don't decompress into as many bytes as it says, or not at all.
    #[error(
        "the contents of the archive at offset {offset} do not decompress to what the frame says: {source}"
    )]
    Decompress {
        /// Where they begin.
        offset: u64,
        /// What the decompressor said.
        source: io::Error,
    },
    /// A frame is longer or shorter than it must be.
    #[error("the frame at offset {offset} has {found} bytes instead of {expected}")]
    FrameLength {
        /// Where the frame begins.
        offset: u64,
        /// The bytes that it should have.
        expected: u64,
        /// The bytes that it has.
        found: u64,
    },
    /// Another kind of frame should be here.
    #[error("a frame of kind {found} at offset {offset}, where one with {expected} must be")]
    Kind {
        /// Where it begins.
        offset: u64,
        /// What it should hold.
        expected: &'static str,
        /// The kind that it has.
        found: u32,
    },
    /// Pages don't ascend, or one is there twice.
    #[error(
        "in the frame at offset {offset}, {page} follows {previous}: pages must ascend, each once"
    )]
    Order {
        /// Where the frame begins.
        offset: u64,
        /// The page out of order.
        page: PageId,
        /// The page before it.
        previous: PageId,
    },
    /// A page lies outside its region.
    #[error(
        "in the frame at offset {offset}, {page} lies outside the region, which has {size} bytes"
    )]
    Outside {
        /// Where the frame begins.
        offset: u64,
        /// The page.
        page: PageId,
        /// The region's size in bytes.
        size: u64,
    },
    /// Header or trailer say something else than there is.
    #[error("the archive says that it has {stated} {what}, but has {found}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many it says.
        stated: u64,
        /// How many there are (or are so far).
        found: u64,
    },
    /// The module isn't the one that the header names.
    #[error("the module in the archive does not have the hash that its header gives")]
    ModuleHash,
    /// The hash over all doesn't match.
    #[error("the archive is damaged: the hash of all of it does not match; get a whole copy of it")]
    Hash,
    /// Something follows the trailer.
    #[error("the archive ends at offset {offset}, but something follows; get a copy without that")]
    Behind {
        /// Where it should end.
        offset: u64,
    },
}

/// Why no image could be made of an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The archive is no good.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The image can't be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// Or not be filled.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Or not be put on disk.
    #[error(transparent)]
    Sync(#[from] SyncError),
}
