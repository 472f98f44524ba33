//! What [`check`](crate::check) found wrong, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use crate::decode::DecodeError;
use crate::error::{Damage, FileError, OpenError};
use crate::page::{PageId, TenantId};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing; nothing is lost and nothing is in the way.
    Note,
    /// A crash left something that nobody refers to. The next open removes it.
    Leftover,
    /// Something that was kept can't be read, or isn't what was kept.
    Damage,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Leftover => "leftover",
            Severity::Damage => "damage",
        })
    }
}

/// One thing that was found, and where.
#[derive(Debug)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, in bytes, if that means something.
    pub offset: Option<u64>,
    /// The first and the last page that are lost by it, as far as it is known. (Between them there may be others.)
    pub pages: Option<(PageId, PageId)>,
    /// What it is.
    pub problem: Problem,
}

/// What a finding is. The messages name neither the file nor the place in it: those are in the [`Finding`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The directory holds no image.
    #[error("the directory has no manifest, so there is no image")]
    NoManifest,
    /// Written by a newer release.
    #[error("format version {found} is newer than this release reads")]
    NewerFormat {
        /// The version in the file.
        found: u32,
    },
    /// A manifest or a shard's header is damaged.
    #[error("the header is damaged: {0}")]
    Record(DecodeError),
    /// A commit that was on disk is damaged.
    #[error("an acknowledged commit is damaged: {0}")]
    Segment(Damage),
    /// A page isn't what was written.
    #[error("the page is damaged: its checksum does not match")]
    Page,
    /// A file of another tenant.
    #[error("the file belongs to tenant {found}, not to {expected}")]
    OtherTenant {
        /// The tenant that the manifest names.
        expected: TenantId,
        /// The tenant found.
        found: TenantId,
    },
    /// Not the file that the manifest lists.
    #[error("this is not the file that the manifest lists: its {what} differs")]
    Mismatch {
        /// What differs.
        what: &'static str,
    },
    /// A file is longer or shorter than it must be.
    #[error("the file has {found} bytes instead of {expected}")]
    Length {
        /// The bytes that it should have.
        expected: u64,
        /// The bytes that it has.
        found: u64,
    },
    /// Larger than this release can address.
    #[error("the file is too large for this release")]
    TooLarge,
    /// The operating system refused.
    #[error("cannot {} it: {}", .0.action, .0.source)]
    File(FileError),
    /// What a crash left at the end of the active log, in front of which all is sound.
    #[error("the last {bytes} bytes are no whole commit: {damage}")]
    TornTail {
        /// How many bytes.
        bytes: u64,
        /// Why they aren't a published segment.
        damage: Damage,
    },
    /// A file of the image's that its manifest doesn't name.
    #[error("the manifest does not name this file: a crash left it{}", match .bytes { Some(bytes) => format!(", {bytes} bytes"), None => String::new() })]
    Leftover {
        /// Its length, if that could be found.
        bytes: Option<u64>,
    },
    /// Not a file of an image.
    #[error("this is not a part of an image")]
    Foreign,
}

impl Problem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Problem::TornTail { .. } | Problem::Foreign => Severity::Note,
            Problem::Leftover { .. } => Severity::Leftover,
            _ => Severity::Damage,
        }
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Problem::NewerFormat { .. } | Problem::TooLarge => "use a newer release",
            Problem::OtherTenant { .. } => "put the right file back",
            Problem::File(error) if error.source.kind() != std::io::ErrorKind::NotFound => {
                match error.remedy().trim_start_matches("; ") {
                    "" => "see that it can be read, and check again",
                    remedy => remedy,
                }
            }
            Problem::TornTail { .. } => {
                "nothing needs to be done: unless its update was acknowledged, it was never kept, and the next start cuts it"
            }
            Problem::Leftover { .. } => "nothing needs to be done: the next start removes it",
            Problem::Foreign => "move it away if you don't know it",
            _ => "restore the directory from a backup or a snapshot",
        }
    }
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.problem.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity(), self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        match self.pages {
            Some((first, last)) if first == last => write!(f, ", {first}")?,
            Some((first, last)) => write!(f, ", {first} to {}", last.page())?,
            None => {}
        }
        write!(f, ": {}; {}", self.problem, self.problem.remedy())
    }
}

impl From<OpenError> for Finding {
    fn from(error: OpenError) -> Finding {
        let (path, offset, problem) = match error {
            OpenError::Missing { path } => (path, None, Problem::NoManifest),
            OpenError::InUse { path } => {
                let source = std::io::ErrorKind::WouldBlock.into();
                let error = FileError::at(crate::error::Action::Open, path.clone(), 0, source);
                (path, None, Problem::File(error))
            }
            OpenError::NewerFormat {
                path,
                offset,
                found,
            } => (path, Some(offset), Problem::NewerFormat { found }),
            OpenError::Record {
                path,
                offset,
                source,
            } => (path, Some(offset), Problem::Record(source)),
            OpenError::Segment {
                path,
                offset,
                damage,
            } => (path, Some(offset), Problem::Segment(damage)),
            OpenError::OtherTenant {
                path,
                offset,
                expected,
                found,
            } => (path, Some(offset), Problem::OtherTenant { expected, found }),
            OpenError::Mismatch { path, what } => (path, None, Problem::Mismatch { what }),
            OpenError::Length {
                path,
                expected,
                found,
            } => (path, None, Problem::Length { expected, found }),
            OpenError::TooLarge { path } => (path, None, Problem::TooLarge),
            OpenError::File(error) => {
                let offset = (error.action == crate::error::Action::Read).then_some(error.offset);
                (error.path.clone(), offset, Problem::File(error))
            }
        };
        let pages = match &problem {
            Problem::Segment(Damage::Page { page }) => Some((*page, *page)),
            _ => None,
        };
        Finding {
            path,
            offset,
            pages,
            problem,
        }
    }
}
