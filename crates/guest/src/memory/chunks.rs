//! Which chunks of a memory are entered: may have been written since the host
//! last closed them.
//!
//! The bits here are the truth for this process; the ones in shared memory are
//! what the host goes by, and a hostile worker can set them as it likes
//! without changing what the fault handler does.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use lazaret_wire::message::Region as Kind;
use lazaret_wire::{Shared, layout};

/// The entered chunks of one memory.
#[derive(Debug)]
pub struct Chunks {
    entered: Box<[AtomicU64]>,
    shared: &'static Shared,
    bitmap: usize,
}

impl Chunks {
    /// So many chunks at most, none entered.
    pub fn new(kind: Kind, chunks: u64, shared: &'static Shared) -> Self {
        let words = chunks.div_ceil(64) as usize;
        let bitmap = match kind {
            Kind::Heap => layout::HEAP_CHUNKS,
            Kind::Stable => layout::STABLE_CHUNKS,
        };
        Self {
            entered: (0..words).map(|_| AtomicU64::new(0)).collect(),
            shared,
            bitmap,
        }
    }

    /// Whether a chunk is entered.
    pub fn contains(&self, chunk: usize) -> bool {
        self.entered
            .get(chunk / 64)
            .is_some_and(|word| word.load(Relaxed) & bit(chunk) != 0)
    }

    /// Enters a chunk. Async-signal-safe.
    pub fn enter(&self, chunk: usize) {
        let Some(word) = self.entered.get(chunk / 64) else {
            return;
        };
        let before = word.fetch_or(bit(chunk), Relaxed);
        if before & bit(chunk) == 0 {
            self.shared_word(chunk).fetch_or(bit(chunk), Relaxed);
            self.shared.u32(layout::ENTERED).fetch_add(1, Relaxed);
        }
    }

    /// Enters all chunks of a range.
    pub fn enter_all(&self, chunks: Range<usize>) {
        chunks.for_each(|chunk| self.enter(chunk));
    }

    /// The entered chunks, in order.
    pub fn entered(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.entered.iter().enumerate();
        words.flat_map(|(at, word)| {
            let word = word.load(Relaxed);
            (0..64)
                .filter(move |shift| word >> shift & 1 == 1)
                .map(move |shift| at * 64 + shift)
        })
    }

    /// Takes a chunk back.
    pub fn leave(&self, chunk: usize) {
        let Some(word) = self.entered.get(chunk / 64) else {
            return;
        };
        let before = word.fetch_and(!bit(chunk), Relaxed);
        if before & bit(chunk) != 0 {
            self.shared_word(chunk).fetch_and(!bit(chunk), Relaxed);
            let entered = self.shared.u32(layout::ENTERED);
            entered.store(entered.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }

    fn shared_word(&self, chunk: usize) -> &AtomicU64 {
        self.shared.u64(self.bitmap + (chunk / 64) * 8)
    }
}

fn bit(chunk: usize) -> u64 {
    1 << (chunk % 64)
}
