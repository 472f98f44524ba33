//! Replacing the manifest atomically.

use crate::encode::encode_manifest;
use crate::error::{Action, FileError};
use crate::format::{MANIFEST, MANIFEST_NEW, Manifest, ShardEntry};
use crate::image::Image;
use crate::storage::Storage;

/// How far replacing the manifest came.
#[derive(Debug)]
pub(crate) enum SwitchError {
    /// The old manifest is in place.
    Before(FileError),
    /// It isn't known which manifest is, or will be after a power cut.
    Unknown(FileError),
}

impl SwitchError {
    pub(crate) fn into_inner(self) -> FileError {
        match self {
            SwitchError::Before(error) | SwitchError::Unknown(error) => error,
        }
    }
}

impl<S: Storage> Image<S> {
    /// Makes `manifest` the image's: its files are on disk, and their names. If it isn't known which manifest is
    /// in place, neither the old files nor the new ones may be touched: a power cut may bring back either.
    pub(crate) fn switch(&mut self, mut manifest: Manifest) -> Result<(), SwitchError> {
        manifest.next_file = self.numbers.next();
        let switched = manifest.replace(&*self.storage);
        match switched {
            Ok(()) => {
                self.settled_bytes = manifest.settled_bytes();
                self.manifest = manifest;
            }
            Err(SwitchError::Before(_)) => {}
            Err(SwitchError::Unknown(_)) => self.shared.poison(),
        }
        switched
    }

    /// Removes files that no manifest on disk refers to. Returns how many couldn't be; the next open removes those.
    pub(crate) fn unlink_all(&self, names: impl IntoIterator<Item = String>) -> usize {
        let failed = names
            .into_iter()
            .filter(|name| self.storage.unlink(name).is_err());
        failed.count()
    }
}

impl Manifest {
    /// Bytes of the base and of the sealed logs.
    pub(crate) fn settled_bytes(&self) -> u64 {
        let shards = self.shards.iter().map(ShardEntry::file_len);
        let sealed = self.sealed.iter().map(|log| log.length);
        // What is counted was opened, so the sum of the lengths exists on the disk.
        shards.chain(sealed).fold(0, u64::saturating_add)
    }

    /// Writes it to the file `name`, in place of what an earlier attempt left there, and syncs that (but not the name).
    pub(crate) fn write<S: Storage>(&self, storage: &S, name: &str) -> Result<(), FileError> {
        let fail = |action, source| FileError::new(storage, action, name, 0, source);
        let file = match storage.create(name) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                storage
                    .unlink(name)
                    .map_err(|error| fail(Action::Remove, error))?;
                storage.create(name)
            }
            created => created,
        };
        let file = file.map_err(|error| fail(Action::Create, error))?;
        storage
            .pwrite(&file, &encode_manifest(self), 0)
            .map_err(|error| fail(Action::Write, error))?;
        storage
            .fsync(&file)
            .map_err(|error| fail(Action::Sync, error))
    }

    /// Makes this the manifest: writes it aside, syncs it, renames it, syncs the directory. What it refers to
    /// must be on disk already.
    pub(crate) fn replace<S: Storage>(&self, storage: &S) -> Result<(), SwitchError> {
        let fail = |action, name, source| FileError::new(storage, action, name, 0, source);
        self.write(storage, MANIFEST_NEW)
            .map_err(SwitchError::Before)?;
        storage
            .rename(MANIFEST_NEW, MANIFEST)
            .map_err(|error| SwitchError::Unknown(fail(Action::Rename, MANIFEST_NEW, error)))?;
        storage
            .fsync_dir()
            .map_err(|error| SwitchError::Unknown(fail(Action::Sync, "", error)))
    }
}
