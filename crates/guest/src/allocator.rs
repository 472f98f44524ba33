//! An allocator for workers: having nothing left is an abort with a reason.
//!
//! Rust answers a failed allocation by writing to standard error and calling
//! `abort(3)`. A locked worker may do neither, and would look as if it had
//! tried to break out.

use std::alloc::{GlobalAlloc, Layout};

use crate::abort::{self, Reason};

/// `A`, but in a worker a failed allocation ends the process with
/// [`Reason::OutOfMemory`]. Elsewhere it changes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guarded<A>(pub A);

impl<A> Guarded<A> {
    fn check(at: *mut u8) -> *mut u8 {
        if at.is_null() && abort::is_armed() {
            abort::now(
                Reason::OutOfMemory,
                "the worker's own memory (RLIMIT_DATA) is used up",
            );
        }
        at
    }
}

// SAFETY: all calls go to `A` unchanged and return what it returned, or don't
// return.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Guarded<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is `A`'s.
        Self::check(unsafe { self.0.alloc(layout) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::check(unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        Self::check(unsafe { self.0.realloc(at, layout, size) })
    }
}
