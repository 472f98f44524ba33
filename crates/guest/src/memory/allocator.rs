//! Settings of the C library's allocator, so that it stays within the system
//! calls that a locked worker has.

/// Bytes that may lie free at the top of the heap before they are given back.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 4 << 20;

/// Makes the allocator never call `mremap`, which the filter forbids. Call it
/// first of all in a worker: a block that already has a mapping of its own
/// keeps it.
///
/// glibc gives large blocks a mapping of their own (`M_MMAP_THRESHOLD`) and
/// resizes those with `mremap` (malloc/malloc.c, `mremap_chunk`); with
/// `M_MMAP_MAX` 0 there are none, and all memory comes from `brk`, or, where
/// `brk` fails, from `mmap`. One arena is enough for one thread, and keeps
/// glibc from asking how many processors there are (it would read `/sys`).
/// Blocks are returned by `brk` or `madvise(MADV_DONTNEED)`.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets numbers of the allocator and has no other contract;
    // a setting that is refused leaves the default.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
    }
}
