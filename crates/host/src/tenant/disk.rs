//! The disk quota of a tenant: what it pays for, and what a commit may take.
//!
//! A tenant pays for base and logs of its newest version, for the saved hashes
//! of its state, and for what its snapshots hold beyond that. A file that
//! several of these share by hard links is paid for once. A fork pays for all of
//! its own files, shared with its origin or not: what it pays doesn't change
//! with what others do.
//!
//! Not counted: the second copy that a compaction writes, which is there for as
//! long as it takes and is what makes room; the log of printed lines, which has
//! a bound of its own; the module, which tenants share by its hash.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lazaret_image::{CommitError, Image};
use lazaret_wire::layout::PAGE;
use thiserror::Error;

use super::lane::Lane;

/// The file with the saved hashes of a state (image crate, `docs/format.md`).
const HASHES: &str = "tree";

/// A tenant may not take so much of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the tenant takes {used} of its quota of {quota} bytes on disk, {snapshots} of them by its snapshots alone, and this takes at least {needed} more; nothing was changed: delete snapshots, write less at a time, or raise the quota (--disk-quota)"
)]
#[non_exhaustive]
pub struct DiskQuota {
    /// Bytes that it takes.
    pub used: u64,
    /// Those of them that only snapshots hold.
    pub snapshots: u64,
    /// Bytes that were wanted, at least.
    pub needed: u64,
    /// The quota.
    pub quota: u64,
}

/// What a tenant may take of the disk, and where else than in its image it does.
#[derive(Debug)]
pub(super) struct Disk {
    quota: Option<u64>,
    directory: PathBuf,
    /// Directories of snapshots are in here.
    snapshots: PathBuf,
}

/// Bytes that a tenant pays for beside its image.
#[derive(Debug, Clone, Copy, Default)]
struct Beside {
    /// The saved hashes.
    hashes: u64,
    /// Files of snapshots that the image doesn't refer to.
    snapshots: u64,
    /// All files of snapshots.
    all_snapshots: u64,
}

impl Disk {
    /// The disk of the tenant in `directory`, whose snapshots are in directories
    /// in `snapshots`.
    pub(super) fn new(quota: Option<u64>, directory: PathBuf, snapshots: PathBuf) -> Self {
        Self {
            quota,
            directory,
            snapshots,
        }
    }

    /// The quota in bytes.
    pub(super) fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// Tells the image what it may take: to be called whenever the snapshots or
    /// the image's files have changed. Nothing without a quota.
    pub(super) fn apply(&self, image: &mut Image) {
        let Some(quota) = self.quota else { return };
        match self.beside() {
            Ok(beside) => image.set_quota(Some(
                quota.saturating_sub(beside.hashes.saturating_add(beside.snapshots)),
            )),
            // The bound from before holds: an update isn't lost for this.
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "what the snapshots take could not be measured");
            }
        }
    }

    /// An error if the tenant takes more than its quota, or would with `more`.
    pub(super) fn check(&self, image: &Image, more: u64) -> Result<(), DiskQuota> {
        let Some(quota) = self.quota else {
            return Ok(());
        };
        let error = self.error(quota, image.disk_bytes(), more);
        match error.used.saturating_add(more) <= quota {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// An error if a new tenant of so many bytes would be over the quota.
    pub(super) fn check_new(&self, bytes: u64) -> Result<(), DiskQuota> {
        match self.quota {
            Some(quota) if bytes > quota => Err(DiskQuota {
                used: 0,
                snapshots: 0,
                needed: bytes,
                quota,
            }),
            _ => Ok(()),
        }
    }

    /// What to say of a commit that the image refused.
    pub(super) fn explain(&self, error: &CommitError) -> Option<DiskQuota> {
        match (self.quota, error) {
            (Some(quota), CommitError::Quota { used, needed, .. }) => {
                Some(self.error(quota, *used, *needed))
            }
            _ => None,
        }
    }

    fn error(&self, quota: u64, image: u64, needed: u64) -> DiskQuota {
        let beside = self.beside().unwrap_or_default();
        DiskQuota {
            used: image
                .saturating_add(beside.hashes)
                .saturating_add(beside.snapshots),
            snapshots: beside.snapshots,
            needed,
            quota,
        }
    }

    /// Whether compacting the image makes room for `needed` bytes. It doesn't if
    /// snapshots hold on to what the image then no longer needs.
    fn fold_makes_room(&self, image: &Image, needed: u64) -> bool {
        let (Some(quota), Ok(beside)) = (self.quota, self.beside()) else {
            return false;
        };
        let after = image.stored_pages().saturating_mul(PAGE as u64);
        after
            .saturating_add(beside.all_snapshots)
            .saturating_add(beside.hashes)
            .saturating_add(needed)
            <= quota
    }

    /// Looks at the files. The image's own are those in the tenant's directory.
    fn beside(&self) -> io::Result<Beside> {
        let mut beside = Beside::default();
        let mut own = HashSet::new();
        for (name, metadata) in files(&self.directory)? {
            if name == HASHES {
                beside.hashes = metadata.len();
            }
            own.insert((metadata.dev(), metadata.ino()));
        }
        let mut held = HashSet::new();
        for directory in directories(&self.snapshots)? {
            for (_, metadata) in files(&directory)? {
                let id = (metadata.dev(), metadata.ino());
                if !held.insert(id) {
                    continue;
                }
                beside.all_snapshots += metadata.len();
                if !own.contains(&id) {
                    beside.snapshots += metadata.len();
                }
            }
        }
        Ok(beside)
    }
}

fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        // No snapshots, or removed just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn files(directory: &Path) -> io::Result<Vec<(String, Metadata)>> {
    let mut files = Vec::new();
    for entry in entries(directory)? {
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => {
                files.push((entry.file_name().to_string_lossy().into_owned(), metadata));
            }
            Ok(_) => {}
            // Removed meanwhile, by a compaction.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn directories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = entries(directory)?.into_iter();
    Ok(entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

impl Lane {
    /// Compacts the image now, in the lane.
    pub(super) fn fold(&mut self, disk: &Disk) -> Result<(), lazaret_image::FoldError> {
        self.image.fold()?;
        disk.apply(&mut self.image);
        Ok(())
    }

    /// Makes room for a commit that the quota refused, if compacting does.
    pub(super) fn make_room(&mut self, disk: &Disk, error: &CommitError) -> bool {
        let CommitError::Quota { needed, .. } = error else {
            return false;
        };
        // Files may have gone since: snapshots, or what a compaction replaced.
        let before = self.image.disk_bytes();
        if disk.fold_makes_room(&self.image, *needed)
            && let Err(error) = self.fold(disk)
        {
            tracing::debug!(%error, "no room could be made under the disk quota");
        }
        disk.apply(&mut self.image);
        self.image.disk_bytes() < before || disk.check(&self.image, *needed).is_ok()
    }
}
