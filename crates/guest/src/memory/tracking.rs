//! Arming the kernel's tracker: a userfaultfd in asynchronous write-protect
//! mode over both memories, which the host reads from outside with
//! `PAGEMAP_SCAN`.
//!
//! Registration must come after all `MAP_FIXED` mappings (they drop it) and
//! ends when the last copy of the descriptor is closed, so the host keeps it.
//! mprotect and madvise keep it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::MemoryError;
use super::region::Region;

// include/uapi/linux/userfaultfd.h
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xAA;
const UFFDIO_API: libc::c_ulong = 0xC018_AA3F;
const UFFDIO_REGISTER: libc::c_ulong = 0xC020_AA00;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
/// Files of the image may lie on tmpfs, which counts as shared memory.
const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// Registers the whole reservations, so that growth is tracked too.
pub(super) fn track(memories: [&Region; 2]) -> Result<OwnedFd, MemoryError> {
    let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
    // SAFETY: makes a new descriptor; no pointer is passed.
    let descriptor = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let descriptor = i32::try_from(descriptor)
        .ok()
        .filter(|descriptor| *descriptor >= 0);
    let descriptor = descriptor.ok_or_else(|| last("userfaultfd (needs Linux 5.11)"))?;
    // SAFETY: the descriptor is new and nobody else's.
    let tracker = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let features =
        UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    let mut api = Api {
        api: UFFD_API,
        features,
        ioctls: 0,
    };
    // SAFETY: the request's argument is this struct, which lives through the call.
    if unsafe { libc::ioctl(tracker.as_raw_fd(), UFFDIO_API, &mut api) } != 0 {
        return Err(last(
            "userfaultfd: write-protect async mode (needs Linux 6.7)",
        ));
    }
    for memory in memories {
        let start = memory.base() as u64;
        let mut register = Register {
            start,
            length: memory.capacity() as u64,
            mode: UFFDIO_REGISTER_MODE_WP,
            ioctls: 0,
        };
        // SAFETY: as above; registering changes no contents.
        if unsafe { libc::ioctl(tracker.as_raw_fd(), UFFDIO_REGISTER, &mut register) } != 0 {
            return Err(last("userfaultfd: registering a memory"));
        }
    }
    Ok(tracker)
}

fn last(step: &'static str) -> MemoryError {
    MemoryError::System {
        step,
        source: std::io::Error::last_os_error(),
    }
}
