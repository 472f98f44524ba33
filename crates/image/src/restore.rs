//! Going back to a snapshot.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::encode::SegmentEncoder;
use crate::error::{Action, FileError, OpenError, RestoreError};
use crate::format::{Manifest, SegmentFields, log_name};
use crate::image::Image;
use crate::log::{NewLog, create_log};
use crate::manifest::SwitchError;
use crate::page::{MAX_META, Sizes, Version};
use crate::recovery::{Settled, load_settled};
use crate::runs::LongRuns;
use crate::storage::Storage;
use crate::view::View;

/// Whose snapshot may be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// The image's own tenant's. What the tenant was forked from is another.
    SameTenant,
    /// Anybody's.
    AnyTenant,
}

/// The state of a snapshot in this directory, not yet the image's.
struct Prepared<F> {
    version: Version,
    manifest: Manifest,
    settled: Settled<F>,
    log: NewLog<F>,
}

impl<S: Storage> Image<S> {
    /// Makes the state in the directory `from`, a snapshot as a rule, the next version of this image. That is the new
    /// version's number: numbers go up, whatever the snapshot's was. It is on disk when this returns. The
    /// snapshot stays.
    ///
    /// Views that are held stay what they are. A fold that is under way is in vain.
    ///
    /// # Errors
    ///
    /// If `from` isn't a whole image, is in use, or another tenant's against `accept`, or the operating system
    /// refuses. The image is as it was, and usable, unless it isn't known which manifest is in place.
    pub fn restore(&mut self, from: &Path, accept: Accept) -> Result<Version, RestoreError> {
        self.restore_as(from, accept, None)
    }

    /// Like [`restore`](Image::restore), but with other opaque bytes than the snapshot's, if there are any: state and
    /// bytes are there together or not at all.
    ///
    /// # Errors
    ///
    /// As for [`restore`](Image::restore), and if `meta` is longer than [`MAX_META`].
    pub fn restore_as(
        &mut self,
        from: &Path,
        accept: Accept,
        meta: Option<&[u8]>,
    ) -> Result<Version, RestoreError> {
        if self.shared.is_poisoned() {
            return Err(RestoreError::Poisoned {
                path: self.storage.path().to_path_buf(),
            });
        }
        let mut snapshot = self.open_snapshot(from)?;
        if accept == Accept::SameTenant && snapshot.tenant() != self.tenant() {
            return Err(RestoreError::OtherTenant {
                path: from.to_path_buf(),
                expected: self.tenant(),
                found: snapshot.tenant(),
            });
        }
        snapshot.sync().map_err(RestoreError::Sync)?;
        let mut made = Vec::new();
        let Prepared {
            version,
            manifest,
            mut settled,
            log,
        } = match self.prepare(&snapshot, meta, &mut made) {
            Ok(prepared) => prepared,
            Err(error) => {
                self.unlink_all(made);
                return Err(error);
            }
        };
        drop(snapshot);
        let old: Vec<String> = self.manifest.names().collect();
        match self.switch(manifest) {
            Ok(()) => {}
            Err(SwitchError::Before(error)) => {
                self.unlink_all(made);
                return Err(RestoreError::File(error));
            }
            Err(SwitchError::Unknown(error)) => return Err(RestoreError::Switch(error)),
        }
        self.log = log.tail.at(settled.files.insert(log.source));
        self.files = Arc::new(settled.files);
        self.version = version;
        self.sizes = settled.sizes;
        self.meta = settled.meta.into();
        self.base = settled.base;
        self.long_runs = LongRuns::unknown();
        self.folding = Weak::new();
        self.shared.restart(View {
            version: self.version,
            sizes: self.sizes,
            meta: self.meta.clone(),
            index: Arc::new(settled.index),
            files: self.files.clone(),
            log: (self.manifest.log.file, self.log.end),
        });
        self.unlink_all(old);
        Ok(self.version)
    }

    fn open_snapshot(&self, from: &Path) -> Result<Image<S>, OpenError> {
        let storage = self.storage.open_directory(from).map_err(|source| {
            let path = from.to_path_buf();
            match source.kind() {
                io::ErrorKind::WouldBlock => OpenError::InUse { path },
                io::ErrorKind::NotFound => OpenError::Missing { path },
                _ => OpenError::File(FileError::at(Action::Open, path, 0, source)),
            }
        })?;
        Ok(Image::open_on(storage)?.0)
    }

    /// Links the snapshot's files into this directory and opens them there.
    fn prepare(
        &self,
        snapshot: &Image<S>,
        meta: Option<&[u8]>,
        made: &mut Vec<String>,
    ) -> Result<Prepared<S::File>, RestoreError> {
        let too_large = || RestoreError::TooLarge {
            path: self.storage.path().to_path_buf(),
        };
        let version = Version(self.version.0.checked_add(1).ok_or_else(too_large)?);
        let linked = snapshot
            .link_into(&self.storage, &self.numbers, made)?
            .ok_or_else(too_large)?;
        let file = self.numbers.take().ok_or_else(too_large)?;
        made.push(log_name(file));
        let mut log = create_log(&*self.storage, file)?;
        if let Some(meta) = meta {
            self.begin_log(&mut log, version, snapshot.sizes, meta)?;
        }
        let synced = self.storage.fsync_dir();
        synced.map_err(|error| FileError::new(&*self.storage, Action::Sync, "", 0, error))?;
        let manifest = Manifest {
            tenant: self.manifest.tenant,
            // Before the log's first commit, if it has one.
            version: match log.tail.end {
                0 => version,
                _ => self.version,
            },
            sizes: snapshot.manifest.sizes,
            next_file: self.numbers.next(),
            shards: linked.shards,
            sealed: linked.sealed,
            log: log.entry.clone(),
            meta: snapshot.manifest.meta.clone(),
        };
        let mut settled = load_settled(&*self.storage, &manifest)?;
        if let Some(meta) = meta {
            settled.meta = meta.to_vec();
        }
        Ok(Prepared {
            version,
            manifest,
            settled,
            log,
        })
    }

    /// Writes a first commit into an empty log that no manifest names yet: no pages, but `meta`. It is on disk when
    /// this returns.
    fn begin_log(
        &self,
        log: &mut NewLog<S::File>,
        version: Version,
        sizes: Sizes,
        meta: &[u8],
    ) -> Result<(), RestoreError> {
        let fields = SegmentFields {
            tenant: self.manifest.tenant,
            version,
            durable_upto: 0,
            sizes,
            data_pages: 0,
            zero_pages: 0,
            meta_len: meta.len() as u64,
            previous: log.tail.chain,
        };
        let mut encoder = SegmentEncoder::default();
        encoder.begin();
        let header = encoder.finish(&fields, &[], meta);
        let parts = header.and_then(|header| Some((header, *header.last_chunk()?)));
        let (header, checksum) = parts
            .filter(|_| meta.len() <= MAX_META)
            .ok_or(RestoreError::MetaTooLarge { bytes: meta.len() })?;
        let name = log_name(log.entry.file);
        let fail = |action, error| FileError::new(&*self.storage, action, &name, 0, error);
        self.storage
            .pwrite(&log.tail.handle, header, 0)
            .map_err(|error| fail(Action::Write, error))?;
        self.storage
            .fsync(&log.tail.handle)
            .map_err(|error| fail(Action::Sync, error))?;
        let length = header.len() as u64;
        (log.tail.end, log.tail.durable, log.tail.chain) = (length, length, checksum);
        (log.tail.reserved, log.tail.zeroed) = (length, length);
        log.entry.durable_len = length;
        Ok(())
    }
}
