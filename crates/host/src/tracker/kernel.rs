//! The kernel's tracker: userfaultfd write-protection in async mode, read and
//! armed again by `PAGEMAP_SCAN` (Linux 6.7, kernel: `fs/proc/task_mmu.c`;
//! `Documentation/admin-guide/mm/pagemap.rst`).
//!
//! A scan is linear in what is scanned, so only *entered* chunks of 512 KiB are:
//! a chunk that was never written is mapped read-only, and its first write
//! sets its bit in shared memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use lazaret_wire::layout;
use lazaret_wire::layout::{CHUNK, CHUNK_PAGES, PAGE};
use lazaret_wire::message::{Region, Sizes, Space};

use super::entered::{entered, next_set};
use super::{ChunkUse, Tracker, Written};
use crate::worker_pages::WorkerPages;

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;

/// `struct pm_scan_arg` (kernel: `include/uapi/linux/fs.h`).
#[repr(C)]
#[derive(Debug, Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const WRITTEN: u64 = 1 << 1;
const FILE: u64 = 1 << 2;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const PFNZERO: u64 = 1 << 5;
const WP_MATCHING: u64 = 1 << 0;
const CHECK_WPASYNC: u64 = 1 << 1;

/// The kernel's tracker for one worker.
#[derive(Debug)]
pub struct KernelTracker {
    pagemap: File,
    /// Closing it would end the tracking.
    _userfaultfd: OwnedFd,
    heap_at: u64,
    stable_at: u64,
    /// Chunks whose every page is armed or was reported, a bit each.
    armed: [Vec<u64>; 2],
    regions: Vec<PageRegion>,
}

impl KernelTracker {
    /// A tracker for the worker `pid`, whose memories begin at these addresses.
    pub fn new(pid: i32, userfaultfd: OwnedFd, heap_at: u64, stable_at: u64) -> io::Result<Self> {
        let words = layout::CHUNKS_SIZE / 8;
        Ok(Self {
            pagemap: File::open(format!("/proc/{pid}/pagemap"))?,
            _userfaultfd: userfaultfd,
            heap_at,
            stable_at,
            armed: [vec![0; words], vec![0; words]],
            regions: vec![PageRegion::default(); 512],
        })
    }

    fn base(&self, region: Region) -> u64 {
        match region {
            Region::Heap => self.heap_at,
            Region::Stable => self.stable_at,
        }
    }

    /// One scan over `start..end`, with every region that matches given to
    /// `found` if there is anything to give.
    fn scan(
        &mut self,
        start: u64,
        end: u64,
        masks: Masks,
        mut found: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        if start >= end {
            return Ok(());
        }
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            flags: WP_MATCHING | CHECK_WPASYNC,
            start,
            end,
            category_inverted: masks.inverted,
            category_mask: masks.all,
            category_anyof_mask: masks.any,
            return_mask: if masks.report { WRITTEN } else { 0 },
            ..ScanArgument::default()
        };
        if masks.report {
            argument.vec = self.regions.as_mut_ptr() as u64;
            // The kernel allocates a buffer of this length for each call. No
            // more regions than every other page can come of it.
            let most = (end - start) / PAGE as u64 / 2 + 1;
            argument.vec_len = (self.regions.len() as u64).min(most);
        }
        loop {
            // SAFETY: an argument of the size it names, whose vector is as long
            // as it says; the kernel writes no more than that.
            let count =
                unsafe { libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) };
            if count < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            for region in self
                .regions
                .iter()
                .take(if masks.report { count as usize } else { 0 })
            {
                found(region.start, region.end);
            }
            if argument.walk_end >= end {
                return Ok(());
            }
            // What is not scanned would not be committed.
            if argument.walk_end <= argument.start {
                return Err(io::Error::other("PAGEMAP_SCAN made no progress"));
            }
            argument.start = argument.walk_end;
        }
    }

    fn region_written(
        &mut self,
        region: Region,
        entered: &[u64],
        size: u64,
        out: &mut Written,
    ) -> io::Result<()> {
        let base = self.base(region);
        let push = |out: &mut Written, from: u64, to: u64| {
            out.extend(
                ((from - base) / PAGE as u64..(to - base) / PAGE as u64).map(|page| (region, page)),
            );
        };
        let first_of_region = out.len();
        // Chunks that were just entered: what isn't armed need not be written.
        let mut chunk = 0;
        while let Some(new) = next_set(entered, chunk) {
            chunk = new + 1;
            if !bit(&self.armed[region as usize], new) {
                let (start, end) = (base + new * CHUNK as u64, base + end_of(new + 1, size));
                self.scan(start, end, Masks::NEW, |from, to| push(out, from, to))?;
                self.scan(start, end, Masks::EVERYTHING, |_, _| {})?;
                set(&mut self.armed[region as usize], new);
            }
        }
        let found_in_new = out.len();
        let mut chunk = 0;
        while let Some(first) = next_set(entered, chunk) {
            // As many neighbours as there are go in one scan.
            let mut end = first + 1;
            while bit(entered, end) {
                end += 1;
            }
            chunk = end;
            self.scan(
                base + first * CHUNK as u64,
                base + end_of(end, size),
                Masks::KNOWN,
                |from, to| push(out, from, to),
            )?;
        }
        if found_in_new > first_of_region {
            out[first_of_region..].sort_unstable();
            // Only a worker that writes when it must not gives a page twice.
            out.dedup();
        }
        Ok(())
    }
}

/// Where the chunk before `chunk` ends, in bytes, in a memory of `size`.
fn end_of(chunk: u64, size: u64) -> u64 {
    (chunk * CHUNK as u64).min(size)
}

/// What a scan matches.
#[derive(Clone, Copy)]
struct Masks {
    all: u64,
    any: u64,
    inverted: u64,
    report: bool,
}

impl Masks {
    /// In a chunk whose pages are all armed: what lost its protection. The
    /// kernel has a fast path for exactly this.
    const KNOWN: Self = Self {
        all: WRITTEN,
        any: 0,
        inverted: 0,
        report: true,
    };
    /// In a chunk that was just entered: pages read before are present and
    /// not armed, but they are the file's, or the zero page.
    const NEW: Self = Self {
        all: WRITTEN | FILE | PFNZERO,
        any: PRESENT | SWAPPED,
        inverted: FILE | PFNZERO,
        report: true,
    };
    /// Everything, holes too: arm it.
    const EVERYTHING: Self = Self {
        all: 0,
        any: 0,
        inverted: 0,
        report: false,
    };
    /// What was written: arm it.
    const AGAIN: Self = Self {
        all: WRITTEN,
        any: 0,
        inverted: 0,
        report: false,
    };
}

fn bit(words: &[u64], index: u64) -> bool {
    words
        .get((index / 64) as usize)
        .is_some_and(|word| word >> (index % 64) & 1 == 1)
}

fn set(words: &mut [u64], index: u64) {
    if let Some(word) = words.get_mut((index / 64) as usize) {
        *word |= 1 << (index % 64);
    }
}

impl Tracker for KernelTracker {
    fn written(&mut self, worker: &mut WorkerPages<'_>, sizes: Sizes) -> io::Result<Written> {
        let mut out = Written::new();
        let mut any = None;
        for (region, size) in [(Region::Heap, sizes.heap), (Region::Stable, sizes.stable)] {
            let entered = entered(worker.shared(), region, size, CHUNK as u64);
            any = any.or(next_set(&entered, 0).map(|chunk| (region, chunk * CHUNK_PAGES as u64)));
            self.region_written(region, &entered, size, &mut out)?;
        }
        // A process that has ended has no memory any more, and a scan of that finds
        // nothing and says that all went well. Pages that are found tell it as they are
        // copied; where there is none, one is copied that is surely there.
        if let Some(page) = any.filter(|_| out.is_empty()) {
            worker.read(Space::Memory, &[page], &mut [0; PAGE])?;
        }
        Ok(out)
    }

    fn arm(&mut self, pages: &[(Region, u64)]) -> io::Result<()> {
        let mut rest = pages;
        while let Some(&(region, first)) = rest.first() {
            // Pages of one chunk in one scan: those between are armed already,
            // or will be reported.
            let chunk = first / CHUNK_PAGES as u64;
            let count = rest
                .iter()
                .take_while(|(other, page)| *other == region && page / CHUNK_PAGES as u64 == chunk)
                .count();
            let last = rest[count - 1].1;
            let base = self.base(region);
            self.scan(
                base + first * PAGE as u64,
                base + (last + 1) * PAGE as u64,
                Masks::AGAIN,
                |_, _| {},
            )?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn chunks(&self) -> ChunkUse {
        ChunkUse {
            pages: CHUNK_PAGES as u64,
            opened: true,
            closed: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::sync::atomic::Ordering::Relaxed;

    use lazaret_wire::Shared;
    use lazaret_wire::layout::{ENTERED, HEAP_CHUNKS};

    use super::*;
    use crate::memory::WorkerMemory;

    #[test]
    fn that_an_ended_process_has_written_nothing_is_not_believed() {
        let file = lazaret_wire::shared::create().unwrap();
        let shared = Shared::map(file.as_fd()).unwrap();
        let mut process = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = process.id() as i32;
        let mut tracker = KernelTracker::new(pid, file, 1 << 30, 1 << 40).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let mut pages = WorkerPages::of(&shared, WorkerMemory::of(pid, 1 << 30));
        let sizes = Sizes {
            heap: CHUNK as u64,
            stable: 0,
        };
        assert_eq!(tracker.written(&mut pages, sizes).unwrap(), []);
        shared.u32(ENTERED).store(1, Relaxed);
        shared.u64(HEAP_CHUNKS).store(1, Relaxed);
        match tracker.written(&mut pages, sizes) {
            Ok(written) => panic!("{written:?}"),
            // The kernel has no such scan.
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}"),
        }
    }
}
