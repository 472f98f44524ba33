//! Page cache for the commits to come, which a plain file holds until then.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use crate::error::BenchError;
use crate::sample::Sample;
use crate::update::PAGE;

/// Page cache that the commits to come will need, held by a plain file. On a
/// machine that has run for a while, memory for a commit was another file's
/// before; on a virtual one that hasn't, it comes from the hypervisor, at ten
/// times the price.
pub(crate) struct PageCache {
    file: File,
    /// Bytes of one update.
    step: u64,
    left: u64,
}

impl PageCache {
    /// Holds what so many updates need that write so many pages.
    pub(crate) fn hold(directory: &Path, pages: u64, updates: usize) -> Result<Self, BenchError> {
        Ok(Self::fill(directory, pages, updates, 1)?.0)
    }

    /// The same, with the times that it takes to write each update's bytes to
    /// the file.
    pub(crate) fn hold_timed(
        directory: &Path,
        pages: u64,
        updates: usize,
    ) -> Result<(Self, Sample), BenchError> {
        // Into memory that has just been used: the second time counts.
        Self::fill(directory, pages, updates, 2)
    }

    fn fill(
        directory: &Path,
        pages: u64,
        updates: usize,
        rounds: usize,
    ) -> Result<(Self, Sample), BenchError> {
        let fail = BenchError::system("filling the page cache with a plain file");
        // The page of the argument, and the segment's header.
        let step = (pages + 2) * PAGE;
        let bytes = vec![1; step as usize];
        let mut plain = Sample::default();
        let mut file = tempfile::tempfile_in(directory).map_err(&fail)?;
        for _ in 0..rounds {
            plain = Sample::default();
            file.set_len(0)
                .and_then(|()| file.rewind())
                .map_err(&fail)?;
            for _ in 0..updates {
                plain.time(|| file.write_all(&bytes)).map_err(&fail)?;
            }
        }
        let left = updates as u64 * step;
        Ok((Self { file, step, left }, plain))
    }

    /// Gives back what so many updates will need.
    pub(crate) fn free(&mut self, updates: usize) -> Result<(), BenchError> {
        self.left = self.left.saturating_sub(updates as u64 * self.step);
        self.file
            .set_len(self.left)
            .map_err(BenchError::system("freeing page cache"))
    }
}
