//! [`Checkpointer`]: puts commits on disk from any thread, while others are made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Action, FileError, SyncError};
use crate::format::log_name;
use crate::image::Image;
use crate::manifest::SwitchError;
use crate::page::Version;
use crate::reader::Shared;
use crate::storage::{OsStorage, Storage};

/// Puts the newest published version of an image on disk, without the image: commits and reads go on meanwhile.
///
/// It syncs the log through the descriptor that pages are read from. That isn't the one that commits are written and
/// synced through, so a writeback that fails is reported to both: the kernel reports it once to each open file
/// description (errseq_t, `Documentation/core-api/errseq.rst`).
///
/// While it exists the image's directory stays locked.
pub struct Checkpointer<S: Storage = OsStorage> {
    shared: Arc<Shared<S::File>>,
    /// [`Synced::pages`] are counted from here. Locked for as long as a sync takes: a second one at the same time
    /// would only wait for the same writes.
    before: Mutex<u64>,
    /// Last, as what is left of a directory's files when it is let go is opened for good.
    storage: Arc<S>,
}

/// What a [`Checkpointer`] put on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// This version, and all before it, survive a power cut.
    pub version: Version,
    /// Pages that were stored by commits since the checkpointer's last sync.
    pub pages: u64,
}

impl<S: Storage> Checkpointer<S> {
    /// Puts the newest published version on disk: one fdatasync of the log, or nothing if it is there already.
    ///
    /// # Errors
    ///
    /// If the sync fails, the image takes no more commits until it is opened again.
    pub fn sync(&self) -> Result<Synced, SyncError> {
        let mut before = self.before();
        let newest = self.shared.newest_log();
        let poisoned = || SyncError::Poisoned {
            path: self.storage.path().to_path_buf(),
        };
        if self.shared.is_poisoned() {
            return Err(poisoned());
        }
        let (file, end) = newest.log;
        if newest.on_disk < end {
            // The newest version's log is among its files as long as it is the newest; there is nothing else it could
            // be read from.
            let slot = newest.files.slot_of(file);
            let source = slot.and_then(|slot| newest.files.get(slot));
            let source = source.ok_or_else(poisoned)?;
            if let Err(error) = self.storage.fdatasync(&source.handle) {
                self.shared.poison();
                let name = log_name(file);
                return Err(FileError::new(&*self.storage, Action::Sync, &name, 0, error).into());
            }
            self.shared.note_on_disk(file, end);
        }
        let pages = newest.stored - *before;
        *before = newest.stored;
        Ok(Synced {
            version: newest.version,
            pages,
        })
    }

    fn before(&self) -> MutexGuard<'_, u64> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Storage> Image<S> {
    /// What puts its versions on disk on other threads, at any time.
    pub fn checkpointer(&self) -> Checkpointer<S> {
        Checkpointer {
            storage: self.storage.clone(),
            before: Mutex::new(self.shared.newest_log().stored),
            shared: self.shared.clone(),
        }
    }

    /// How much of the log the next open would verify page by page, in bytes, though it is known to be on disk;
    /// [`record`](Image::record) makes it 0.
    pub fn unrecorded(&self) -> u64 {
        let recorded = self.manifest.log.durable_len;
        self.durable_len().saturating_sub(recorded)
    }

    /// How much of the active log is known to be on disk: by its own syncs, or by a [`Checkpointer`]'s.
    pub(crate) fn durable_len(&self) -> u64 {
        let noted = self.shared.on_disk(self.manifest.log.file);
        // Never beyond what is published: a segment that says more of those before it is taken for damage.
        self.log.durable.max(noted).min(self.log.end)
    }

    /// Writes down how much of the log is known to be on disk: whatever of that is damaged from now on is never taken
    /// for a torn tail, and the next open needn't verify its pages. Syncs nothing but the manifest.
    ///
    /// # Errors
    ///
    /// If the manifest can't be written; the image stays usable.
    pub fn record(&mut self) -> Result<(), SyncError> {
        if self.shared.is_poisoned() {
            return Err(SyncError::Poisoned {
                path: self.storage.path().to_path_buf(),
            });
        }
        if self.unrecorded() == 0 {
            return Ok(());
        }
        let mut manifest = self.manifest.clone();
        manifest.log.durable_len = self.durable_len();
        manifest.next_file = self.numbers.next();
        // Both manifests describe this image, so it doesn't matter which one a crash leaves.
        manifest
            .replace(&*self.storage)
            .map_err(SwitchError::into_inner)?;
        self.manifest = manifest;
        Ok(())
    }

    /// Puts all commits on disk and [records](Image::record) that they are there.
    ///
    /// # Errors
    ///
    /// As for [`sync`](Image::sync). If only the manifest can't be written, the image stays usable.
    pub fn checkpoint(&mut self) -> Result<(), SyncError> {
        self.sync()?;
        self.record()
    }
}
