//! The executable that launcher and workers are made of: this very file.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

/// Opens the executable that workers run: `path`, or the file that this
/// process runs (`/proc/self/exe` names it even if it was renamed or removed).
///
/// It is handed on as a read-only descriptor. A worker runs under another user
/// id where the host is root, and must be able to read the file, or the kernel
/// would close its memory to the host (`would_dump`, kernel: `fs/exec.c`). So
/// a file that others can't read and execute is copied into a sealed memfd.
pub fn open(path: Option<&Path>) -> io::Result<OwnedFd> {
    let path = path.unwrap_or(Path::new("/proc/self/exe"));
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let others = stat.st_mode & 0o005 == 0o005;
    if others
        || rustix::process::geteuid().as_raw() == stat.st_uid
            && !rustix::process::geteuid().is_root()
    {
        return Ok(file);
    }
    sealed_copy(file)
}

fn sealed_copy(file: OwnedFd) -> io::Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("lazaret-worker", base | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("lazaret-worker", base))?;
    io::copy(
        &mut std::fs::File::from(file),
        &mut std::fs::File::from(copy.try_clone()?),
    )?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o555))?;
    rustix::fs::fcntl_add_seals(
        copy.as_fd(),
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    // A descriptor that was opened for writing can't be executed (ETXTBSY), so
    // the copy is opened again.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy));
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_sealed_copy_is_the_same_file_and_can_not_be_written() {
        use std::io::{Read, Seek};
        let original = std::fs::File::open("/proc/self/exe").unwrap();
        let mut copy = std::fs::File::from(super::sealed_copy(original.into()).unwrap());
        assert!(rustix::fs::ftruncate(&copy, 0).is_err());
        let mut head = [0; 4];
        copy.rewind().unwrap();
        copy.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"\x7fELF");
    }
}
