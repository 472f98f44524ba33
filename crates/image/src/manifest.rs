//! Replacing the manifest atomically.

use crate::encode::encode_manifest;
use crate::error::{Action, FileError};
use crate::format::{MANIFEST, MANIFEST_NEW, Manifest};
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

impl Manifest {
    /// Makes this the manifest: writes it aside, syncs it, renames it, syncs the directory. What it refers to
    /// must be on disk already.
    pub(crate) fn replace<S: Storage>(&self, storage: &S) -> Result<(), SwitchError> {
        let fail = |action, name, source| FileError::new(storage, action, name, 0, source);
        let aside = || -> Result<(), FileError> {
            let file = match storage.create(MANIFEST_NEW) {
                // What an earlier attempt left.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    storage
                        .unlink(MANIFEST_NEW)
                        .map_err(|error| fail(Action::Remove, MANIFEST_NEW, error))?;
                    storage.create(MANIFEST_NEW)
                }
                created => created,
            };
            let file = file.map_err(|error| fail(Action::Create, MANIFEST_NEW, error))?;
            let bytes = encode_manifest(self);
            storage
                .pwrite(&file, &bytes, 0)
                .map_err(|error| fail(Action::Write, MANIFEST_NEW, error))?;
            storage
                .fsync(&file)
                .map_err(|error| fail(Action::Sync, MANIFEST_NEW, error))
        };
        aside().map_err(SwitchError::Before)?;
        storage
            .rename(MANIFEST_NEW, MANIFEST)
            .map_err(|error| SwitchError::Unknown(fail(Action::Rename, MANIFEST_NEW, error)))?;
        storage
            .fsync_dir()
            .map_err(|error| SwitchError::Unknown(fail(Action::Sync, "", error)))
    }
}
