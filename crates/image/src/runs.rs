//! How fragmented a version is: the runs that a worker would have to map.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::index::Index;

/// Pages from which on a worker maps a run instead of copying it.
pub const MAPPED_RUN_PAGES: u64 = 16;

/// The runs of a base.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BaseRuns {
    /// All of them.
    pub(crate) all: usize,
    /// Those that a worker maps.
    pub(crate) mapped: usize,
}

impl BaseRuns {
    pub(crate) fn of(index: &Index) -> BaseRuns {
        BaseRuns {
            all: index.extent_count(),
            mapped: mapped(index),
        }
    }
}

fn mapped(index: &Index) -> usize {
    let long = |pages: u64| pages >= MAPPED_RUN_PAGES;
    index.extents().filter(|extent| long(extent.pages)).count()
}

/// An upper bound of the newest version's mapped runs. Counting them walks the whole index, but a page that is
/// written makes at most one more: it is done again only when it could matter.
#[derive(Debug)]
pub(crate) struct LongRuns {
    counted: AtomicUsize,
    /// Pages written since.
    written: AtomicUsize,
}

impl LongRuns {
    pub(crate) fn unknown() -> LongRuns {
        LongRuns {
            counted: AtomicUsize::new(usize::MAX),
            written: AtomicUsize::new(0),
        }
    }

    pub(crate) fn wrote(&self, pages: usize) {
        self.written.fetch_add(pages, Ordering::Relaxed);
    }

    /// Whether there are more than `most`.
    pub(crate) fn exceed(&self, most: usize, index: &Index) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        let bound = self.counted.load(Ordering::Relaxed).saturating_add(written);
        // Each has so many pages, and is one of all runs.
        let pages = usize::try_from(index.pages() / MAPPED_RUN_PAGES).unwrap_or(usize::MAX);
        if bound.min(pages).min(index.extent_count()) <= most {
            return false;
        }
        let counted = mapped(index);
        self.counted.store(counted, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        counted > most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Location;
    use crate::page::{PageId, Region};

    #[test]
    fn long_runs_are_counted_again_only_when_there_may_be_too_many() {
        let mut index = Index::default();
        let run = |first: u64, pages: u64| {
            (first..first + pages).map(|page| {
                let id = PageId::new(Region::Heap, page).unwrap();
                (id, Location::new(0, page))
            })
        };
        for number in 0..10 {
            index.apply(run(number * 100, MAPPED_RUN_PAGES + number % 2));
            index.apply(run(number * 100 + 50, MAPPED_RUN_PAGES - 1));
        }
        let runs = LongRuns::unknown();
        assert!(runs.exceed(9, &index) && !runs.exceed(10, &index));
        // The bound is believed: nobody said that pages were written.
        index.apply(run(5000, 100));
        assert!(!runs.exceed(10, &index));
        runs.wrote(1);
        assert!(runs.exceed(10, &index) && !runs.exceed(11, &index));
        assert_eq!(BaseRuns::of(&index).mapped, 11);
    }
}
