//! One memory: a reservation of address space whose base never moves.

mod access;
mod opening;

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use lazaret_wire::message::Region as Kind;
use lazaret_wire::{Shared, layout};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use thiserror::Error;

use super::cards::Cards;
use super::chunks::Chunks;
use super::pages::Pages;
use super::{MemoryError, WASM_PAGE, fault, system};
use crate::abort::{self, Reason};
use crate::engine::{GUARD, RESERVATION};
use opening::open;

pub use access::CopyRefused;

const CHUNK: u64 = layout::CHUNK as u64;

/// The host has no memory (or no mappings) left. Never the guest's doing, so
/// it ends a call as an abort, never as a trap or a -1.
#[derive(Debug, Error)]
#[error(
    "the host has no memory for {bytes} bytes more of {kind:?}: {source}; free memory on the host or raise the worker's limits"
)]
pub struct Lack {
    kind: Kind,
    bytes: u64,
    source: io::Error,
}

/// One memory of the tenant.
#[derive(Debug)]
pub struct Region {
    kind: Kind,
    base: NonNull<u8>,
    capacity: u64,
    guard: u64,
    limit: u64,
    /// What the image held: mapped from files, so it can't be dropped.
    floor: u64,
    size: AtomicU64,
    watch: Watch,
}

/// How writes to a memory become known.
#[derive(Debug)]
enum Watch {
    /// It is read-only, a chunk of so many bytes at a time, until its first
    /// write.
    Chunks { entered: Chunks, bytes: u64 },
    /// Whoever writes sets a card first.
    Cards(Cards),
    /// It is read-only, page by page, until the first write in a call.
    Pages(Pages),
}

// SAFETY: the mapping belongs to this value until it is dropped; the process
// is single-threaded, and in tests each region stays on its thread.
unsafe impl Send for Region {}
// SAFETY: as above; what changes are atomics and the mapping's own bytes.
unsafe impl Sync for Region {}

impl Region {
    /// Reserves address space for at most `limit` bytes (for a heap at least
    /// what compiled code expects) and makes the first `size` readable zeros,
    /// whose chunks are closed; with cards, writable ones. `by_page` is for the
    /// signal tracker.
    pub(super) fn reserve(
        kind: Kind,
        limit: u64,
        size: u64,
        (cards, by_page): (Option<Cards>, bool),
        shared: &'static Shared,
    ) -> Result<Self, MemoryError> {
        if limit > layout::MAX_MEMORY {
            return Err(MemoryError::Limit { kind, limit });
        }
        if size > limit || !size.is_multiple_of(WASM_PAGE) {
            return Err(MemoryError::Size { kind, size, limit });
        }
        let watch = match cards {
            Some(cards) => Watch::Cards(cards),
            None if by_page => Watch::Pages(Pages::new(
                kind,
                limit.div_ceil(layout::PAGE as u64),
                shared,
            )),
            None => Watch::Chunks {
                entered: Chunks::new(kind, limit.div_ceil(CHUNK), shared),
                bytes: CHUNK,
            },
        };
        Self::map(kind, limit, size, watch)
    }

    /// The cards of a memory: so many zeros, whose pages are closed.
    pub(super) fn cards(
        kind: Kind,
        bytes: u64,
        shared: &'static Shared,
    ) -> Result<Self, MemoryError> {
        let page = layout::PAGE as u64;
        let watch = Watch::Chunks {
            entered: Chunks::new(kind, bytes.div_ceil(page), shared),
            bytes: page,
        };
        Self::map(kind, bytes, bytes, watch)
    }

    fn map(kind: Kind, limit: u64, size: u64, watch: Watch) -> Result<Self, MemoryError> {
        let (least, guard) = match kind {
            Kind::Heap => (RESERVATION, GUARD),
            Kind::Stable => (CHUNK, 0),
        };
        let capacity = limit.next_multiple_of(CHUNK).max(least);
        let base = reserve(capacity + guard)?;
        let region = Self {
            kind,
            base,
            capacity,
            guard,
            limit,
            floor: size,
            size: AtomicU64::new(size),
            watch,
        };
        region
            .prime(0)
            .map_err(system("mprotect of the memory's first page"))?;
        region
            .protect(0, size, region.closed())
            .map_err(system("mprotect of the memory's first bytes"))?;
        Ok(region)
    }

    /// Which memory it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it begins.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes that can be accessed.
    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Bytes to which it may grow: the tenant's limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes reserved, without the guard.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Bytes after the capacity that can never be accessed.
    pub fn guard(&self) -> usize {
        self.guard as usize
    }

    /// What may be done with pages that nobody has written yet.
    pub(super) fn closed(&self) -> MprotectFlags {
        match self.watch {
            Watch::Chunks { .. } | Watch::Pages(_) => MprotectFlags::READ,
            Watch::Cards(_) => MprotectFlags::READ | MprotectFlags::WRITE,
        }
    }

    /// The chunks, and the bytes in each, if it has any.
    fn chunks(&self) -> Option<(&Chunks, u64)> {
        match &self.watch {
            Watch::Chunks { entered, bytes } => Some((entered, *bytes)),
            Watch::Cards(_) | Watch::Pages(_) => None,
        }
    }

    /// Has mappings that a call will split come together again afterwards.
    ///
    /// Two anonymous mappings are only joined if they don't belong to different
    /// `anon_vma`s (kernel: mm/vma.c, `is_mergeable_anon_vma`). One is given at
    /// a mapping's first written page, and inherited by the parts that it is
    /// split into; parts that get theirs later never come together. So the
    /// mapping that begins at `from` gets one while it is whole.
    pub(super) fn prime(&self, from: u64) -> Result<(), Errno> {
        let Watch::Pages(_) = self.watch else {
            return Ok(());
        };
        let page = layout::PAGE as u64;
        let before = match from < self.size() {
            true => MprotectFlags::READ,
            false => MprotectFlags::empty(),
        };
        self.protect(from, page, MprotectFlags::READ | MprotectFlags::WRITE)?;
        if let Some(at) = self.pointer(from, page, self.capacity) {
            // SAFETY: a page of this mapping (checked) that has just been made
            // readable and writable, and to which nobody refers. Its contents
            // are dropped again below.
            unsafe { at.as_ptr().write_volatile(0) };
        }
        self.drop_pages(from, from + page)?;
        self.protect(from, page, before)
    }

    /// Grows to `size` bytes. The new pages are zeros, and their chunks are
    /// entered, as whoever grows a memory is about to write to it. Their cards
    /// are not set, and under the signal tracker they are closed.
    ///
    /// # Errors
    /// If the host has no memory for it; then nothing has changed. A size over
    /// the limit is refused in the same way: callers check it first.
    pub fn grow(&self, size: u64) -> Result<(), Lack> {
        let before = self.size();
        let lack = |errno: Errno| Lack {
            kind: self.kind,
            bytes: size.saturating_sub(before),
            source: errno.into(),
        };
        if size > self.limit {
            return Err(lack(Errno::NOMEM));
        }
        if size <= before {
            return Ok(());
        }
        // The chunk in which the old size lies is entered as a whole, or its
        // lower part would stay read-only with its bit set.
        let from = match self.chunks() {
            Some((_, bytes)) => before - before % bytes,
            None => before,
        };
        let flags = match self.watch {
            Watch::Pages(_) => MprotectFlags::READ,
            Watch::Chunks { .. } | Watch::Cards(_) => MprotectFlags::READ | MprotectFlags::WRITE,
        };
        if let Err(errno) = self.protect(from, size - from, flags) {
            self.hide(before, size);
            // Its lower part may have become writable.
            if let Some((chunks, bytes)) = self.chunks()
                && from < before
            {
                open(self, chunks, (from / bytes) as usize, bytes, before);
            }
            return Err(lack(errno));
        }
        if let Some((chunks, bytes)) = self.chunks() {
            chunks.enter_all((from / bytes) as usize..size.div_ceil(bytes) as usize);
        }
        self.size.store(size, Relaxed);
        Ok(())
    }

    /// Gives it the size it must have before a call: what is beyond is dropped,
    /// what is missing added.
    ///
    /// # Errors
    /// If the host has no memory for it. A size that it can't have ends the
    /// process: below what the image held, pages of a file would come back.
    pub fn resize(&self, size: u64) -> Result<(), Lack> {
        let now = self.size();
        if size == now {
            return Ok(());
        }
        if size > self.limit || size < self.floor || !size.is_multiple_of(WASM_PAGE) {
            abort::now(
                Reason::Wire,
                &format!(
                    "{:?}: no size: {size} (from {} to {})",
                    self.kind, self.floor, self.limit
                ),
            );
        }
        if size > now {
            return self.grow(size);
        }
        self.hide(size, now);
        if let Some((chunks, bytes)) = self.chunks() {
            for gone in size.div_ceil(bytes) as usize..now.div_ceil(bytes) as usize {
                chunks.leave(gone);
            }
        }
        self.size.store(size, Relaxed);
        Ok(())
    }

    /// Makes `from..to` inaccessible and drops its contents.
    fn hide(&self, from: u64, to: u64) {
        let hidden = self.protect(from, to - from, MprotectFlags::empty());
        let dropped = hidden.and_then(|()| self.drop_pages(from, to));
        if let Err(errno) = dropped {
            // Half of it may be hidden: no call can run on that.
            abort::now(
                Reason::OutOfMemory,
                &format!("shrinking {:?}: {errno}", self.kind),
            );
        }
    }

    fn drop_pages(&self, from: u64, to: u64) -> Result<(), Errno> {
        let Some(at) = self.pointer(from, to - from, self.capacity) else {
            return Err(Errno::INVAL);
        };
        // SAFETY: the range lies in this mapping (checked) and nobody borrows
        // it: all access is by copies.
        unsafe {
            rustix::mm::madvise(
                at.as_ptr().cast(),
                (to - from) as usize,
                Advice::LinuxDontNeed,
            )
        }
    }

    /// Changes the protection of a range below the capacity.
    pub(super) fn protect(
        &self,
        from: u64,
        length: u64,
        flags: MprotectFlags,
    ) -> Result<(), Errno> {
        let Some(at) = self.pointer(from, length, self.capacity) else {
            return Err(Errno::INVAL);
        };
        // SAFETY: the range lies in this mapping (checked); no Rust reference
        // points into it, so no access of ours can be invalidated.
        unsafe { rustix::mm::mprotect(at.as_ptr().cast(), length as usize, flags) }
    }

    /// Where `length` bytes at `from` lie, if they end below `end`.
    pub(super) fn pointer(&self, from: u64, length: u64, end: u64) -> Option<NonNull<u8>> {
        let last = from.checked_add(length)?;
        // SAFETY: at most `end`, which is a size or the capacity, so within (or
        // one past) the mapping.
        (last <= end && end <= self.capacity).then(|| unsafe { self.base.add(from as usize) })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        fault::forget(self);
        // SAFETY: the mapping was made by `reserve` with this length and ends
        // with self; the fault handler no longer knows it.
        let _ = unsafe {
            rustix::mm::munmap(
                self.base.as_ptr().cast(),
                (self.capacity + self.guard) as usize,
            )
        };
    }
}

/// Address space without access, beginning at a multiple of the chunk size, so
/// that a chunk is one page table.
fn reserve(length: u64) -> Result<NonNull<u8>, MemoryError> {
    let step = "mmap of the memory's address space";
    let mapped = length + CHUNK;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let start = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            mapped as usize,
            ProtFlags::empty(),
            flags,
        )
    }
    .map_err(system(step))?;
    let head = (start as usize).next_multiple_of(layout::CHUNK) - start as usize;
    let tail = layout::CHUNK - head;
    // SAFETY: head and tail are inside the mapping just made, which has a
    // chunk more than `length`.
    unsafe {
        let base = start.cast::<u8>().add(head);
        if head > 0 {
            rustix::mm::munmap(start, head).map_err(system(step))?;
        }
        if tail > 0 {
            rustix::mm::munmap(base.add(length as usize).cast(), tail).map_err(system(step))?;
        }
        NonNull::new(base).ok_or_else(|| system(step)(Errno::NOMEM))
    }
}
