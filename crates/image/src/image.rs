//! [`Image`]: what is in memory of it, and how it begins and ends.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::error::{Action, CreateError, FileError, OpenError, ReadError, RemoveError, SyncError};
use crate::files::Files;
use crate::format::{MANIFEST, Manifest, TREE, is_our_name, log_name};
use crate::index::Index;
use crate::log::{LogTail, create_empty, random};
use crate::manifest::SwitchError;
use crate::numbers::FileNumbers;
use crate::page::{PageId, Sizes, TenantId, Version};
use crate::plan::Plan;
use crate::read::Verify;
use crate::reader::{Reader, Shared};
use crate::recovery::{Recovery, Settled};
use crate::runs::{BaseRuns, LongRuns};
use crate::storage::{OpenFiles, OsStorage, Storage};
use crate::view::View;

/// A tenant's memory on disk, at its newest version.
///
/// One thread at a time uses an image; [`Reader`]s and [`View`]s of it go to any other. While it is open, its
/// directory is locked against others.
pub struct Image<S: Storage = OsStorage> {
    pub(crate) numbers: Arc<FileNumbers>,
    /// What the manifest on disk says.
    pub(crate) manifest: Manifest,
    /// Bytes of the base and of the sealed logs.
    pub(crate) settled_bytes: u64,
    /// Bytes that the image may take; a commit that needs more is refused.
    pub(crate) quota: Option<u64>,
    /// The files that locations refer to by slot.
    pub(crate) files: Arc<Files<S::File>>,
    pub(crate) log: LogTail<S::File>,
    pub(crate) version: Version,
    pub(crate) sizes: Sizes,
    pub(crate) meta: Arc<[u8]>,
    /// The newest view, which has the only index: a second reference here would have each commit clone it.
    pub(crate) shared: Arc<Shared<S::File>>,
    /// What the base alone had: folding doesn't get below that.
    pub(crate) base: BaseRuns,
    pub(crate) long_runs: LongRuns,
    /// The fold that is under way, while its job exists.
    pub(crate) folding: Weak<()>,
    /// Last, as what is left of a directory's files when it is let go is opened for good.
    pub(crate) storage: Arc<S>,
}

impl Image<OsStorage> {
    /// Makes an empty image at version 0 in `dir`, which is made too if it doesn't exist. It is on disk when
    /// this returns.
    ///
    /// # Errors
    ///
    /// If there is an image already, somebody else has the directory open, or the operating system refuses.
    pub fn create(dir: &Path) -> Result<Image, CreateError> {
        match OsStorage::create(dir) {
            Ok(storage) => Image::create_on(storage),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(CreateError::InUse {
                path: dir.to_path_buf(),
            }),
            Err(source) => Err(CreateError::File(FileError {
                action: Action::Create,
                path: dir.to_path_buf(),
                offset: 0,
                source,
            })),
        }
    }

    /// Opens the image in `dir` at its newest version, and says what recovery found.
    ///
    /// The newest version may be one that was never acknowledged, if the host was killed between writing and
    /// syncing it; it isn't necessarily on disk before the next durable commit or [`sync`](Image::sync).
    ///
    /// # Errors
    ///
    /// If there is none, it is in use, anything that was acknowledged is damaged, or the operating system refuses.
    /// At most a torn tail and leftovers of a crash are gone then; nothing that was acknowledged is touched.
    pub fn open(dir: &Path) -> Result<(Image, Recovery), OpenError> {
        match OsStorage::open(dir) {
            Ok(storage) => Image::open_on(storage),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::WouldBlock => OpenError::InUse {
                    path: dir.to_path_buf(),
                },
                io::ErrorKind::NotFound => OpenError::Missing {
                    path: dir.to_path_buf(),
                },
                _ => OpenError::File(FileError {
                    action: Action::Open,
                    path: dir.to_path_buf(),
                    offset: 0,
                    source: error,
                }),
            }),
        }
    }

    /// Removes the image in `dir` and the directory, in an order that never leaves a damaged image.
    ///
    /// # Errors
    ///
    /// If it is in use, the directory holds anything that isn't an image's, or the operating system refuses.
    pub fn remove(dir: &Path) -> Result<(), RemoveError> {
        let fail = |action, source| {
            RemoveError::File(FileError {
                action,
                path: dir.to_path_buf(),
                offset: 0,
                source,
            })
        };
        let storage = OsStorage::open(dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => RemoveError::InUse {
                path: dir.to_path_buf(),
            },
            io::ErrorKind::NotFound => RemoveError::Missing {
                path: dir.to_path_buf(),
            },
            _ => fail(Action::Open, error),
        })?;
        let mut names = storage.list().map_err(|error| fail(Action::List, error))?;
        if let Some(name) = names.iter().find(|name| !is_our_name(name)) {
            return Err(RemoveError::Foreign {
                path: dir.to_path_buf(),
                name: name.clone(),
            });
        }
        // The manifest goes first: without it there is no image, whatever else is still there.
        names.sort_by_key(|name| name != MANIFEST);
        for name in names {
            let unlinked = storage.unlink(&name);
            unlinked.map_err(|error| FileError::new(&storage, Action::Remove, &name, 0, error))?;
            if name == MANIFEST {
                storage
                    .fsync_dir()
                    .map_err(|error| fail(Action::Sync, error))?;
            }
        }
        storage
            .remove()
            .map_err(|error| fail(Action::Remove, error))
    }

    /// The descriptors that are open of it.
    pub fn open_files(&self) -> OpenFiles {
        self.storage.open_files()
    }
}

impl<S: Storage> Image<S> {
    /// [`create`](Image::create) on any storage.
    ///
    /// # Errors
    ///
    /// As for [`create`](Image::create).
    pub fn create_on(storage: S) -> Result<Image<S>, CreateError> {
        let fail = |action, name: &str, source| FileError::new(&storage, action, name, 0, source);
        let names = storage
            .list()
            .map_err(|error| fail(Action::List, "", error))?;
        if names.iter().any(|name| name == MANIFEST) {
            return Err(CreateError::Exists {
                path: storage.path().to_path_buf(),
            });
        }
        // A crash while making or removing an image leaves files that nothing refers to.
        for name in names.iter().filter(|name| is_our_name(name)) {
            storage
                .unlink(name)
                .map_err(|error| fail(Action::Remove, name, error))?;
        }
        let tenant = random(&storage).map(TenantId)?;
        let (manifest, log) = create_empty(&storage, tenant)?;
        storage
            .fsync_dir()
            .map_err(|error| fail(Action::Sync, "", error))?;
        manifest
            .replace(&storage)
            .map_err(SwitchError::into_inner)?;
        let mut settled = Settled {
            files: Files::default(),
            index: Index::default(),
            base: BaseRuns::default(),
            sizes: manifest.sizes,
            meta: Vec::new(),
            segments: 0,
        };
        let log = log.tail.at(settled.files.insert(log.source));
        let version = manifest.version;
        Ok(Image::assemble(storage, manifest, settled, version, log))
    }

    pub(crate) fn assemble(
        storage: S,
        manifest: Manifest,
        settled: Settled<S::File>,
        version: Version,
        log: LogTail<S::File>,
    ) -> Image<S> {
        let (files, meta): (_, Arc<[u8]>) = (Arc::new(settled.files), settled.meta.into());
        let shared = Shared::new(View {
            version,
            sizes: settled.sizes,
            meta: meta.clone(),
            index: Arc::new(settled.index),
            files: files.clone(),
            log: (manifest.log.file, log.end),
        });
        Image {
            storage: Arc::new(storage),
            numbers: Arc::new(FileNumbers::from(manifest.next_file)),
            settled_bytes: manifest.settled_bytes(),
            manifest,
            quota: None,
            files,
            log,
            version,
            sizes: settled.sizes,
            meta,
            shared,
            base: settled.base,
            long_runs: LongRuns::unknown(),
            folding: Weak::new(),
        }
    }

    /// Whose memory it is.
    pub fn tenant(&self) -> TenantId {
        self.manifest.tenant
    }

    /// The newest version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The sizes of the regions at the newest version.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The opaque bytes that the host keeps with the newest version.
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// The bytes that the logs take on disk.
    pub fn log_len(&self) -> u64 {
        let sealed = self.manifest.sealed.iter().map(|log| log.length);
        sealed.sum::<u64>() + self.log.end
    }

    /// The bytes that base and logs take on disk, those in files that are shared with other directories in full.
    /// What a fold that is under way has written isn't counted.
    pub fn disk_bytes(&self) -> u64 {
        self.settled_bytes + self.log.end
    }

    /// Limits [`disk_bytes`](Image::disk_bytes): a commit that would take more is refused. `None` for no limit, which
    /// is what a newly opened image has.
    pub fn set_quota(&mut self, bytes: Option<u64>) {
        self.quota = bytes;
    }

    /// Pages at the newest version that aren't zero. (After a fold, some that are may be counted.)
    pub fn stored_pages(&self) -> u64 {
        self.view().stored_pages()
    }

    /// The newest version.
    pub fn view(&self) -> View<S::File> {
        self.shared.view()
    }

    /// What gives the newest version on other threads, at any time.
    pub fn reader(&self) -> Reader<S::File> {
        Reader {
            shared: self.shared.clone(),
        }
    }

    /// [`View::plan`] of the newest version.
    pub fn plan(&self) -> Plan {
        self.view().plan()
    }

    /// [`View::read_pages`] of the newest version.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_pages(
        &self,
        pages: &[PageId],
        into: &mut [u8],
        verify: Verify,
    ) -> Result<(), ReadError> {
        self.view().read_pages(pages, into, verify)
    }

    /// [`View::verify_page`] of the newest version.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify_page(&self, page: PageId) -> Result<(), ReadError> {
        self.view().verify_page(page)
    }

    /// Puts all commits on disk, also the relaxed ones.
    ///
    /// # Errors
    ///
    /// If the sync fails, the image takes no more commits until it is opened again.
    pub fn sync(&mut self) -> Result<(), SyncError> {
        if self.shared.is_poisoned() {
            return Err(SyncError::Poisoned {
                path: self.storage.path().to_path_buf(),
            });
        }
        if self.durable_len() < self.log.end {
            self.fdatasync_log()?;
            self.shared
                .note_on_disk(self.manifest.log.file, self.log.end);
        }
        Ok(())
    }

    pub(crate) fn fdatasync_log(&mut self) -> Result<(), FileError> {
        match self.storage.fdatasync(&self.log.handle) {
            Ok(()) => {
                self.log.durable = self.log.end;
                Ok(())
            }
            Err(error) => {
                self.shared.poison();
                Err(FileError::new(
                    &*self.storage,
                    Action::Sync,
                    &log_name(self.manifest.log.file),
                    0,
                    error,
                ))
            }
        }
    }
}

/// The names of the files that opening the image keeps.
pub(crate) fn kept_names(manifest: &Manifest) -> HashSet<String> {
    let others = [MANIFEST, TREE].map(str::to_owned);
    manifest.names().chain(others).collect()
}

/// Removes files of ours that `manifest` doesn't name. Returns what was removed.
pub(crate) fn remove_leftovers<S: Storage>(
    storage: &S,
    manifest: &Manifest,
) -> Result<Vec<String>, FileError> {
    let mut removed = Vec::new();
    let kept = kept_names(manifest);
    let names = storage
        .list()
        .map_err(|error| FileError::new(storage, Action::List, "", 0, error))?;
    for name in names {
        if is_our_name(&name) && !kept.contains(&name) {
            storage
                .unlink(&name)
                .map_err(|error| FileError::new(storage, Action::Remove, &name, 0, error))?;
            removed.push(name);
        }
    }
    Ok(removed)
}
