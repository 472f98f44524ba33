//! Which pages of a tenant's memory were written since they were last armed.

mod cards;
mod entered;
mod kernel;
mod signal;

pub use cards::CardTracker;
pub use kernel::KernelTracker;
pub use signal::SignalTracker;

use std::io;

use lazaret_wire::message::{Region, Sizes, Tracking};

use crate::worker_pages::WorkerPages;

/// The ways to find written pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TrackerKind {
    /// What serves best here: cards, which need nothing of the kernel.
    #[default]
    Auto,
    /// A byte for each page, set by compiled code before it stores: half a
    /// nanosecond a store, and nothing a page.
    Cards,
    /// The kernel's write protection, read from outside: compiled code is as
    /// it was, and a page's first write in a call costs a fault and its part of
    /// a scan, some 2 to 3 µs. For calls that store a thousand times and more
    /// to each page they write. Needs Linux 6.7.
    Kernel,
    /// Read-only pages, and a fault handler in the worker: compiled code is as
    /// it was, and a page's first write in a call costs a signal and two
    /// changes of its protection. For code for which cards are too dear where
    /// the kernel's tracker isn't to be had.
    Signal,
}

impl TrackerKind {
    /// The one that it stands for.
    pub(crate) fn resolved(self) -> Tracking {
        match self {
            Self::Auto | Self::Cards => Tracking::Cards,
            Self::Kernel => Tracking::Kernel,
            Self::Signal => Tracking::Signal,
        }
    }

    /// Its name for options and tables; of [`Auto`](Self::Auto), that of the
    /// one that it stands for.
    pub fn name(self) -> &'static str {
        name(self.resolved())
    }
}

/// The name of a way to find written pages.
pub(crate) fn name(tracking: Tracking) -> &'static str {
    match tracking {
        Tracking::None => "none",
        Tracking::Cards => "cards",
        Tracking::Kernel => "kernel",
        Tracking::Signal => "signal",
    }
}

/// A page: which memory, and which 4 KiB of it.
pub type Written = Vec<(Region, u64)>;

/// Finds written pages. Nothing that a worker does can make one miss a page of
/// another tenant; what it hides, only its own tenant loses.
pub(crate) trait Tracker: Send {
    /// The pages of `sizes` that were written since they were last armed, in
    /// the order of their addresses, heap first. They are armed again.
    fn written(&mut self, worker: &mut WorkerPages<'_>, sizes: Sizes) -> io::Result<Written>;

    /// Arms pages that the host itself has just put into the worker. They lie
    /// in address order.
    fn arm(&mut self, pages: &[(Region, u64)]) -> io::Result<()>;

    /// How the worker is told what to open and close.
    fn chunks(&self) -> ChunkUse;
}

/// Chunks that a worker opens and closes when told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkUse {
    /// Pages in a chunk.
    pub pages: u64,
    /// Whether a page can only be written from outside once its chunk is open.
    pub opened: bool,
    /// Whether those that nobody writes to any more are closed by the host; else
    /// they are closed before every call.
    pub closed: bool,
}
