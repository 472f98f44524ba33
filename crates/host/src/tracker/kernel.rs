//! The kernel's tracker: userfaultfd write-protection in async mode, read and
//! armed again by `PAGEMAP_SCAN` (Linux 6.7, kernel: `fs/proc/task_mmu.c`;
//! `Documentation/admin-guide/mm/pagemap.rst`).
//!
//! A scan is linear in what is scanned, so only *entered* chunks of 2 MiB are:
//! a chunk that was never written is mapped read-only, and its first write
//! sets its bit in shared memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use lazaret_wire::layout::{CHUNK, CHUNK_PAGES, ENTERED, HEAP_CHUNKS, PAGE, STABLE_CHUNKS};
use lazaret_wire::message::{Region, Sizes};
use lazaret_wire::{Shared, layout};

use super::{Tracker, Written};

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
    /// The bitmap of entered chunks as it was copied, kept for its room.
    bytes: Vec<u8>,
}

/// So many closed chunks between two entered ones are scanned with them: a
/// chunk costs a scan less than another scan costs, as each scan that finds
/// something ends in a TLB flush, and where the worker's processor spins that
/// is an interrupt.
const GAP: u64 = 2;

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
            bytes: Vec::new(),
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
    fn scan(&mut self, start: u64, end: u64, masks: Masks, mut found: impl FnMut(u64, u64)) -> io::Result<()> {
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
            argument.vec_len = self.regions.len() as u64;
        }
        loop {
            // SAFETY: an argument of the size it names, whose vector is as long
            // as it says; the kernel writes no more than that.
            let count = unsafe { libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) };
            if count < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            for region in self.regions.iter().take(if masks.report { count as usize } else { 0 }) {
                found(region.start, region.end);
            }
            if argument.walk_end >= end || argument.walk_end <= argument.start {
                return Ok(());
            }
            argument.start = argument.walk_end;
        }
    }

    fn region_written(&mut self, region: Region, shared: &Shared, size: u64, out: &mut Written) -> io::Result<()> {
        let entered = self.entered(region, shared, size);
        let page = |at: u64, base: u64| (at - base) / PAGE as u64;
        let (base, before) = (self.base(region), out.len());
        let mut chunk = 0;
        while let Some(first) = entered.next(chunk) {
            chunk = first + 1;
            if bit(&self.armed[region as usize], first) {
                continue;
            }
            let (start, end) = (base + first * CHUNK as u64, base + entered.end(first));
            self.scan(start, end, Masks::NEW, |from, to| out.extend((page(from, base)..page(to, base)).map(|page| (region, page))))?;
            self.arm_chunk(region, first, end)?;
            self.fresh[region as usize].push(first);
        }
        let mut chunk = 0;
        while let Some(first) = entered.next(chunk) {
            let mut last = first;
            while let Some(next) = entered.next(last + 1).filter(|next| next - last <= GAP + 1) {
                last = next;
            }
            chunk = last + 1;
        }
        Ok(())
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
    const KNOWN: Self = Self { all: WRITTEN, any: 0, inverted: 0, report: true };
    /// In a chunk that was just entered: pages read before are present and
    /// not armed, but they are the file's, or the zero page.
    const NEW: Self = Self { all: WRITTEN | FILE | PFNZERO, any: PRESENT | SWAPPED, inverted: FILE | PFNZERO, report: true };
    /// Everything, holes too: arm it.
    const EVERYTHING: Self = Self { all: 0, any: 0, inverted: 0, report: false };
    /// What was written: arm it.
    const AGAIN: Self = Self { all: WRITTEN, any: 0, inverted: 0, report: false };
}

fn bit(words: &[u64], index: u64) -> bool {
    words.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
}

fn set(words: &mut [u64], index: u64) {
    if let Some(word) = words.get_mut((index / 64) as usize) {
        *word |= 1 << (index % 64);
    }
}

fn next_set(words: &[u64], from: u64, end: u64) -> Option<u64> {
    (from..end).find(|index| bit(words, *index))
}

fn bitmap(shared: &Shared, at: usize, out: &mut Vec<u8>) -> Vec<u64> {
    shared.copy_out(at, layout::CHUNKS_SIZE, out);
    out.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

impl Tracker for KernelTracker {
    fn written(&mut self, shared: &Shared, sizes: Sizes) -> io::Result<Written> {
        let mut out = Written::new();
        if shared.u32(ENTERED).load(std::sync::atomic::Ordering::Relaxed) == 0 {
            return Ok(out);
        }
        let mut bytes = Vec::new();
        let heap = bitmap(shared, HEAP_CHUNKS, &mut bytes);
        self.region_written(Region::Heap, &heap, sizes.heap, &mut out)?;
        let stable = bitmap(shared, STABLE_CHUNKS, &mut bytes);
        self.region_written(Region::Stable, &stable, sizes.stable, &mut out)?;
        Ok(out)
    }

    fn arm(&mut self, pages: &[(Region, u64)]) -> io::Result<()> {
        let mut rest = pages;
        while let Some(&(region, first)) = rest.first() {
            // Pages of one chunk in one scan: those between are armed already,
            // or will be reported.
            let chunk = first / CHUNK_PAGES as u64;
            let count = rest.iter().take_while(|(other, page)| *other == region && page / CHUNK_PAGES as u64 == chunk).count();
            let last = rest[count - 1].1;
            let base = self.base(region);
            self.scan(base + first * PAGE as u64, base + (last + 1) * PAGE as u64, Masks::AGAIN, |_, _| {})?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "kernel"
    }
}
