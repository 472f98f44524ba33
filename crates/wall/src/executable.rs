//! The executables that launcher and workers are made of: files that none of
//! them can write.
//!
//! A process can reopen the file that it runs through `/proc/self/exe`, and
//! overwrite what its host will execute next (CVE-2019-5736). A worker has no
//! `/proc` and can open nothing; and if it could, the file that it runs is
//! [`unwritable`]: sealed, or on a mount of its own that is read-only, which the
//! host can see from outside.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::launcher::set_attributes;
use crate::layer::Probe;
use crate::probe::{in_child, succeeds};
use crate::sealing::seal;

/// `MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_NOSUID`, `MOUNT_ATTR_NODEV` (kernel:
/// `include/uapi/linux/mount.h`).
const READ_ONLY_MOUNT: u64 = 0x1 | 0x2 | 0x4;

/// Where an executable comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Executable {
    /// The file that this process runs.
    #[default]
    Own,
    /// This file.
    File(PathBuf),
    /// These bytes, of an executable that needs no other file: all that is loaded.
    Image(&'static [u8]),
}

impl Executable {
    /// Opens it, to be handed on as a read-only descriptor.
    ///
    /// An image is put into a sealed memfd, one for the life of this process, unless
    /// there is a file with its bytes ([`keep`]).
    ///
    /// # Errors
    /// Whatever opening or copying it meets; `EACCES` for an image where
    /// executable memfds are forbidden (`vm.memfd_noexec`).
    pub fn open(&self) -> io::Result<OwnedFd> {
        match self {
            // It names the file even if it was renamed or removed.
            Self::Own => open(Path::new("/proc/self/exe")),
            Self::File(path) => open(path),
            Self::Image(bytes) => image(bytes),
        }
    }
}

/// What launcher and workers are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executables {
    /// The launcher, and every worker that runs guest code.
    pub worker: Executable,
    /// Workers that compile.
    pub compiler: Executable,
}

/// Files with the bytes of images, by their address.
static IMAGES: Mutex<Vec<(usize, OwnedFd)>> = Mutex::new(Vec::new());

fn image(bytes: &'static [u8]) -> io::Result<OwnedFd> {
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let at = bytes.as_ptr() as usize;
    if let Some((_, file)) = images.iter().find(|(of, _)| *of == at) {
        return file.try_clone();
    }
    let file = sealed(|copy| copy.write_all(bytes))?;
    images.push((at, file.try_clone()?));
    Ok(file)
}

/// Has [`Executable::open`] open this file for an image from now on: it has the image's
/// bytes and is never changed. To copy an image into memory takes longer than
/// everything else about a launcher's start.
///
/// # Errors
/// Whatever opening it meets.
pub fn keep(bytes: &'static [u8], path: &Path) -> io::Result<()> {
    let file = open(path)?;
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let at = bytes.as_ptr() as usize;
    match images.iter_mut().find(|(of, _)| *of == at) {
        Some((_, kept)) => *kept = file,
        None => images.push((at, file)),
    }
    Ok(())
}

/// Whether there is a file for this image already: a copy in memory, or one to
/// [`keep`].
pub fn is_kept(bytes: &'static [u8]) -> bool {
    let images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let at = bytes.as_ptr() as usize;
    images.iter().any(|(of, _)| *of == at)
}

/// A worker runs under another user id where the host is root, and must be able
/// to read the file, or the kernel would close its memory to the host
/// (`would_dump`, kernel: `fs/exec.c`). So a file that others can't read and
/// execute is copied into a sealed memfd.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let others = stat.st_mode & 0o005 == 0o005;
    if others && rustix::process::geteuid().is_root() {
        // Here, as the launcher may not be able to reach the file's directory.
        return Ok(on_read_only_mount(&file).unwrap_or(file));
    }
    if others || rustix::process::geteuid().as_raw() == stat.st_uid {
        // The launcher sees to it: it may mount, in its own namespaces.
        return Ok(file);
    }
    sealed_copy(file)
}

/// Why whoever runs this file can't write it, or nothing if it could be:
/// `sealed` or `read-only mount`. Works for a descriptor opened with `O_PATH`
/// too, but for the seals.
pub fn unwritable(file: impl AsFd) -> Option<&'static str> {
    let file = file.as_fd();
    if rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)) {
        return Some("sealed");
    }
    // The flags of the mount and of the file system together (kernel:
    // `calculate_f_flags`, fs/statfs.c).
    let flags = rustix::fs::fstatvfs(file).ok()?.f_flag;
    flags
        .contains(StatVfsMountFlags::RDONLY)
        .then_some("on a read-only mount")
}

/// A file that whoever runs it can't write, from when it is first needed: the
/// launcher's.
#[derive(Debug)]
pub(crate) struct Unwritable {
    file: OwnedFd,
    already: bool,
}

impl Unwritable {
    /// Before the launcher leaves the host's root.
    pub(crate) fn new(file: OwnedFd) -> Self {
        if unwritable(&file).is_some() {
            let already = true;
            return Self { file, already };
        }
        match on_read_only_mount(&file) {
            Ok(file) => Self {
                file,
                already: true,
            },
            // Renamed, removed, out of reach, or a kernel without mount_setattr
            // (before Linux 5.12): it is copied.
            Err(_) => Self {
                file,
                already: false,
            },
        }
    }

    /// The file.
    pub(crate) fn get(&mut self) -> io::Result<BorrowedFd<'_>> {
        if !self.already {
            let copied = sealed_copy(self.file.try_clone()?).map_err(|error| {
                let why = "a worker could write what it runs, as neither a read-only mount \
                    of it nor a sealed copy in memory can be made";
                let what_to_do = "allow user and mount namespaces, or set vm.memfd_noexec \
                    to 0 or 1";
                io::Error::new(error.kind(), format!("{why} ({error}): {what_to_do}"))
            });
            self.file = copied?;
            self.already = true;
        }
        Ok(self.file.as_fd())
    }
}

/// The same file on a read-only mount of its own, which is attached nowhere and
/// is gone with its last user. It takes CAP_SYS_ADMIN in this process's mount
/// namespace.
fn on_read_only_mount(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = rustix::fs::readlink(link, Vec::new())?;
    let path = PathBuf::from(OsStr::from_bytes(link.as_bytes()));
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::NOENT);
    };
    // The mount is of its directory, so that the file keeps its name in
    // /proc/PID/maps.
    let tree = rustix::mount::open_tree(
        CWD,
        directory,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    set_attributes(&tree, READ_ONLY_MOUNT, None)?;
    let opened = rustix::fs::openat(
        &tree,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let [wanted, found] = [file, &opened].map(rustix::fs::fstat);
    let (wanted, found) = (wanted?, found?);
    match (wanted.st_dev, wanted.st_ino) == (found.st_dev, found.st_ino) {
        true => Ok(opened),
        false => Err(Errno::STALE),
    }
}

fn sealed_copy(file: OwnedFd) -> io::Result<OwnedFd> {
    sealed(|copy| copy_all(file.as_fd(), copy))
}

/// A sealed copy of a file, for one whose root has no `/proc`: by this descriptor of it.
pub(crate) fn sealed_copy_of(file: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let open = |descriptor: i32| {
        let path = format!("self/fd/{descriptor}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(proc, path, flags, Mode::empty())?)
    };
    sealed_by(open, |copy| copy_all(file, copy))
}

/// All of a file, wherever it was read last; that doesn't move.
fn copy_all(file: BorrowedFd<'_>, copy: &mut File) -> io::Result<()> {
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match rustix::io::pread(file, &mut piece, at)? {
            0 => return Ok(()),
            read => {
                copy.write_all(&piece[..read])?;
                at += read as u64;
            }
        }
    }
}

/// A new file that anybody may execute and nobody can write any more.
fn sealed(fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<OwnedFd> {
    let open = |descriptor: i32| {
        let path = format!("/proc/self/fd/{descriptor}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    };
    sealed_by(open, fill)
}

fn sealed_by(
    open: impl FnOnce(i32) -> io::Result<OwnedFd>,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let create = |flags| rustix::fs::memfd_create("lazaret-worker", flags);
    let copy = match create(base | MemfdFlags::EXEC) {
        // Before Linux 6.3 every one could be executed.
        Err(Errno::INVAL) => create(base)?,
        other => other?,
    };
    fill(&mut File::from(copy.try_clone()?))?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o555))?;
    seal(&copy)?;
    // A descriptor that was opened for writing can't be executed (ETXTBSY), so
    // the copy is opened again.
    open(copy.as_raw_fd())
}

/// Whether a file in memory can be executed here: one that is no program is refused
/// for that (`ENOEXEC`) by who would run it, and by nobody before.
pub(crate) fn probe() -> Probe {
    let file = match sealed(|file| file.write_all(b"no program")) {
        Ok(file) => file,
        Err(error) => return Probe::Missing(error.to_string()),
    };
    let arguments = [c"".as_ptr(), std::ptr::null()];
    let attempt = || {
        // SAFETY: an empty path, and arrays that end in null.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                file.as_raw_fd(),
                c"".as_ptr(),
                arguments.as_ptr(),
                arguments[1..].as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        match Errno::from_io_error(&io::Error::last_os_error()) {
            Some(Errno::NOEXEC) => 0,
            other => other.map_or(1, Errno::raw_os_error),
        }
    };
    succeeds(in_child(0, attempt), "a sealed file in memory is executed")
}

#[cfg(test)]
mod tests {
    /// Only root may mount without a namespace of its own; the red team's tests
    /// see what an ordinary user's workers run.
    #[test]
    fn a_file_is_made_unwritable_under_its_own_name() {
        use std::os::fd::AsRawFd;
        // Not this one, which runs and so can't be written anyway (ETXTBSY).
        let name = std::env::temp_dir().join(format!("lazaret-exe-{}", std::process::id()));
        std::fs::copy("/proc/self/exe", &name).unwrap();
        let open = || std::os::fd::OwnedFd::from(std::fs::File::open(&name).unwrap());
        assert_eq!(super::unwritable(open()), None, "it is on a writable mount");
        let mut made = super::Unwritable::new(open());
        let made = made.get().unwrap();
        let how = super::unwritable(made).expect("a file that can't be written");
        let link = format!("/proc/self/fd/{}", made.as_raw_fd());
        let error = std::fs::OpenOptions::new()
            .write(true)
            .open(&link)
            .unwrap_err();
        if rustix::process::geteuid().is_root() {
            assert_eq!(how, "on a read-only mount");
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            let seen = std::fs::read_link(&link).unwrap();
            assert_eq!(seen.file_name(), name.file_name());
        } else {
            assert_eq!(how, "sealed");
        }
        // Replaced meanwhile: never another file.
        let opened = open();
        std::fs::remove_file(&name).unwrap();
        std::fs::write(&name, "another").unwrap();
        assert!(super::on_read_only_mount(&opened).is_err());
        let mut copied = super::Unwritable::new(opened);
        assert_eq!(super::unwritable(copied.get().unwrap()), Some("sealed"));
        std::fs::remove_file(&name).unwrap();
    }

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
