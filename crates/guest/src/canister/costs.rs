//! What system calls cost, in fuel. The numbers are part of a tenant's contract
//! ([`VERSION`]): a change changes what its calls cost, and where they run out.
//!
//! A call costs its fixed price plus, where it copies, one unit for each full
//! eight bytes, as `memory.copy` does ([`lazaret_instrument::costs`]). It is
//! charged before anything happens, on top of the price of the `call`
//! instruction.

use lazaret_instrument::costs;

/// The version of these costs. Together with
/// [`lazaret_instrument::METERING_VERSION`] it says what a call costs.
pub const VERSION: u32 = 1;

/// Every system call.
pub const SYSTEM_CALL: u64 = 64;

/// A call of the embedder's functions: two messages and their wake-ups.
pub const HOST_FUNCTION: u64 = 10_000;

/// Growing stable memory, for each page of 64 KiB, as for the heap; at most as
/// many pages count as for `memory.grow`.
pub const STABLE_PAGE: u64 = costs::MEMORY_PAGE;

/// Fuel for copying `bytes`.
pub const fn copying(bytes: u64) -> u64 {
    bytes >> costs::BULK_BYTES_PER_UNIT_LOG2
}

/// Fuel for growing stable memory by `pages`.
pub const fn growing(pages: u64) -> u64 {
    let counted = if pages < costs::MEMORY_PAGES_MAX {
        pages
    } else {
        costs::MEMORY_PAGES_MAX
    };
    counted * STABLE_PAGE
}
