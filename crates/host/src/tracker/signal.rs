//! Tracking by the worker's own fault handler: pages are read-only until their
//! first write in a call, which sets their bit in shared memory.
//!
//! Nothing is asked of the kernel from outside, and nothing is armed: the worker
//! closes its pages and clears their bits before every call. The host reads the
//! bits of chunks that hold any. A worker that sets too few loses its own
//! tenant's writes; one that sets too many has its own pages copied for nothing.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use lazaret_wire::layout::{CHUNK, CHUNK_PAGES, HEAP_PAGES, PAGE, STABLE_PAGES};
use lazaret_wire::message::{Region, Sizes};

use super::entered::{entered, next_set};
use super::{ChunkUse, Tracker, Written};
use crate::worker_pages::WorkerPages;

/// The tracker of one worker whose fault handler notes pages.
#[derive(Debug, Default)]
pub struct SignalTracker;

impl Tracker for SignalTracker {
    fn written(&mut self, worker: &mut WorkerPages<'_>, sizes: Sizes) -> io::Result<Written> {
        const WORDS: u64 = CHUNK_PAGES as u64 / 64;
        let shared = worker.shared();
        let mut out = Written::new();
        for (region, size, bitmap) in [
            (Region::Heap, sizes.heap, HEAP_PAGES),
            (Region::Stable, sizes.stable, STABLE_PAGES),
        ] {
            let entered = entered(shared, region, size, CHUNK as u64);
            let pages = size.div_ceil(PAGE as u64);
            let mut from = 0;
            while let Some(chunk) = next_set(&entered, from) {
                from = chunk + 1;
                let words = [0, 1].map(|word| {
                    let at = bitmap + (chunk * WORDS + word) as usize * 8;
                    shared.u64(at).load(Relaxed)
                });
                let mut next = 0;
                while let Some(page) = next_set(&words, next) {
                    next = page + 1;
                    // A bit beyond the size is a lie.
                    let page = chunk * CHUNK_PAGES as u64 + page;
                    if page < pages {
                        out.push((region, page));
                    }
                }
            }
        }
        Ok(out)
    }

    fn arm(&mut self, _: &[(Region, u64)]) -> io::Result<()> {
        // The next call begins with all pages closed.
        Ok(())
    }

    fn chunks(&self) -> ChunkUse {
        ChunkUse {
            pages: 1,
            opened: true,
            closed: false,
        }
    }
}

const _: () = assert!(CHUNK_PAGES == 128);

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use lazaret_wire::Shared;
    use lazaret_wire::layout::{ENTERED, HEAP_CHUNKS, STABLE_CHUNKS};

    use super::*;
    use crate::memory::WorkerMemory;

    #[test]
    fn bits_beyond_the_memory_and_of_chunks_that_were_not_entered_are_ignored() {
        let file = lazaret_wire::shared::create().unwrap();
        let shared = Shared::map(file.as_fd()).unwrap();
        let mut pages = WorkerPages::of(&shared, WorkerMemory::of(0, 0));
        let sizes = Sizes {
            heap: 130 * PAGE as u64,
            stable: 4 * CHUNK as u64,
        };
        let written = |pages: &mut WorkerPages<'_>| SignalTracker.written(pages, sizes).unwrap();
        for word in 0..64 {
            shared.u64(HEAP_PAGES + word * 8).store(u64::MAX, Relaxed);
            shared.u64(STABLE_PAGES + word * 8).store(1 << 63, Relaxed);
        }
        assert_eq!(written(&mut pages), [], "nothing is entered");
        shared.u32(ENTERED).store(1, Relaxed);
        shared.u64(HEAP_CHUNKS).store(u64::MAX - 1, Relaxed);
        shared.u64(STABLE_CHUNKS).store(1 << 3, Relaxed);
        assert_eq!(
            written(&mut pages),
            [
                (Region::Heap, 128),
                (Region::Heap, 129),
                (Region::Stable, 3 * 128 + 63),
                (Region::Stable, 3 * 128 + 127)
            ]
        );
    }
}
