//! Writing a base shard.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::checksum::{CHECKSUM_SIZE, page_checksum, pages_of};
use crate::commit::CHUNK_PAGES;
use crate::encode::encode_shard_header;
use crate::error::{Action, FileError, FoldError};
use crate::files::{Block, SourceFile};
use crate::format::{Origin, SHARD_FIXED, ShardEntry, ShardHeader, shard_header_len, shard_name};
use crate::page::{PAGE_BYTES, PAGE_SIZE, PageId};
use crate::read::Verify;
use crate::storage::Storage;
use crate::view::View;
use crate::windows::NewShard;

/// How fast a fold may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BytesPerSecond(pub NonZeroU64);

/// Holds a fold back to its rate, and stops it.
pub(crate) struct Throttle<'a> {
    rate: Option<BytesPerSecond>,
    stop: &'a AtomicBool,
    begin: Instant,
    bytes: u64,
}

impl<'a> Throttle<'a> {
    /// Sleeps no longer at once, to see soon that it is to stop.
    const NAP: Duration = Duration::from_millis(10);

    pub(crate) fn new(rate: Option<BytesPerSecond>, stop: &'a AtomicBool) -> Throttle<'a> {
        let (begin, bytes) = (Instant::now(), 0);
        Throttle {
            rate,
            stop,
            begin,
            bytes,
        }
    }

    /// Waits until so many more bytes are due.
    pub(crate) fn wrote(&mut self, bytes: usize) -> Result<(), FoldError> {
        self.bytes += bytes as u64;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(FoldError::Stopped);
            }
            let Some(BytesPerSecond(rate)) = self.rate else {
                return Ok(());
            };
            let due = Duration::from_secs_f64(self.bytes as f64 / rate.get() as f64);
            match due.checked_sub(self.begin.elapsed()) {
                None | Some(Duration::ZERO) => return Ok(()),
                Some(early) => thread::sleep(early.min(Self::NAP)),
            }
        }
    }
}

/// Writes the shard `origin` with what the view holds of its pages, each verified on the way, and syncs it.
pub(crate) fn write_shard<S: Storage>(
    storage: &S,
    view: &View<S::File>,
    shard: &NewShard,
    origin: Origin,
    throttle: &mut Throttle<'_>,
) -> Result<(ShardEntry, SourceFile<S::File>), FoldError> {
    let too_large = || FoldError::TooLarge {
        path: storage.path().to_path_buf(),
        version: view.version,
    };
    let name = shard_name(origin.file);
    let fail = |action, offset, source| FileError::new(storage, action, &name, offset, source);
    let header_len =
        shard_header_len(shard.runs.len() as u64, shard.pages).ok_or_else(too_large)?;
    let writing = storage
        .create(&name)
        .map_err(|error| fail(Action::Create, 0, error))?;
    let mut checksums = Vec::with_capacity(shard.pages as usize);
    let mut buffer = vec![0; (shard.pages as usize).min(CHUNK_PAGES) * PAGE_SIZE];
    let mut offset = header_len;
    let mut ids = Vec::with_capacity(CHUNK_PAGES);
    let mut pages = (shard.runs.iter()).flat_map(|(first, pages)| *first..first + pages);
    loop {
        ids.clear();
        let chunk = pages.by_ref().take(CHUNK_PAGES);
        ids.extend(chunk.filter_map(|page| PageId::new(shard.region, page)));
        if ids.is_empty() {
            break;
        }
        let chunk = buffer.get_mut(..ids.len() * PAGE_SIZE).unwrap_or_default();
        view.read_pages(&ids, chunk, Verify::Yes)?;
        checksums.extend(pages_of(chunk).map(page_checksum));
        storage
            .pwrite(&writing, chunk, offset)
            .map_err(|error| fail(Action::Write, offset, error))?;
        offset += chunk.len() as u64;
        throttle.wrote(chunk.len())?;
    }
    let header = ShardHeader {
        tenant: origin.tenant,
        file: origin.file,
        region: shard.region,
        runs: shard.runs.clone(),
        checksums,
    };
    let bytes = encode_shard_header(&header).ok_or_else(too_large)?;
    let checksum = *bytes.last_chunk::<CHECKSUM_SIZE>().ok_or_else(too_large)?;
    storage
        .pwrite(&writing, &bytes, 0)
        .map_err(|error| fail(Action::Write, 0, error))?;
    storage
        .fsync(&writing)
        .map_err(|error| fail(Action::Sync, 0, error))?;
    let handle = storage
        .open_read(&name)
        .map_err(|error| fail(Action::Open, 0, error))?;
    let (first_page, last_page) = match (shard.runs.first(), shard.runs.last()) {
        (Some((first, _)), Some((last, pages))) => (*first, last + pages - 1),
        _ => return Err(too_large()),
    };
    let entry = ShardEntry {
        file: origin.file,
        origin,
        region: shard.region,
        first_page,
        last_page,
        pages: shard.pages,
        header_len,
        checksum,
    };
    let block = Block {
        data: header_len,
        checksums: (SHARD_FIXED + 16 * shard.runs.len()) as u64,
        stride: 8,
    };
    debug_assert_eq!(offset, header_len + shard.pages * PAGE_BYTES);
    let path = storage.path().join(&name);
    Ok((
        entry,
        SourceFile::new(origin.file, path, handle, vec![block]),
    ))
}
