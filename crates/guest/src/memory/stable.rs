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

    /// Grows by `pages` of 64 KiB and gives the size before, in pages; `None`
    /// if that would be over the tenant's limit.
    ///
    /// # Errors
    /// If the host has no memory for it.
    pub fn grow(&self, pages: u64) -> Result<Option<u64>, Lack> {
        let before = self.pages();
        let size = before
            .checked_add(pages)
            .and_then(|pages| pages.checked_mul(WASM_PAGE));
        let Some(size) = size.filter(|size| *size <= self.0.limit()) else {
            return Ok(None);
        };
        if pages > 0 {
            self.0.grow(size)?;
        }
        Ok(Some(before))
    }
}
