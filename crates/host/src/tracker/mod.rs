//! Which pages of a tenant's memory were written since they were last armed.

mod kernel;

pub use kernel::KernelTracker;

use std::io;

use lazaret_wire::Shared;
use lazaret_wire::message::{Region, Sizes};

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

    /// The name for receipts and tables.
    fn name(&self) -> &'static str;
}
