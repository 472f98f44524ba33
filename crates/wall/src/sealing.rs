//! Sealing files in memory against every change.

use std::os::fd::AsFd;

use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;

/// How often it is tried. Each time the kernel itself waits 150 ms.
const TRIES: usize = 20;

/// Seals a file in memory, which nobody has mapped for writing, against every change.
///
/// The kernel refuses that with `EBUSY` while somebody holds a reference to one of its
/// pages that might be written through (`memfd_wait_for_pins`, mm/memfd.c); whoever only
/// looks at pages may hold one for a moment, too. With a file of 150 MB, on a machine whose
/// kernel looks at pages all the time (DAMON), that was seen to last longer than the
/// kernel waits; so it is tried again.
///
/// # Errors
/// `EBUSY` if it stays so, and `EPERM` or `EINVAL` for a file that can't be sealed.
pub fn seal(file: impl AsFd) -> Result<(), Errno> {
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    again(|| fcntl_add_seals(file.as_fd(), seals))
}

fn again(mut attempt: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 1..TRIES {
        match attempt() {
            Err(Errno::BUSY) => {}
            other => return other,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::MemfdFlags;

    use super::*;

    fn memfd() -> OwnedFd {
        rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap()
    }

    #[test]
    fn what_is_sealed_can_not_be_written() {
        let file = memfd();
        rustix::io::write(&file, b"code").unwrap();
        seal(&file).unwrap();
        assert_eq!(rustix::io::write(&file, b"more"), Err(Errno::PERM));
        assert_eq!(seal(&file), Err(Errno::PERM));
    }

    #[test]
    fn what_is_busy_for_a_while_is_tried_again() {
        for (busy, expected, made) in [
            (0, Ok(()), 1),
            (3, Ok(()), 4),
            (TRIES - 1, Ok(()), TRIES),
            (TRIES, Err(Errno::BUSY), TRIES),
        ] {
            let mut attempts = 0;
            let result = again(|| {
                attempts += 1;
                match attempts > busy {
                    true => Ok(()),
                    false => Err(Errno::BUSY),
                }
            });
            assert_eq!((result, attempts), (expected, made), "{busy}");
        }
    }
}
