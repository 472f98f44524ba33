//! Appending a segment: one commit.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use crate::checksum::{Checksum, is_zero, page_checksum, pages_of};
use crate::encode::SegmentEncoder;
use crate::error::{Action, CommitError, FileError};
use crate::files::Block;
use crate::format::{SegmentFields, log_name, segment_header_len};
use crate::image::Image;
use crate::index::Location;
use crate::log::LogTail;
use crate::page::{MAX_META, PAGE_BYTES, PAGE_SIZE, PageId, Sizes, Version};
use crate::reader::Next;
use crate::storage::Storage;

/// Pages that are read, summed and written together: 1 MiB, so that they stay in the processor's L2 cache
/// between the three.
pub const CHUNK_PAGES: usize = 256;

/// Space set aside for a log at once, in bytes: as much as it has, but no less and no more than these.
const LEAST_RESERVED: u64 = 256 << 10;
const MOST_RESERVED: u64 = 16 << 20;

/// A relaxed commit shorter than this writes zeros behind itself up to a multiple of it, so that the next ones find pages
/// in the cache and needn't make them: the page cache makes pages for one large write in one piece, which takes 10 us for
/// 128 KiB, and for 11 pages at a time 1.1 us each (ext4, Linux 6.18). Not more, because a sync writes the zeros too.
const AHEAD: u64 = 128 << 10;

/// Headers longer than this are written by themselves.
const LONGEST_FRONT: u64 = 64 << 10;

/// Headers longer than this aren't kept for the next commit.
const KEPT_HEADER: usize = 4 << 20;

/// Where the pages of a commit come from: a worker's memory, as a rule.
pub trait PageSource {
    /// Fills `into` with `pages`, at most [`CHUNK_PAGES`] of them, one after the other.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from doing so, such as a worker that died; the commit is then given up.
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()>;
}

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk (fdatasync).
    Durable,
    /// When it is in the page cache: it survives the host, not the machine.
    Relaxed,
}

/// What a commit did.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The version that it made.
    pub version: Version,
    /// Bytes appended to the log.
    pub bytes: u64,
    /// Pages stored with data.
    pub pages: u64,
    /// Pages that turned out to be zero and take no room.
    pub zero_pages: u64,
    /// Time to read, sum and write to the page cache.
    pub write_time: Duration,
    /// Time to sync; zero if it wasn't asked for.
    pub sync_time: Duration,
}

/// Buffers that one commit leaves to the next on the same thread: with thousands of tenants, one each would be
/// gigabytes, and fresh memory costs a page fault a page.
#[derive(Default)]
struct Scratch {
    chunk: Vec<u8>,
    header: SegmentEncoder,
    zeros: Vec<PageId>,
}

thread_local! {
    // Taken out while in use, so that a page source that commits to another image just gets fresh ones.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// A segment that is written but not yet part of the image.
struct Written {
    header_len: u64,
    data_pages: u64,
    bytes: u64,
    checksum: Checksum,
}

impl<S: Storage> Image<S> {
    /// Makes `pages`, with the contents that `source` gives, the sizes and `meta` the next version.
    ///
    /// `pages` are in ascending order, each once, all inside `sizes`. Pages beyond smaller sizes are forgotten.
    ///
    /// # Errors
    ///
    /// The image stays at the version that it had. It is usable, unless a sync failed.
    pub fn commit(
        &mut self,
        pages: &[PageId],
        source: &mut dyn PageSource,
        sizes: Sizes,
        meta: &[u8],
        durability: Durability,
    ) -> Result<Committed, CommitError> {
        if self.shared.is_poisoned() {
            return Err(CommitError::Poisoned {
                path: self.storage.path().to_path_buf(),
            });
        }
        check(pages, sizes, meta)?;
        let begin = Instant::now();
        if self.log.dirty {
            self.cut_tail().map_err(CommitError::writing)?;
        }
        let mut scratch = SCRATCH.take().unwrap_or_default();
        scratch.zeros.clear();
        // What is synced at once isn't written twice.
        let ahead = durability == Durability::Relaxed;
        let outcome = self.write_segment(pages, source, sizes, meta, ahead, &mut scratch);
        let outcome = outcome.and_then(|written| {
            let write_time = begin.elapsed();
            let mut sync_time = Duration::ZERO;
            if durability == Durability::Durable {
                let begin = Instant::now();
                self.fdatasync_segment(written.bytes)?;
                sync_time = begin.elapsed();
            }
            let version = self.publish(pages, &scratch.zeros, sizes, meta, &written);
            Ok(Committed {
                version,
                bytes: written.bytes,
                pages: written.data_pages,
                zero_pages: scratch.zeros.len() as u64,
                write_time,
                sync_time,
            })
        });
        if scratch.header.capacity() <= KEPT_HEADER {
            SCRATCH.set(Some(scratch));
        }
        if outcome.is_err() {
            // Gives the space back, and takes a segment away whose sync failed. If that fails too, the next commit
            // tries again before it writes.
            self.log.dirty = true;
            let _ = self.cut_tail();
        }
        outcome
    }

    fn write_segment(
        &mut self,
        pages: &[PageId],
        source: &mut dyn PageSource,
        sizes: Sizes,
        meta: &[u8],
        ahead: bool,
        scratch: &mut Scratch,
    ) -> Result<Written, CommitError> {
        let full = || CommitError::Full {
            path: self.storage.path().to_path_buf(),
        };
        let start = self.log.end;
        let version = Version(self.version.0.checked_add(1).ok_or_else(full)?);
        let header_len =
            segment_header_len(pages.len() as u64, meta.len() as u64).ok_or_else(full)?;
        let most = header_len + pages.len() as u64 * PAGE_BYTES;
        let end = start
            .checked_add(most)
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or_else(full)?;
        Location::new(self.log.slot, end / PAGE_BYTES).ok_or_else(full)?;

        let used = self.disk_bytes();
        // All of it, or as much of it as is known yet.
        let within_quota = |end: u64| match self.quota {
            Some(quota) if used.saturating_add(end - start) > quota => Err(CommitError::Quota {
                path: self.storage.path().to_path_buf(),
                quota,
                used,
                needed: end - start,
            }),
            _ => Ok(()),
        };
        within_quota(start + header_len)?;
        if end > self.log.reserved {
            self.log.reserved = reserve(&*self.storage, &self.log, end);
        }
        let name = log_name(self.manifest.log.file);
        let write = |bytes: &[u8], offset| {
            let written = self.storage.pwrite(&self.log.handle, bytes, offset);
            written.map_err(|error| {
                CommitError::writing(FileError::new(
                    &*self.storage,
                    Action::Write,
                    &name,
                    offset,
                    error,
                ))
            })
        };
        // A short segment goes out in one write, with its header before its pages.
        let one_write = pages.len() <= CHUNK_PAGES && header_len <= LONGEST_FRONT;
        let front = if one_write { header_len as usize } else { 0 };
        let room = front + pages.len().min(CHUNK_PAGES) * PAGE_SIZE + AHEAD as usize;
        let buffer = page_aligned(&mut scratch.chunk, room);
        let mut offset = start + header_len;
        let mut data_pages = 0;
        scratch.header.begin();
        for ids in pages.chunks(CHUNK_PAGES) {
            let chunk = buffer
                .get_mut(front..front + ids.len() * PAGE_SIZE)
                .unwrap_or_default();
            source.read(ids, chunk).map_err(CommitError::Source)?;
            let zeros_before = scratch.zeros.len();
            for (id, page) in ids.iter().zip(pages_of(chunk)) {
                if is_zero(page) {
                    scratch.zeros.push(*id);
                } else {
                    scratch.header.data_page(*id, page_checksum(page));
                }
            }
            let dense = match scratch.zeros.get(zeros_before..) {
                Some([]) | None => &*chunk,
                Some(zeros) => without(chunk, ids, zeros),
            };
            if !dense.is_empty() {
                within_quota(offset + dense.len() as u64)?;
                if !one_write {
                    write(dense, offset)?;
                }
            }
            data_pages += (dense.len() / PAGE_SIZE) as u64;
            offset += dense.len() as u64;
        }
        let fields = SegmentFields {
            tenant: self.manifest.tenant,
            version,
            durable_upto: self.durable_len(),
            sizes,
            data_pages,
            zero_pages: scratch.zeros.len() as u64,
            meta_len: meta.len() as u64,
            previous: self.log.chain,
        };
        let header = scratch
            .header
            .finish(&fields, &scratch.zeros, meta)
            .ok_or_else(full)?;
        let checksum = *header.last_chunk().ok_or_else(full)?;
        let bytes = offset - start;
        match buffer.get_mut(..front) {
            // If the write is broken off, the pages behind are missing, or zeros: it is no published segment.
            Some(place) if one_write && place.len() == header.len() => {
                place.copy_from_slice(header);
                let length = bytes as usize;
                let zeros = match ahead && bytes < AHEAD && offset > self.log.zeroed {
                    true => (offset.next_multiple_of(AHEAD) - offset) as usize,
                    false => 0,
                };
                if let Some(behind) = buffer.get_mut(length..length + zeros) {
                    behind.fill(0);
                }
                let segment = || buffer.get(..length).unwrap_or_default();
                match write(buffer.get(..length + zeros).unwrap_or_default(), start) {
                    // Maybe there is room for the segment alone.
                    Err(CommitError::NoSpace(_)) if zeros > 0 => write(segment(), start)?,
                    written => written?,
                }
                self.log.zeroed = self.log.zeroed.max(offset + zeros as u64);
            }
            // Publishes the segment, as all its data is written.
            _ => write(header, start)?,
        }
        Ok(Written {
            header_len,
            data_pages,
            bytes,
            checksum,
        })
    }

    fn fdatasync_segment(&mut self, bytes: u64) -> Result<(), CommitError> {
        self.fdatasync_log().map_err(CommitError::Sync)?;
        self.log.durable = self.log.end + bytes;
        Ok(())
    }

    /// Makes a written segment the image's newest version. Nothing here can fail.
    fn publish(
        &mut self,
        pages: &[PageId],
        zeros: &[PageId],
        sizes: Sizes,
        meta: &[u8],
        written: &Written,
    ) -> Version {
        let slot = self.log.slot;
        let data = self.log.end + written.header_len;
        if let Some(log) = self.files.get(slot)
            && written.data_pages > 0
        {
            log.push(Block::in_segment(self.log.end, data));
        }
        self.log.end += written.bytes;
        self.log.chain = written.checksum;
        self.version.0 += 1;
        self.long_runs.wrote(pages.len());
        self.sizes = sizes;
        self.meta = meta.into();
        let next = Next {
            version: self.version,
            sizes,
            meta: self.meta.clone(),
            log_end: self.log.end,
            durable: self.log.durable,
            stored: written.data_pages,
        };
        self.shared.advance(next, pages, |index| {
            let mut zeros = zeros.iter().peekable();
            let mut next = data / PAGE_BYTES;
            index.apply(pages.iter().map(|page| {
                if zeros.next_if_eq(&page).is_some() {
                    return (*page, None);
                }
                next += 1;
                (*page, Location::new(slot, next - 1))
            }));
            index.truncate(&sizes)
        });
        self.version
    }

    /// Takes away what is behind the last published segment.
    fn cut_tail(&mut self) -> Result<(), FileError> {
        let cut = self.storage.truncate(&self.log.handle, self.log.end);
        cut.map_err(|error| {
            FileError::new(
                &*self.storage,
                Action::Truncate,
                &log_name(self.manifest.log.file),
                self.log.end,
                error,
            )
        })?;
        self.log.dirty = false;
        // Truncating frees what was reserved behind the end.
        self.log.reserved = self.log.end;
        self.log.zeroed = self.log.end;
        Ok(())
    }
}

/// Has the file system set space aside for the log up to `end` and somewhat beyond, and returns up to where. A page
/// written to such space costs 0.3 us less than one for which the space is found at writeback (ext4's delayed
/// allocation, measured on Linux 6.18), and the call 10 us, so it is made seldom. As much as the log is long already:
/// a short one wastes little. A file system that can't do it, or hasn't so much room, goes on as it is.
fn reserve<S: Storage>(storage: &S, log: &LogTail<S::File>, end: u64) -> u64 {
    let ahead = log.end.clamp(LEAST_RESERVED, MOST_RESERVED);
    let until = end.saturating_add(ahead);
    // If it can't be done, it isn't asked again before the log has grown as much.
    let _ = storage.reserve(&log.handle, log.end, until - log.end);
    until
}

fn check(pages: &[PageId], sizes: Sizes, meta: &[u8]) -> Result<(), CommitError> {
    if let Some((region, size)) = sizes.excess() {
        return Err(CommitError::Size { region, size });
    }
    if meta.len() > MAX_META {
        return Err(CommitError::Meta { length: meta.len() });
    }
    let mut previous = None;
    for &page in pages {
        if let Some(previous) = previous.filter(|previous| *previous >= page) {
            return Err(CommitError::Order { page, previous });
        }
        if !sizes.contain(page) {
            return Err(CommitError::Outside {
                page,
                size: sizes.of(page.region()),
            });
        }
        previous = Some(page);
    }
    Ok(())
}

/// Moves the pages of `chunk` that aren't in `zeros` together, and returns them.
fn without<'a>(chunk: &'a mut [u8], ids: &[PageId], zeros: &[PageId]) -> &'a [u8] {
    let mut zeros = zeros.iter().peekable();
    let mut kept = 0;
    for (position, id) in ids.iter().enumerate() {
        if zeros.next_if_eq(&id).is_some() {
            continue;
        }
        let from = position * PAGE_SIZE;
        if from != kept {
            chunk.copy_within(from..from + PAGE_SIZE, kept);
        }
        kept += PAGE_SIZE;
    }
    chunk.get(..kept).unwrap_or_default()
}

/// The first page-aligned `length` bytes of `buffer`, made longer if need be.
pub(crate) fn page_aligned(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length + PAGE_SIZE {
        // Not resize: nothing in it is worth copying, and zeroed memory comes untouched from the kernel.
        *buffer = vec![0; length + PAGE_SIZE];
    }
    let start = buffer.as_ptr().align_offset(PAGE_SIZE).min(PAGE_SIZE);
    buffer.get_mut(start..start + length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Region;

    #[test]
    fn zero_pages_are_squeezed_out_in_order() {
        let ids: Vec<PageId> = (0..5)
            .map(|page| PageId::new(Region::Heap, page).unwrap())
            .collect();
        let mut chunk: Vec<u8> = (0..5u8).flat_map(|page| [page; PAGE_SIZE]).collect();
        let dense = without(&mut chunk, &ids, &[ids[0], ids[3]]);
        assert_eq!(
            pages_of(dense)
                .map(|page| page[PAGE_SIZE - 1])
                .collect::<Vec<_>>(),
            [1, 2, 4]
        );
    }

    #[test]
    fn the_buffer_is_aligned_and_kept() {
        let mut buffer = Vec::new();
        let first = page_aligned(&mut buffer, 3 * PAGE_SIZE).as_ptr();
        assert_eq!(first.align_offset(PAGE_SIZE), 0);
        assert_eq!(page_aligned(&mut buffer, PAGE_SIZE).as_ptr(), first);
        assert_eq!(page_aligned(&mut buffer, PAGE_SIZE).len(), PAGE_SIZE);
    }
}
