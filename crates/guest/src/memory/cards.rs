//! Cards: a byte for each page of a memory, set before the page is written.
//!
//! The heap's are set by the tenant's code itself, which the compiler
//! (crate lazaret-instrument) has given an instruction for it before each
//! store: to the code they are a second memory. What system calls write is
//! noted here, and the stable memory is written by nothing else.
//!
//! The host reads the cards of the pages that may hold any: those *entered*.
//! They are readable zeros until their first write, which is caught as for a
//! chunk of a memory under the kernel's tracking.

use std::sync::Arc;

use lazaret_wire::message::Region as Kind;
use lazaret_wire::{Shared, layout};

use super::region::Region;
use super::{MemoryError, WASM_PAGE};

/// The cards of a memory.
#[derive(Debug, Clone)]
pub struct Cards(Arc<Region>);

impl Cards {
    /// As many bytes of cards, all of them 0, where a multiple of 64 KiB is
    /// meant. They are the memory 1 of compiled code if they are the heap's.
    pub(super) fn new(
        kind: Kind,
        bytes: u64,
        shared: &'static Shared,
    ) -> Result<Self, MemoryError> {
        let bytes = bytes.next_multiple_of(WASM_PAGE);
        Ok(Self(Arc::new(Region::cards(kind, bytes, shared)?)))
    }

    /// Bytes of cards for a memory that may grow to `limit`.
    pub(super) fn bytes_for(limit: u64) -> u64 {
        limit.div_ceil(layout::PAGE as u64)
    }

    /// Notes that the bytes from `at` on are about to be written. They must be
    /// inside the memory.
    pub fn mark(&self, at: u64, length: u64) {
        let Some(last) = length.checked_sub(1).and_then(|rest| at.checked_add(rest)) else {
            return;
        };
        let (first, last) = (at / layout::PAGE as u64, last / layout::PAGE as u64);
        let marked = self.0.fill(first, last - first + 1, 1);
        debug_assert!(marked, "a page without a card");
    }

    /// The region that they lie in.
    pub fn region(&self) -> &Arc<Region> {
        &self.0
    }
}
