//! Checking an image without changing anything: what opening it would find, and all the rest of it.
//!
//! Opening stops at the first damage, cuts a torn tail and removes leftovers. This goes on behind each damage, and
//! opens nothing for writing: it works on a disk that is mounted read-only.

use std::io;
use std::path::{Path, PathBuf};

use crate::checksum::page_checksum;
use crate::commit::CHUNK_PAGES;
use crate::error::{Action, FileError, OpenError};
use crate::finding::{Finding, Problem};
use crate::format::{LogEntry, Manifest, SealedLog, ShardEntry, is_our_name, log_name, shard_name};
use crate::image::kept_names;
use crate::page::{PAGE_BYTES, PAGE_SIZE, PageId, Sizes, TenantId, Version};
use crate::recovery::{open_log, read_manifest, read_shard_header};
use crate::storage::{OsStorage, ReadAt, Storage};
use crate::walk::{Found, Link, Walk};

/// How much of an image is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The manifest, names, lengths, all headers and how they hang together; of the pages only those that opening the
    /// image would read too. Its time is in proportion to the number of pages, not to their size.
    Headers,
    /// Every page besides, against its checksum.
    Pages,
}

/// What a check tells while it runs.
#[derive(Debug)]
pub enum CheckEvent {
    /// Something was found.
    Finding(Finding),
    /// So many more bytes of pages were read and compared.
    Verified {
        /// How many.
        bytes: u64,
    },
}

/// The image's newest version, as far as it could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its number.
    pub version: Version,
    /// The sizes of the regions.
    pub sizes: Sizes,
    /// The opaque bytes that the host keeps with it.
    pub meta: Vec<u8>,
}

/// What a check learnt, whatever it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Whose image it is. `None` if there is no manifest that can be read.
    pub tenant: Option<TenantId>,
    /// The newest version. `None` if the logs can't be read to their end.
    pub newest: Option<Newest>,
}

/// Why an image couldn't be checked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Somebody has it open: what would be read could be half-written.
    #[error("{} is in use by another process; stop that first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// Checks the image in `dir`, and changes nothing. The directory is locked meanwhile, as by an open image.
///
/// Nothing that is found is an error of this function: damage is told as a [`Finding`], and the check goes on.
///
/// # Errors
///
/// If somebody else has the directory open.
pub fn check(
    dir: &Path,
    depth: Depth,
    tell: &mut dyn FnMut(CheckEvent),
) -> Result<Checked, CheckError> {
    let path = dir.to_path_buf();
    match OsStorage::open(dir) {
        Ok(storage) => Ok(check_on(&storage, depth, tell)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(CheckError::InUse { path }),
        Err(source) => {
            let error = FileError::at(Action::Open, path, 0, source);
            tell(CheckEvent::Finding(OpenError::File(error).into()));
            Ok(Checked::default())
        }
    }
}

/// [`check`] on any storage. Only asks it to list, open for reading, read and forget.
pub fn check_on<S: Storage>(
    storage: &S,
    depth: Depth,
    tell: &mut dyn FnMut(CheckEvent),
) -> Checked {
    let mut check = Check {
        storage,
        depth,
        tell,
        buffer: Vec::new(),
    };
    let manifest = match read_manifest(storage) {
        Ok(manifest) => manifest,
        Err(error) => {
            check.found(error);
            return Checked::default();
        }
    };
    check.names(&manifest);
    for shard in &manifest.shards {
        check.shard(shard);
    }
    let mut newest = Some(Newest {
        version: manifest.version,
        sizes: manifest.sizes,
        meta: manifest.meta.clone(),
    });
    for log in &manifest.sealed {
        let state = check.sealed(log);
        newest = newest.zip(state).map(|(base, state)| Newest {
            // The manifest's: segments in sealed logs keep the numbers under which they were written.
            version: base.version,
            ..state
        });
    }
    let state = check.active(&manifest.log, &manifest);
    let newest = newest.zip(state).map(|(base, state)| state.unwrap_or(base));
    Checked {
        tenant: Some(manifest.tenant),
        newest,
    }
}

/// A check that runs.
struct Check<'a, S: Storage> {
    storage: &'a S,
    depth: Depth,
    tell: &'a mut dyn FnMut(CheckEvent),
    buffer: Vec<u8>,
}

impl<S: Storage> Check<'_, S> {
    fn found(&mut self, finding: impl Into<Finding>) {
        (self.tell)(CheckEvent::Finding(finding.into()));
    }

    fn found_in(&mut self, name: &str, problem: Problem) {
        self.found(Finding {
            path: self.storage.path().join(name),
            offset: None,
            pages: None,
            problem,
        });
    }

    /// Files that the manifest doesn't name.
    fn names(&mut self, manifest: &Manifest) {
        let kept = kept_names(manifest);
        let mut names = match self.storage.list() {
            Ok(names) => names,
            Err(error) => {
                let error = FileError::new(self.storage, Action::List, "", 0, error);
                return self.found(OpenError::File(error));
            }
        };
        names.retain(|name| !kept.contains(name));
        names.sort();
        for name in names {
            let problem = match is_our_name(&name) {
                true => Problem::Leftover {
                    bytes: open_log(self.storage, &name).ok().map(|(_, length)| length),
                },
                false => Problem::Foreign,
            };
            self.found_in(&name, problem);
        }
    }

    fn shard(&mut self, shard: &ShardEntry) {
        let name = shard_name(shard.file);
        let (file, header) = match read_shard_header(self.storage, shard) {
            Ok(read) => read,
            Err(error) => {
                let ends =
                    [shard.first_page, shard.last_page].map(|page| PageId::new(shard.region, page));
                let [first, last] = ends;
                return self.found(Finding {
                    pages: first.zip(last),
                    ..error.into()
                });
            }
        };
        if self.depth == Depth::Pages {
            let runs = header.runs.iter();
            let pages = runs.flat_map(|(first, pages)| *first..first + pages);
            let ids = pages.filter_map(|page| PageId::new(shard.region, page));
            let entries = ids.zip(header.checksums.iter().copied());
            self.pages(&name, &file, shard.header_len, entries);
        }
    }

    /// The state at the end of a sealed log; `None` if it can't be told.
    fn sealed(&mut self, log: &SealedLog) -> Option<Newest> {
        let name = log_name(log.file);
        let (file, length) = self.log_file(&name)?;
        let walk = Walk {
            storage: self.storage,
            name: &name,
            file: &file,
            length: length.min(log.length),
            tenant: log.origin.tenant,
        };
        let begin = Link {
            offset: 0,
            version: log.begin,
            chain: log.seed,
        };
        let (segments, whole) = match walk.sealed(begin, log.length, log.checksum) {
            Ok(segments) => (segments, true),
            Err(error) => {
                self.found(error);
                (walk.sound(begin), false)
            }
        };
        self.segments(&name, &file, &segments);
        // A sealed log has segments: its length isn't zero.
        segments.last().filter(|_| whole).map(state)
    }

    /// The state at the end of the active log: `Some(None)` if it has no segments, `None` if it can't be told.
    fn active(&mut self, log: &LogEntry, manifest: &Manifest) -> Option<Option<Newest>> {
        let name = log_name(log.file);
        let (file, length) = self.log_file(&name)?;
        let walk = Walk {
            storage: self.storage,
            name: &name,
            file: &file,
            length,
            tenant: manifest.tenant,
        };
        let begin = Link {
            offset: 0,
            version: manifest.version,
            chain: log.seed,
        };
        let (segments, whole) = match walk.recover(begin, log.durable_len) {
            Ok(walked) => {
                if let Some(damage) = walked.torn {
                    self.found(Finding {
                        path: self.storage.path().join(&name),
                        offset: Some(walked.end.offset),
                        pages: None,
                        problem: Problem::TornTail {
                            bytes: length - walked.end.offset,
                            damage,
                        },
                    });
                }
                (walked.segments, true)
            }
            Err(error) => {
                self.found(error);
                (walk.sound(begin), false)
            }
        };
        self.segments(&name, &file, &segments);
        whole.then(|| segments.last().map(state))
    }

    fn log_file(&mut self, name: &str) -> Option<(S::File, u64)> {
        match open_log(self.storage, name) {
            Ok(opened) => Some(opened),
            Err(error) => {
                self.found(OpenError::File(error));
                None
            }
        }
    }

    /// The pages of segments whose headers are sound.
    fn segments(&mut self, name: &str, file: &S::File, segments: &[Found]) {
        if self.depth == Depth::Pages {
            for Found { offset, header } in segments {
                let data = offset + header.header_len;
                self.pages(name, file, data, header.data.iter().copied());
            }
        }
    }

    /// Pages that lie one after the other from `offset` on, against their checksums.
    fn pages(
        &mut self,
        name: &str,
        file: &S::File,
        mut offset: u64,
        mut entries: impl Iterator<Item = (PageId, u64)>,
    ) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK_PAGES * PAGE_SIZE, 0);
        let mut chunk = Vec::with_capacity(CHUNK_PAGES);
        loop {
            chunk.clear();
            chunk.extend(entries.by_ref().take(CHUNK_PAGES));
            if chunk.is_empty() {
                break;
            }
            let bytes = buffer
                .get_mut(..chunk.len() * PAGE_SIZE)
                .unwrap_or_default();
            let read = file.pread(bytes, offset).is_ok();
            for (((page, checksum), bytes), at) in chunk
                .iter()
                .zip(bytes.chunks_exact_mut(PAGE_SIZE))
                .zip((offset..).step_by(PAGE_SIZE))
            {
                // Where the disk fails, page by page: to tell which are lost.
                let read = if read { Ok(()) } else { file.pread(bytes, at) };
                let problem = match read {
                    Ok(()) if page_checksum(bytes) == *checksum => {
                        continue;
                    }
                    Ok(()) => Problem::Page,
                    Err(error) => {
                        Problem::File(FileError::new(self.storage, Action::Read, name, at, error))
                    }
                };
                self.found(Finding {
                    path: self.storage.path().join(name),
                    offset: Some(at),
                    pages: Some((*page, *page)),
                    problem,
                });
            }
            let bytes = chunk.len() as u64 * PAGE_BYTES;
            offset += bytes;
            (self.tell)(CheckEvent::Verified { bytes });
        }
        self.buffer = buffer;
    }
}

/// The state that a segment makes.
fn state(found: &Found) -> Newest {
    let fields = &found.header.fields;
    Newest {
        version: fields.version,
        sizes: fields.sizes,
        meta: found.header.meta.clone(),
    }
}
