//! What a pool has done so far.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lazaret_image::open_descriptors;

/// What a host's pool has done so far, and what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolState {
    /// Workers of tenants, idle or busy.
    pub workers: usize,
    /// Workers that wait for a tenant.
    pub blanks: usize,
    /// Workers of tenants that were started so far.
    pub started: u64,
    /// Those of them that had been waiting as blanks.
    pub from_blanks: u64,
    /// Workers that left as nobody had called for long enough.
    pub left_idle: u64,
    /// Workers that left for others, as there may be no more.
    pub left_for_others: u64,
    /// Workers that left as memory was short.
    pub left_for_memory: u64,
    /// Workers that were chosen to leave, and got a call before they had.
    pub called_back: u64,
    /// Descriptors of files of images that this process has open: a bounded number,
    /// however many tenants there are.
    pub image_files: usize,
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} workers and {} blank ones; {} started, {} of them blank before; left: {} idle, {} for others, {} for memory; {} called back; {} files of images open",
            self.workers,
            self.blanks,
            self.started,
            self.from_blanks,
            self.left_idle,
            self.left_for_others,
            self.left_for_memory,
            self.called_back,
            self.image_files
        )
    }
}

/// The counts of it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) started: AtomicU64,
    pub(super) from_blanks: AtomicU64,
    pub(super) left: [AtomicU64; 3],
    pub(super) called_back: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> PoolState {
        let read = |count: &AtomicU64| count.load(Relaxed);
        PoolState {
            started: read(&self.started),
            from_blanks: read(&self.from_blanks),
            left_idle: read(&self.left[0]),
            left_for_others: read(&self.left[1]),
            left_for_memory: read(&self.left[2]),
            called_back: read(&self.called_back),
            image_files: open_descriptors(),
            ..PoolState::default()
        }
    }
}
