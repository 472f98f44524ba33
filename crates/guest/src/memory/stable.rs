//! The stable memory of the `ic0` interface: reached only through system calls.

use std::sync::Arc;

use super::WASM_PAGE;
use super::region::{Lack, Region};

/// The stable memory.
#[derive(Debug, Clone)]
pub struct StableMemory(Arc<Region>);

impl StableMemory {
    /// The stable memory in a region.
    pub fn new(region: Arc<Region>) -> Self {
        Self(region)
    }

    /// Its region.
    pub fn region(&self) -> &Arc<Region> {
        &self.0
    }

    /// Its size in pages of 64 KiB.
    pub fn pages(&self) -> u64 {
        self.0.size() / WASM_PAGE
    }

    /// Its size in bytes with `pages` of 64 KiB more, if the tenant's limit
    /// allows that.
    pub fn size_with(&self, pages: u64) -> Option<u64> {
        let size = self.pages().checked_add(pages)?.checked_mul(WASM_PAGE)?;
        (size <= self.0.limit()).then_some(size)
    }

    /// Grows by `pages` of 64 KiB and gives the size before, in pages; `None`
    /// if that would be over the tenant's limit.
    ///
    /// # Errors
    /// If the host has no memory for it.
    pub fn grow(&self, pages: u64) -> Result<Option<u64>, Lack> {
        let before = self.pages();
        let Some(size) = self.size_with(pages) else {
            return Ok(None);
        };
        if pages > 0 {
            self.0.grow(size)?;
        }
        Ok(Some(before))
    }
}
