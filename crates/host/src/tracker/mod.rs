//! Which pages of a tenant's memory were written since they were last armed.

mod cards;
mod entered;
mod kernel;

pub use cards::CardTracker;
pub use kernel::KernelTracker;

use std::io;

use lazaret_wire::Shared;
use lazaret_wire::message::{Region, Sizes};

/// The ways to find written pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TrackerKind {
    /// The kernel's write protection, read from outside: compiled code is as
    /// it was, and a page's first write in a call costs a fault and its part of
    /// a scan, some 2 to 3 µs. For calls that store a thousand times and more
    /// to each page they write.
    Kernel,
    /// A byte for each page, set by compiled code before it stores: half a
    /// nanosecond a store, and nothing a page. For all other calls. It needs
    /// nothing of the kernel.
    #[default]
    Cards,
}

/// A page: which memory, and which 4 KiB of it.
pub type Written = Vec<(Region, u64)>;

/// Finds written pages. Nothing that a worker does can make one miss a page of
/// another tenant; what it hides, only its own tenant loses.
pub trait Tracker: Send {
    /// The pages of `sizes` that were written since they were last armed, in
    /// the order of their addresses, heap first. They are armed again.
    fn written(&mut self, shared: &Shared, sizes: Sizes) -> io::Result<Written>;

    /// Arms pages that the host itself has just put into the worker. They lie
    /// in address order.
    fn arm(&mut self, pages: &[(Region, u64)]) -> io::Result<()>;

    /// Pages in a chunk, of which the worker is told which to close.
    fn chunk_pages(&self) -> u64;

    /// Whether a page can only be written from outside once its chunk is open.
    fn needs_open_chunks(&self) -> bool;

    /// The name for receipts and tables.
    fn name(&self) -> &'static str;
}
