//! Snapshots and forks: other directories with the same files.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Action, FileError, SnapshotError};
use crate::format::{MANIFEST, MAX_LOGS, Manifest, SealedLog, ShardEntry, log_name, shard_name};
use crate::image::Image;
use crate::log::{create_unsynced, random};
use crate::numbers::FileNumbers;
use crate::page::{FileId, TenantId};
use crate::storage::Storage;

/// Files of one directory, linked into another: how the other's manifest lists them.
pub(crate) struct Linked {
    pub(crate) shards: Vec<ShardEntry>,
    pub(crate) sealed: Vec<SealedLog>,
}

impl<S: Storage> Image<S> {
    /// Makes the directory `to`, which must not exist, an image of the newest version and the same tenant. It shares
    /// the files of this one, so it takes little time and no room, whatever the size of the state; but where links
    /// can't be made, as on another file system, they are copied.
    ///
    /// All commits so far are on disk then, and so is the snapshot: it appears whole or not at all. Nothing that
    /// happens to this image, not even its removal, changes it.
    ///
    /// # Errors
    ///
    /// If `to` exists, or the operating system refuses. There is no snapshot then, unless the error was in syncing
    /// the parent directory. The image is as it was.
    pub fn snapshot(&mut self, to: &Path) -> Result<(), SnapshotError> {
        self.branch(to, self.manifest.tenant)
    }

    /// Like [`snapshot`](Image::snapshot), but the new image is another tenant's, whose id is returned. To fork a
    /// snapshot, open it and fork that.
    ///
    /// # Errors
    ///
    /// As for [`snapshot`](Image::snapshot).
    pub fn fork(&mut self, to: &Path) -> Result<TenantId, SnapshotError> {
        let tenant = random(&*self.storage).map(TenantId)?;
        self.branch(to, tenant)?;
        Ok(tenant)
    }

    fn branch(&mut self, to: &Path, tenant: TenantId) -> Result<(), SnapshotError> {
        // Not a sync alone: if the end of the log rotted, this image must not take it for a torn tail and cut what the
        // snapshot shares.
        self.checkpoint()?;
        let aside = aside(to).ok_or_else(|| SnapshotError::Name {
            path: to.to_path_buf(),
        })?;
        let fail = |action, path: &Path, source: io::Error| {
            SnapshotError::File(FileError::at(action, path.to_path_buf(), 0, source))
        };
        // What a crash left there.
        self.storage
            .discard_directory(&aside)
            .map_err(|error| fail(Action::Remove, &aside, error))?;
        let made = self
            .storage
            .make_directory(&aside)
            .map_err(|error| fail(Action::Create, &aside, error))
            .and_then(|target| {
                self.fill(&target, tenant)?;
                target
                    .move_directory(to)
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::AlreadyExists => SnapshotError::Exists {
                            path: to.to_path_buf(),
                        },
                        _ => fail(Action::Rename, &aside, error),
                    })
            });
        if let Err(error) = made {
            let _ = self.storage.discard_directory(&aside);
            return Err(error);
        }
        self.storage
            .fsync_parent(to)
            .map_err(|error| fail(Action::Sync, to, error))
    }

    /// Makes the empty directory an image of the newest version, on disk.
    fn fill(&self, target: &S, tenant: TenantId) -> Result<(), SnapshotError> {
        let numbers = FileNumbers::from(FileId(0));
        let too_many = || SnapshotError::TooLarge {
            path: self.storage.path().to_path_buf(),
        };
        let linked = self
            .link_into(target, &numbers, &mut Vec::new())?
            .ok_or_else(too_many)?;
        let log = create_unsynced(target, numbers.take().ok_or_else(too_many)?)?;
        let manifest = Manifest {
            tenant,
            version: self.version,
            sizes: self.manifest.sizes,
            next_file: numbers.next(),
            shards: linked.shards,
            sealed: linked.sealed,
            log: log.entry.clone(),
            meta: self.manifest.meta.clone(),
        };
        // Nobody sees any of it before the directory is renamed, so nothing need be on disk before something else. The
        // first sync has a journal write all the names and inodes there are, and the others find that done.
        manifest.write(target, MANIFEST)?;
        log.sync(target)?;
        let synced = target.fsync_dir();
        synced.map_err(|error| FileError::new(target, Action::Sync, "", 0, error))?;
        Ok(())
    }

    /// Links all files of the newest version into `to`, under numbers of its own, each listed in `made` before it
    /// exists. All of the active log must be on disk. `None` if there are more logs or files than can be listed.
    pub(crate) fn link_into(
        &self,
        to: &S,
        numbers: &FileNumbers,
        made: &mut Vec<String>,
    ) -> Result<Option<Linked>, FileError> {
        let mut link = |from: String, name: String| {
            made.push(name.clone());
            let linked = self.storage.link(&from, to, &name);
            linked.map_err(|error| FileError::new(to, Action::Link, &name, 0, error))
        };
        let mut linked = Linked {
            shards: self.manifest.shards.clone(),
            sealed: self.manifest.sealed.clone(),
        };
        linked.sealed.extend(self.active_as_sealed());
        if linked.sealed.len() >= MAX_LOGS as usize {
            return Ok(None);
        }
        for shard in &mut linked.shards {
            let Some(file) = numbers.take() else {
                return Ok(None);
            };
            link(shard_name(shard.file), shard_name(file))?;
            shard.file = file;
        }
        for log in &mut linked.sealed {
            let Some(file) = numbers.take() else {
                return Ok(None);
            };
            link(log_name(log.file), log_name(file))?;
            log.file = file;
        }
        Ok(Some(linked))
    }
}

/// Where the directory `to` is made: `.NAME.new` beside it.
fn aside(to: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(to.file_name()?);
    name.push(".new");
    Some(to.with_file_name(name))
}
