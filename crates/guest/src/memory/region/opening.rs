//! What of a memory may be written: closed for the tracker's sake, opened by the
//! first write or for the host's.

use lazaret_wire::layout;
use rustix::mm::MprotectFlags;

use super::super::chunks::Chunks;
use super::{Region, Watch};
use crate::abort::{self, Reason};

impl Region {
    /// Before a call under the signal tracker: closes its pages.
    pub(in crate::memory) fn begin(&self) {
        if let Watch::Pages(pages) = &self.watch {
            pages.begin(self);
        }
    }

    /// Closes chunks: the next write to each faults. Chunks beyond the size
    /// are merely no longer entered. With cards, it is pages of cards that are
    /// closed, and all of theirs must be 0. Under the signal tracker every call
    /// begins with all pages closed.
    pub fn close(&self, numbers: &[u32]) {
        let (chunks, bytes) = match &self.watch {
            Watch::Chunks { entered, bytes } => (entered, *bytes),
            Watch::Cards(cards) => return cards.region().close(numbers),
            Watch::Pages(_) => return,
        };
        for (first, count) in consecutive(numbers) {
            let from = u64::from(first) * bytes;
            let to = (from + count * bytes).min(self.size());
            if from < to
                && let Err(errno) = self.protect(from, to - from, MprotectFlags::READ)
            {
                abort::now(
                    Reason::OutOfMemory,
                    &format!("closing chunks of {:?}: {errno}", self.kind),
                );
            }
            (first as usize..first as usize + count as usize).for_each(|chunk| chunks.leave(chunk));
        }
    }

    /// Opens chunks, for pages that the host will write; under the signal
    /// tracker pages. With cards all pages are open.
    pub fn open_all(&self, numbers: &[u32]) {
        if let Watch::Pages(pages) = &self.watch {
            for (first, count) in consecutive(numbers) {
                let end = (u64::from(first) + count) * layout::PAGE as u64;
                if end > self.size() {
                    let text = format!("{:?} has no page {first} to {}", self.kind, end);
                    abort::now(Reason::Wire, &text);
                }
                pages.open_for_host(self, first.into(), count);
            }
            return;
        }
        let Some((chunks, bytes)) = self.chunks() else {
            return;
        };
        let size = self.size();
        for &chunk in numbers {
            if u64::from(chunk) * bytes >= size {
                let text = format!("{:?} has no chunk {chunk}", self.kind);
                abort::now(Reason::Wire, &text);
            }
            if !chunks.contains(chunk as usize) {
                open(self, chunks, chunk as usize, bytes, size);
            }
        }
    }

    /// Opens the closed chunk at `address`, if there is one. Runs in the fault
    /// handler: async-signal-safe.
    pub(in crate::memory) fn open_at(&self, address: usize) -> bool {
        let Some(offset) = address.checked_sub(self.base.as_ptr() as usize) else {
            return false;
        };
        let (offset, size) = (offset as u64, self.size());
        if let Watch::Pages(pages) = &self.watch {
            return offset < size && pages.fault(self, offset / layout::PAGE as u64);
        }
        let Some((chunks, bytes)) = self.chunks() else {
            return false;
        };
        let chunk = (offset / bytes) as usize;
        if offset >= size || chunks.contains(chunk) {
            return false;
        }
        open(self, chunks, chunk, bytes, size);
        true
    }
}

/// Makes a chunk of `bytes` writable up to `size` and enters it.
/// Async-signal-safe.
pub(super) fn open(region: &Region, chunks: &Chunks, chunk: usize, bytes: u64, size: u64) {
    let from = chunk as u64 * bytes;
    let to = (from + bytes).min(size);
    // Entered first: a chunk that is writable and not entered would lose
    // pages, the opposite costs the host a look.
    chunks.enter(chunk);
    let flags = MprotectFlags::READ | MprotectFlags::WRITE;
    if region.protect(from, to - from, flags).is_err() {
        abort::now(
            Reason::OutOfMemory,
            "the host has no memory or no mappings left to open a chunk",
        );
    }
}

/// Runs of consecutive numbers: first and count.
fn consecutive(numbers: &[u32]) -> impl Iterator<Item = (u32, u64)> + '_ {
    numbers
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .filter_map(|run| Some((*run.first()?, run.len() as u64)))
}
