//! The active log: making it, and sealing it to begin another.

use crate::checksum::Checksum;
use crate::error::{Action, FileError, SealError};
use crate::files::SourceFile;
use crate::format::{LogEntry, MAX_LOGS, Manifest, Origin, SealedLog, log_name};
use crate::image::Image;
use crate::manifest::SwitchError;
use crate::page::{FileId, Sizes, TenantId, Version};
use crate::storage::Storage;

/// The writing end of the log.
pub(crate) struct LogTail<F> {
    pub(crate) handle: F,
    /// The log's slot in the files.
    pub(crate) slot: usize,
    /// Where the last published segment ends.
    pub(crate) end: u64,
    /// How much is known to be on disk.
    pub(crate) durable: u64,
    /// The checksum that the next segment refers back to.
    pub(crate) chain: Checksum,
    /// A failed commit may have left something behind `end`.
    pub(crate) dirty: bool,
    /// Up to where the file system was asked to set space aside.
    pub(crate) reserved: u64,
    /// The file's length, if it has zeros behind `end`.
    pub(crate) zeroed: u64,
}

impl<F> LogTail<F> {
    pub(crate) fn at(self, slot: usize) -> LogTail<F> {
        LogTail { slot, ..self }
    }
}

/// A new log's two ends, and how the manifest lists it. The tail's slot is to be set.
pub(crate) struct NewLog<F> {
    pub(crate) source: SourceFile<F>,
    pub(crate) tail: LogTail<F>,
    pub(crate) entry: LogEntry,
}

impl<F> NewLog<F> {
    /// Puts the file on disk (but not its name).
    pub(crate) fn sync<S: Storage<File = F>>(&self, storage: &S) -> Result<(), FileError> {
        let synced = storage.fsync(&self.tail.handle);
        synced.map_err(|error| {
            FileError::new(storage, Action::Sync, &log_name(self.entry.file), 0, error)
        })
    }
}

/// Makes an empty log and puts it on disk (but not its name).
pub(crate) fn create_log<S: Storage>(
    storage: &S,
    file: FileId,
) -> Result<NewLog<S::File>, FileError> {
    let log = create_unsynced(storage, file)?;
    log.sync(storage)?;
    Ok(log)
}

/// Makes an empty log, which is yet to be synced.
pub(crate) fn create_unsynced<S: Storage>(
    storage: &S,
    file: FileId,
) -> Result<NewLog<S::File>, FileError> {
    let seed = random(storage)?;
    let name = log_name(file);
    let fail = |action, source| FileError::new(storage, action, &name, 0, source);
    let writing = storage
        .create(&name)
        .map_err(|error| fail(Action::Create, error))?;
    let reading = storage
        .open_read(&name)
        .map_err(|error| fail(Action::Open, error))?;
    let path = storage.path().join(&name);
    Ok(NewLog {
        source: SourceFile::new(file, path, reading, Vec::new()),
        tail: LogTail {
            handle: writing,
            slot: usize::MAX,
            end: 0,
            durable: 0,
            chain: seed,
            dirty: false,
            reserved: 0,
            zeroed: 0,
        },
        entry: LogEntry {
            file,
            seed,
            durable_len: 0,
        },
    })
}

/// The manifest and the log of an empty image.
pub(crate) fn create_empty<S: Storage>(
    storage: &S,
    tenant: TenantId,
) -> Result<(Manifest, NewLog<S::File>), FileError> {
    let log = create_log(storage, FileId(0))?;
    let manifest = Manifest {
        tenant,
        version: Version(0),
        sizes: Sizes::default(),
        next_file: FileId(1),
        shards: Vec::new(),
        sealed: Vec::new(),
        log: log.entry.clone(),
        meta: Vec::new(),
    };
    Ok((manifest, log))
}

pub(crate) fn random<S: Storage>(storage: &S) -> Result<[u8; 16], FileError> {
    storage
        .random()
        .map_err(|error| FileError::new(storage, Action::Random, "", 0, error))
}

impl<S: Storage> Image<S> {
    /// The active log as a sealed one; `None` if it is empty. All of it must be on disk.
    pub(crate) fn active_as_sealed(&self) -> Option<SealedLog> {
        (self.log.end > 0).then_some(SealedLog {
            file: self.manifest.log.file,
            origin: Origin {
                tenant: self.manifest.tenant,
                file: self.manifest.log.file,
            },
            seed: self.manifest.log.seed,
            begin: self.manifest.version,
            length: self.log.end,
            checksum: self.log.chain,
        })
    }

    /// Seals the active log and begins another, which is on disk when this returns. An empty one is kept.
    pub(crate) fn seal(&mut self) -> Result<(), SealError> {
        self.sync()?;
        let Some(sealed) = self.active_as_sealed() else {
            return Ok(());
        };
        // One more sealed log beside the active one.
        let room = self.manifest.sealed.len() + 2 <= MAX_LOGS as usize;
        let file = self.numbers.take().filter(|_| room);
        let file = file.ok_or_else(|| SealError::Full {
            path: self.storage.path().to_path_buf(),
            version: self.version,
        })?;
        let made = create_log(&*self.storage, file).and_then(|log| {
            let synced = self.storage.fsync_dir();
            synced.map_err(|error| FileError::new(&*self.storage, Action::Sync, "", 0, error))?;
            Ok(log)
        });
        let log = match made {
            Ok(log) => log,
            Err(error) => {
                self.unlink_all([log_name(file)]);
                return Err(error.into());
            }
        };
        if self.log.dirty || self.log.reserved.max(self.log.zeroed) > self.log.end {
            // Nobody reads what a failed commit left there, and nobody writes there any more: it is only room.
            let _ = self.storage.truncate(&self.log.handle, self.log.end);
        }
        let mut manifest = self.manifest.clone();
        manifest.sealed.push(sealed);
        manifest.version = self.version;
        manifest.log = log.entry;
        match self.switch(manifest) {
            Ok(()) => {}
            Err(SwitchError::Before(error)) => {
                self.unlink_all([log_name(file)]);
                return Err(error.into());
            }
            Err(SwitchError::Unknown(error)) => return Err(SealError::Switch(error)),
        }
        let mut files = (*self.files).clone();
        self.log = log.tail.at(files.insert(log.source));
        self.files = files.into();
        self.shared
            .replace_files(self.files.clone(), self.manifest.log.file);
        Ok(())
    }
}
