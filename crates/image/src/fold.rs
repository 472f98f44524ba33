//! Folding base and log into a new base.

use std::sync::Arc;

use crate::checksum::{CHECKSUM_SIZE, page_checksum, pages_of};
use crate::commit::CHUNK_PAGES;
use crate::encode::encode_shard_header;
use crate::error::{Action, FileError, FoldError};
use crate::files::{Block, Files, SourceFile};
use crate::format::{
    LogEntry, MAX_SHARD_PAGES, MAX_SHARDS, Manifest, SHARD_FIXED, ShardEntry, ShardHeader,
    log_name, shard_header_len, shard_name,
};
use crate::image::{Image, create_log};
use crate::index::{Index, Location};
use crate::manifest::SwitchError;
use crate::page::{FileId, PAGE_BYTES, PAGE_SIZE, PageId, Region, Version};
use crate::read::Verify;
use crate::storage::Storage;
use crate::view::View;

/// A log shorter than this isn't worth folding for its size.
const SMALL_LOG: u64 = 64 << 20;
/// More runs than this are worth folding: each is a mapping in a worker, which has a budget of them.
const MANY_RUNS: usize = 1024;
/// Gaps up to this many pages may be filled with zeros, to save a mapping.
const LONGEST_FILL: u64 = 16;
/// What filling may add: an eighth of the pages.
const FILL_SHARE: u64 = 8;

/// What a fold did.
#[derive(Clone, Copy, Debug)]
pub struct Folded {
    /// The version that is the base now: the one that the image is at.
    pub version: Version,
    /// Base shards written.
    pub shards: usize,
    /// Pages in them.
    pub pages: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Old files that couldn't be removed; the next open does it.
    pub left: usize,
}

/// The pages of a shard to write: runs of one region.
struct Shard {
    region: Region,
    runs: Vec<(u64, u64)>,
    pages: u64,
}

impl<S: Storage> Image<S> {
    /// Whether folding pays: the log is large in itself and against the base, or the version is in many pieces
    /// and mostly by the log's doing.
    pub fn should_fold(&self) -> bool {
        let base: u64 = self
            .manifest
            .shards
            .iter()
            .map(|shard| shard.pages * PAGE_BYTES)
            .sum();
        let runs = self.view().index.extent_count();
        self.log.end > SMALL_LOG.max(base) || (runs > MANY_RUNS && runs / 2 > self.base_extents)
    }

    /// Writes the newest version as a new base with an empty log, and removes the old files. Takes as much space as
    /// the version, until they are removed. Every page is verified on the way.
    ///
    /// Descriptors and mappings of old files stay valid; a new [`plan`](Image::plan) refers to new ones.
    ///
    /// # Errors
    ///
    /// The image stays as it was, and usable, unless it isn't known which manifest is in place.
    pub fn fold(&mut self) -> Result<Folded, FoldError> {
        if self.poisoned {
            return Err(FoldError::Poisoned {
                path: self.storage.path().to_path_buf(),
            });
        }
        let mut made = Vec::new();
        let outcome = self.write_base(&mut made);
        let base = match outcome {
            Ok(base) => base,
            Err(error) => {
                self.discard(made);
                return Err(error);
            }
        };
        match base.manifest.replace(&*self.storage) {
            Ok(()) => {}
            Err(SwitchError::Before(error)) => {
                self.discard(made);
                return Err(FoldError::File(error));
            }
            Err(SwitchError::Unknown(error)) => {
                // Neither the old files nor the new ones may be touched: a power cut may bring back either.
                self.poisoned = true;
                return Err(FoldError::Switch(error));
            }
        }
        let mut old: Vec<String> = (self.manifest.shards.iter())
            .map(|shard| shard_name(shard.file))
            .collect();
        old.push(log_name(self.manifest.log.file));
        let folded = Folded {
            version: self.version,
            shards: base.manifest.shards.len(),
            pages: base.index.pages(),
            bytes: base
                .manifest
                .shards
                .iter()
                .map(|shard| shard.header_len + shard.pages * PAGE_BYTES)
                .sum(),
            left: old
                .iter()
                .filter(|name| self.storage.unlink(name).is_err())
                .count(),
        };
        self.base_extents = base.index.extent_count();
        self.manifest = base.manifest;
        self.files = Arc::new(base.files);
        self.log = base.log;
        self.shared
            .replace_places(Arc::new(base.index), self.files.clone());
        Ok(folded)
    }

    /// Writes the new files and syncs them and their names. Lists each in `made` before it exists.
    fn write_base(&mut self, made: &mut Vec<String>) -> Result<Base<S>, FoldError> {
        let too_large = || FoldError::TooLarge {
            path: self.storage.path().to_path_buf(),
            version: self.version,
        };
        let mut manifest = self.manifest.clone();
        manifest.shards.clear();
        (manifest.version, manifest.sizes, manifest.meta) =
            (self.version, self.sizes, self.meta.to_vec());
        // Numbers aren't used again even if this fails: a leftover could be in the way.
        let mut next = self.manifest.next_file.0;
        let mut number = || {
            let file = FileId(next);
            next = next.checked_add(1)?;
            Some(file)
        };
        let (mut files, mut index) = (Files::default(), Index::default());
        let view = self.view();
        let shards = split_into_shards(runs_to_fold(&view.index));
        if shards.len() > MAX_SHARDS as usize {
            return Err(too_large());
        }
        for shard in &shards {
            let file = number().ok_or_else(too_large)?;
            made.push(shard_name(file));
            let (entry, source) = self.write_shard(&view, shard, file)?;
            let mut page = entry.header_len / PAGE_BYTES;
            for (first, pages) in &shard.runs {
                Location::new(files.free(), page + pages).ok_or_else(too_large)?;
                let (slot, start) = (files.free(), page);
                index.apply((0..*pages).filter_map(|page| {
                    Some((
                        PageId::new(shard.region, first + page)?,
                        Location::new(slot, start + page),
                    ))
                }));
                page += pages;
            }
            manifest.shards.push(entry);
            files.insert(source);
        }
        let file = number().ok_or_else(too_large)?;
        let seed = self.storage.random();
        let seed =
            seed.map_err(|error| FileError::new(&*self.storage, Action::Random, "", 0, error))?;
        made.push(log_name(file));
        let (source, log) = create_log(&*self.storage, file, seed)?;
        let log = log.at(files.insert(source));
        manifest.log = LogEntry {
            file,
            seed,
            durable_len: 0,
        };
        manifest.next_file = FileId(next);
        let synced = self.storage.fsync_dir();
        synced.map_err(|error| FileError::new(&*self.storage, Action::Sync, "", 0, error))?;
        Ok(Base {
            manifest,
            files,
            log,
            index,
        })
    }

    fn write_shard(
        &self,
        view: &View<S::File>,
        shard: &Shard,
        file: FileId,
    ) -> Result<(ShardEntry, SourceFile<S::File>), FoldError> {
        let too_large = || FoldError::TooLarge {
            path: self.storage.path().to_path_buf(),
            version: self.version,
        };
        let name = shard_name(file);
        let fail =
            |action, offset, source| FileError::new(&*self.storage, action, &name, offset, source);
        let header_len =
            shard_header_len(shard.runs.len() as u64, shard.pages).ok_or_else(too_large)?;
        let writing = self
            .storage
            .create(&name)
            .map_err(|error| fail(Action::Create, 0, error))?;
        let mut checksums = Vec::with_capacity(shard.pages as usize);
        let mut buffer = vec![0; (shard.pages as usize).min(CHUNK_PAGES) * PAGE_SIZE];
        let mut offset = header_len;
        let mut ids = Vec::with_capacity(CHUNK_PAGES);
        let mut pages = shard
            .runs
            .iter()
            .flat_map(|(first, pages)| *first..first + pages);
        loop {
            ids.clear();
            ids.extend(
                pages
                    .by_ref()
                    .take(CHUNK_PAGES)
                    .filter_map(|page| PageId::new(shard.region, page)),
            );
            if ids.is_empty() {
                break;
            }
            let chunk = buffer.get_mut(..ids.len() * PAGE_SIZE).unwrap_or_default();
            view.read_pages(&ids, chunk, Verify::Yes)?;
            checksums.extend(pages_of(chunk).map(page_checksum));
            self.storage
                .pwrite(&writing, chunk, offset)
                .map_err(|error| fail(Action::Write, offset, error))?;
            offset += chunk.len() as u64;
        }
        let header = ShardHeader {
            tenant: self.manifest.tenant,
            file,
            region: shard.region,
            runs: shard.runs.clone(),
            checksums,
        };
        let bytes = encode_shard_header(&header).ok_or_else(too_large)?;
        let checksum = *bytes.last_chunk::<CHECKSUM_SIZE>().ok_or_else(too_large)?;
        self.storage
            .pwrite(&writing, &bytes, 0)
            .map_err(|error| fail(Action::Write, 0, error))?;
        self.storage
            .fsync(&writing)
            .map_err(|error| fail(Action::Sync, 0, error))?;
        let handle = self
            .storage
            .open_read(&name)
            .map_err(|error| fail(Action::Open, 0, error))?;
        let (first_page, last_page) = match (shard.runs.first(), shard.runs.last()) {
            (Some((first, _)), Some((last, pages))) => (*first, last + pages - 1),
            _ => return Err(too_large()),
        };
        let pages = shard.pages;
        let entry = ShardEntry {
            file,
            region: shard.region,
            first_page,
            last_page,
            pages,
            header_len,
            checksum,
        };
        let table = (SHARD_FIXED + 16 * shard.runs.len()) as u64;
        let block = Block {
            data: header_len,
            checksums: table,
            stride: 8,
        };
        Ok((
            entry,
            SourceFile::new(file, self.storage.path().join(&name), handle, vec![block]),
        ))
    }

    /// Removes the files of a fold that failed; what can't be removed is at the next open. Their numbers are spent.
    fn discard(&mut self, made: Vec<String>) {
        self.manifest.next_file.0 = self.manifest.next_file.0.saturating_add(made.len() as u64);
        for name in made {
            let _ = self.storage.unlink(&name);
        }
    }
}

/// The pages in the index as address ranges, short gaps filled.
fn runs_to_fold(index: &Index) -> Vec<(PageId, u64)> {
    let mut runs: Vec<(PageId, u64)> = Vec::new();
    for extent in index.extents() {
        match runs.last_mut() {
            Some((first, pages)) if first.bits() + *pages == extent.first.bits() => {
                *pages += extent.pages
            }
            _ => runs.push((extent.first, extent.pages)),
        }
    }
    fill_gaps(runs, index.pages())
}

/// A new base that the manifest doesn't refer to yet.
struct Base<S: Storage> {
    manifest: Manifest,
    files: Files<S::File>,
    log: crate::image::LogTail<S::File>,
    index: Index,
}

/// Joins runs of a region with short gaps between them, the shortest first, as long as that adds no more than
/// its share to `pages`.
fn fill_gaps(runs: Vec<(PageId, u64)>, pages: u64) -> Vec<(PageId, u64)> {
    // Gaps across regions are longer than any that is filled, as page numbers end far below the region bits.
    let gap = |a: &(PageId, u64), b: &(PageId, u64)| b.0.bits() - a.0.bits() - a.1;
    let mut counts = [0u64; LONGEST_FILL as usize + 1];
    for pair in runs.windows(2) {
        if let [a, b] = pair
            && let Some(count) = usize::try_from(gap(a, b))
                .ok()
                .and_then(|gap| counts.get_mut(gap))
        {
            *count += 1;
        }
    }
    let mut added = 0;
    let within = (0u64..).zip(counts).take_while(|(length, count)| {
        added += length * count;
        added <= pages / FILL_SHARE
    });
    let longest = within.last().map_or(0, |(length, _)| length);
    let mut filled: Vec<(PageId, u64)> = Vec::with_capacity(runs.len());
    for run in runs {
        match filled.last_mut() {
            Some(last) if gap(last, &run) <= longest => {
                last.1 = run.0.bits() + run.1 - last.0.bits()
            }
            _ => filled.push(run),
        }
    }
    filled
}

/// Cuts ranges into shards of one region and at most [`MAX_SHARD_PAGES`] pages.
fn split_into_shards(runs: Vec<(PageId, u64)>) -> Vec<Shard> {
    let mut shards: Vec<Shard> = Vec::new();
    for (first, mut pages) in runs {
        let (region, mut page) = (first.region(), first.page());
        while pages > 0 {
            let room = match shards.last_mut() {
                Some(shard) if shard.region == region && shard.pages < MAX_SHARD_PAGES => shard,
                _ => {
                    shards.push(Shard {
                        region,
                        runs: Vec::new(),
                        pages: 0,
                    });
                    continue;
                }
            };
            let part = pages.min(MAX_SHARD_PAGES - room.pages);
            room.runs.push((page, part));
            room.pages += part;
            page += part;
            pages -= part;
        }
    }
    shards
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
