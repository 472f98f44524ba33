//! The signal tracker: pages that are read-only until their first write in a
//! call. The write faults, [`super::fault`] makes the page writable and its bit
//! is set in shared memory, where the host reads it after the call. The next
//! call begins with all pages closed again, by one `mprotect`.
//!
//! It needs nothing of the kernel that isn't as old as memory protection, and
//! nothing of the code. What it costs is a signal for each page and call.
//!
//! **Mappings are bounded.** A writable page among read-only ones splits a
//! mapping in three, and a process has 65,530 (`vm.max_map_count`). Neighbours
//! are one mapping again, so it is the separate *runs* of open pages that
//! count. Above [`MAX_OPEN_RUNS`] all are closed and opening begins anew; what
//! was written stays noted. One page in one closing is a thousandth of it, so
//! that is cheap, unless the pages closed are written again: if half of the
//! faults between two closings were of pages noted before, twice as many pages
//! are opened with each from then on, up to a chunk of 512 KiB. So a call has at
//! most two faults for each page it writes and a few ten thousand more,
//! whatever its order.
//!
//! **Neighbours go together.** From the third of three pages written one after
//! the other on (upwards or downwards), as many pages are opened with it as were
//! so far, at most [`MAX_OPEN_AHEAD`]. What is opened counts as written; it
//! costs the host a copy if it wasn't.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use lazaret_wire::layout::{CHUNK_PAGES, MAX_OPEN_AHEAD, MAX_OPEN_RUNS, PAGE};
use lazaret_wire::message::Region as Kind;
use lazaret_wire::{Shared, layout};
use rustix::mm::MprotectFlags;

use super::chunks::Chunks;
use super::region::Region;
use crate::abort::{self, Reason};

/// The pages of one memory. All is atomic because the fault handler changes it;
/// nothing is contended.
#[derive(Debug)]
pub(super) struct Pages {
    /// Chunks with written pages: what the host looks at.
    chunks: Chunks,
    shared: &'static Shared,
    /// Where the written pages lie in shared memory.
    bitmap: usize,
    /// Pages that are writable now.
    open: Box<[AtomicU64]>,
    /// Separate runs of open pages.
    runs: AtomicU32,
    /// All open pages lie from here to there.
    first: AtomicU64,
    end: AtomicU64,
    /// Whether anything was noted since all was forgotten.
    noted: AtomicU32,
    ahead: Ahead,
    /// Pages opened with each fault: 1, and more where pages are written again
    /// and again that were closed for want of mappings.
    granule: AtomicU64,
    /// Faults since the last closing, and those of them of noted pages.
    faults: AtomicU32,
    again: AtomicU32,
}

/// What was opened last.
#[derive(Debug, Default)]
struct Ahead {
    first: AtomicU64,
    end: AtomicU64,
    /// Faults in a row, each beside what was opened by the one before.
    row: AtomicU32,
}

impl Pages {
    /// So many pages at most, all closed.
    pub(super) fn new(kind: Kind, pages: u64, shared: &'static Shared) -> Self {
        let words = pages.div_ceil(64) as usize;
        Self {
            chunks: Chunks::new(kind, pages.div_ceil(CHUNK_PAGES as u64), shared),
            shared,
            bitmap: match kind {
                Kind::Heap => layout::HEAP_PAGES,
                Kind::Stable => layout::STABLE_PAGES,
            },
            open: (0..words).map(|_| AtomicU64::new(0)).collect(),
            runs: AtomicU32::new(0),
            first: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(0),
            noted: AtomicU32::new(0),
            ahead: Ahead::default(),
            granule: AtomicU64::new(1),
            faults: AtomicU32::new(0),
            again: AtomicU32::new(0),
        }
    }

    /// Opens the page that was written to, and notes it. False if it was open:
    /// then the fault has another reason. Async-signal-safe.
    pub(super) fn fault(&self, region: &Region, page: u64) -> bool {
        if self.is_open(page) {
            return false;
        }
        self.faults.fetch_add(1, Relaxed);
        if self.is_written(page) {
            self.again.fetch_add(1, Relaxed);
        }
        let pages = region.size() / PAGE as u64;
        let (first, end) = self.extent(page, pages);
        // Noted first: a page that is writable and not noted would be lost.
        (first..end).for_each(|page| self.note(page));
        self.open(region, first, end);
        true
    }

    /// Opens pages for the host, which will write them. Not noted.
    pub(super) fn open_for_host(&self, region: &Region, first: u64, pages: u64) {
        self.open(region, first, first + pages);
    }

    /// Before a call: closes all pages and forgets what was written.
    pub(super) fn begin(&self, region: &Region) {
        self.close(region);
        if self.noted.swap(0, Relaxed) == 0 {
            return;
        }
        let words = CHUNK_PAGES / 64;
        for chunk in self.chunks.entered() {
            for word in chunk * words..(chunk + 1) * words {
                self.shared.u64(self.bitmap + word * 8).store(0, Relaxed);
            }
            self.chunks.leave(chunk);
        }
        self.granule.store(1, Relaxed);
        self.faults.store(0, Relaxed);
        self.again.store(0, Relaxed);
        self.ahead.row.store(0, Relaxed);
    }

    /// The pages to open for a write to `page`, in a memory of `pages`.
    fn extent(&self, page: u64, pages: u64) -> (u64, u64) {
        let ahead = &self.ahead;
        let (before, after) = (ahead.first.load(Relaxed), ahead.end.load(Relaxed));
        let (upwards, downwards) = (page == after, page + 1 == before);
        let row = match upwards || downwards {
            true => ahead.row.load(Relaxed).saturating_add(1),
            false => 0,
        };
        ahead.row.store(row, Relaxed);
        // 1, 1, 2, 4 ...: as many as there were.
        let count = (1u64 << row.saturating_sub(1).min(16)).min(MAX_OPEN_AHEAD as u64);
        let (first, end) = match downwards {
            true => ((page + 1).saturating_sub(count), page + 1),
            false => (page, page + count),
        };
        let granule = self.granule.load(Relaxed);
        let block = page - page % granule;
        let (first, end) = (first.min(block), end.max(block + granule).min(pages));
        ahead.first.store(first, Relaxed);
        ahead.end.store(end, Relaxed);
        (first, end)
    }

    fn open(&self, region: &Region, first: u64, end: u64) {
        if self.runs.load(Relaxed) as usize >= MAX_OPEN_RUNS {
            self.close_early(region);
        }
        let flags = MprotectFlags::READ | MprotectFlags::WRITE;
        let bytes = PAGE as u64;
        if region
            .protect(first * bytes, (end - first) * bytes, flags)
            .is_err()
        {
            abort::now(
                Reason::OutOfMemory,
                "the host has no memory or no mappings left to open a page",
            );
        }
        // Runs that begin in it or right after it are parts of it now.
        let before = first.checked_sub(1).is_some_and(|page| self.is_open(page));
        let (mut joined, mut previous) = (0, before);
        for page in first..=end {
            let is_open = self.is_open(page);
            joined += u32::from(is_open && !previous);
            previous = is_open;
            if page < end {
                self.set_open(page);
            }
        }
        let runs = (self.runs.load(Relaxed) + u32::from(!before)).saturating_sub(joined);
        self.runs.store(runs, Relaxed);
        self.first.fetch_min(first, Relaxed);
        self.end.fetch_max(end, Relaxed);
    }

    /// Closes all pages in the middle of a call, as there may be no more runs.
    fn close_early(&self, region: &Region) {
        self.close(region);
        let (faults, again) = (self.faults.swap(0, Relaxed), self.again.swap(0, Relaxed));
        if again > faults / 2 {
            let granule = self.granule.load(Relaxed);
            self.granule
                .store((granule * 2).min(CHUNK_PAGES as u64), Relaxed);
        }
    }

    fn close(&self, region: &Region) {
        if self.runs.swap(0, Relaxed) == 0 {
            return;
        }
        let (first, end) = (
            self.first.swap(u64::MAX, Relaxed),
            self.end.swap(0, Relaxed),
        );
        for word in first / 64..end.div_ceil(64) {
            if let Some(word) = self.open.get(word as usize) {
                word.store(0, Relaxed);
            }
        }
        // Read-only mappings between them cost the kernel a look each.
        let bytes = PAGE as u64;
        let closed = region.protect(first * bytes, (end - first) * bytes, MprotectFlags::READ);
        if closed.is_err() {
            abort::now(
                Reason::OutOfMemory,
                "the host has no memory left to close pages",
            );
        }
    }

    fn note(&self, page: u64) {
        self.noted.store(1, Relaxed);
        self.chunks.enter(page as usize / CHUNK_PAGES);
        self.written_word(page).fetch_or(bit(page), Relaxed);
    }

    fn is_written(&self, page: u64) -> bool {
        self.written_word(page).load(Relaxed) & bit(page) != 0
    }

    fn written_word(&self, page: u64) -> &AtomicU64 {
        self.shared.u64(self.bitmap + (page / 64) as usize * 8)
    }

    fn is_open(&self, page: u64) -> bool {
        let word = self.open.get((page / 64) as usize);
        word.is_some_and(|word| word.load(Relaxed) & bit(page) != 0)
    }

    fn set_open(&self, page: u64) {
        if let Some(word) = self.open.get((page / 64) as usize) {
            word.fetch_or(bit(page), Relaxed);
        }
    }
}

fn bit(page: u64) -> u64 {
    1 << (page % 64)
}
