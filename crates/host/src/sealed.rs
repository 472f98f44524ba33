//! Files in memory that nobody can change once they are sealed: what workers
//! are given to map.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags};

/// An empty memfd that can be sealed.
pub(crate) fn memfd() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(rustix::fs::memfd_create("lazaret-code", flags)?)
}

/// Seals a memfd against every change and opens it read-only.
pub(crate) fn seal(file: &OwnedFd) -> io::Result<OwnedFd> {
    lazaret_wall::sealing::seal(file)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
