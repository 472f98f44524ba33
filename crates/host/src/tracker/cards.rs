//! Tracking by cards: the worker sets a byte for each page before it writes it
//! (crate lazaret-instrument for compiled code, lazaret-guest for system calls).
//!
//! No fault and nothing to arm again: a page that is written in every update
//! costs nothing but its copy. The host reads only pages of cards that were
//! *entered*, each of them for 16 MiB of memory, and clears those it found
//! anything in. A worker that sets too few cards loses its own tenant's
//! writes; one that sets too many has its own pages copied for nothing.

use std::io;

use lazaret_wire::layout::{CARD_CHUNK_PAGES, PAGE};
use lazaret_wire::message::{Region, Sizes, Space};

use super::entered::{entered, next_set};
use super::{ChunkUse, Tracker, Written};
use crate::worker_pages::WorkerPages;

/// The tracker of one worker whose code sets cards.
#[derive(Debug, Default)]
pub struct CardTracker {
    /// The entered pages of cards.
    pages: Vec<(Region, u64)>,
    bytes: Vec<u8>,
}

impl Tracker for CardTracker {
    fn written(&mut self, worker: &mut WorkerPages<'_>, sizes: Sizes) -> io::Result<Written> {
        let mut out = Written::new();
        self.pages.clear();
        for (region, size) in [(Region::Heap, sizes.heap), (Region::Stable, sizes.stable)] {
            let entered = entered(
                worker.shared(),
                region,
                size,
                (CARD_CHUNK_PAGES * PAGE) as u64,
            );
            let mut from = 0;
            while let Some(page) = next_set(&entered, from) {
                self.pages.push((region, page));
                from = page + 1;
            }
        }
        if self.pages.is_empty() {
            return Ok(out);
        }
        self.bytes.resize(self.pages.len() * PAGE, 0);
        worker.read(Space::Cards, &self.pages, &mut self.bytes)?;
        let mut clear = Vec::new();
        for (&(region, page), cards) in self.pages.iter().zip(self.bytes.chunks_exact(PAGE)) {
            let size = match region {
                Region::Heap => sizes.heap,
                Region::Stable => sizes.stable,
            };
            let first = page * CARD_CHUNK_PAGES as u64;
            let any = set_bytes(cards, |at| {
                let page = first + at as u64;
                // A card beyond the size is of pages that are gone.
                if page < size.div_ceil(PAGE as u64) {
                    out.push((region, page));
                }
            });
            if any {
                clear.push((region, page));
            }
        }
        if !clear.is_empty() {
            self.bytes.clear();
            self.bytes.resize(clear.len() * PAGE, 0);
            worker.write(Space::Cards, &clear, &self.bytes)?;
        }
        Ok(out)
    }

    fn arm(&mut self, _: &[(Region, u64)]) -> io::Result<()> {
        // What the host writes sets no card.
        Ok(())
    }

    fn chunks(&self) -> ChunkUse {
        ChunkUse {
            pages: CARD_CHUNK_PAGES as u64,
            opened: false,
            closed: true,
        }
    }
}

/// Calls `found` with the place of each byte that isn't 0, in order; whether
/// there was any.
fn set_bytes(bytes: &[u8], mut found: impl FnMut(usize)) -> bool {
    let mut any = false;
    // Most are 0: a cache line at a time, which the compiler makes a few vector
    // instructions.
    for (line, sixty_four) in bytes.chunks(64).enumerate() {
        if sixty_four.iter().fold(0, |all, byte| all | byte) == 0 {
            continue;
        }
        any = true;
        for (at, &byte) in sixty_four.iter().enumerate() {
            if byte != 0 {
                found(line * 64 + at);
            }
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_bytes_are_found_in_order() {
        let mut bytes = vec![0; PAGE];
        let places = [0, 1, 63, 64, 700, PAGE - 1];
        places.iter().for_each(|&at| bytes[at] = at as u8 | 1);
        let mut found = Vec::new();
        assert!(set_bytes(&bytes, |at| found.push(at)));
        assert_eq!(found, places);
        assert!(!set_bytes(&[0; PAGE], |_| panic!("nothing is set")));
    }
}
