//! What a worker must map or read to see a version.

use crate::page::{FileId, PAGE_BYTES, Region, Sizes, Version};
use crate::storage::ReadAt;
use crate::view::View;

/// Consecutive pages that are consecutive in one file: one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The region.
    pub region: Region,
    /// The first page's number in the region.
    pub first_page: u64,
    /// How many pages.
    pub pages: u64,
    /// The file that they are in.
    pub file: FileId,
    /// Where in the file, in bytes: a multiple of the page size.
    pub offset: u64,
}

/// A version as runs of pages in files. Every page that no run covers is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The version.
    pub version: Version,
    /// Its sizes.
    pub sizes: Sizes,
    /// Runs as long as possible, by address; they don't overlap.
    pub runs: Vec<Run>,
}

impl<F: ReadAt> View<F> {
    /// The version as runs: each page once, so they can be mapped or read in any order over zeros.
    ///
    /// What a run covers never changes, neither by later commits nor by a fold, which makes new files.
    pub fn plan(&self) -> Plan {
        let runs = self.index.extents().filter_map(|extent| {
            Some(Run {
                region: extent.first.region(),
                first_page: extent.first.page(),
                pages: extent.pages,
                file: self.files.get(extent.location.slot())?.file,
                offset: extent.location.page_offset() * PAGE_BYTES,
            })
        });
        Plan {
            version: self.version,
            sizes: self.sizes,
            runs: runs.collect(),
        }
    }
}
