//! File numbers: one sequence a directory, also while a fold makes files on another thread.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::page::FileId;

/// Gives out file numbers, each once.
#[derive(Debug)]
pub(crate) struct FileNumbers(AtomicU64);

impl FileNumbers {
    pub(crate) fn from(next: FileId) -> FileNumbers {
        FileNumbers(AtomicU64::new(next.0))
    }

    /// A number that no file has had; `None` if there is none left. It is spent even if no file comes of it: a leftover
    /// could be in the way.
    pub(crate) fn take(&self) -> Option<FileId> {
        let step = |next: u64| next.checked_add(1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        taken.ok().map(FileId)
    }

    /// Above every number given out so far.
    pub(crate) fn next(&self) -> FileId {
        FileId(self.0.load(Ordering::Relaxed))
    }
}
