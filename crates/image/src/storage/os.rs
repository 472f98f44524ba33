//! [`Storage`] on the real file system.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Advice, AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{ReadAt, Storage};

/// A directory of the operating system, locked against others that would use it as an image.
///
/// The lock is `flock(2)` on the directory: it ends with the process, however that ends.
#[derive(Debug)]
pub struct OsStorage {
    directory: OwnedFd,
    path: PathBuf,
}

impl OsStorage {
    /// Opens and locks an existing directory.
    ///
    /// # Errors
    ///
    /// The operating system's; [`io::ErrorKind::WouldBlock`] if somebody else holds the lock.
    pub fn open(path: &Path) -> io::Result<OsStorage> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(path, flags, Mode::empty())?;
        fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
        Ok(OsStorage {
            directory,
            path: path.to_path_buf(),
        })
    }

    /// Like [`open`](OsStorage::open), but makes the directory if it isn't there, and puts its name on disk.
    ///
    /// # Errors
    ///
    /// As for [`open`](OsStorage::open).
    pub fn create(path: &Path) -> io::Result<OsStorage> {
        match fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let storage = OsStorage::open(path)?;
        storage.fsync_parent()?;
        Ok(storage)
    }

    /// Removes the directory, which must be empty, and puts that on disk.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::rmdir(&self.path)?;
        self.fsync_parent()
    }

    fn fsync_parent(&self) -> io::Result<()> {
        let parent = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let parent = fs::open(
            parent,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(fs::fsync(parent)?)
    }

    fn open_at(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        // NOFOLLOW: an image's files are its own; a link is somebody's mistake, or worse.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(fs::openat(
            &self.directory,
            name,
            flags,
            Mode::from_raw_mode(0o600),
        )?)
    }
}

impl ReadAt for OwnedFd {
    fn pread(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(self, rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Storage for OsStorage {
    type File = OwnedFd;

    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open_read(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_at(name, OFlags::RDONLY)
    }

    fn open_write(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_at(name, OFlags::RDWR)
    }

    fn create(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_at(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn len(&self, file: &OwnedFd) -> io::Result<u64> {
        let status = fs::fstat(file)?;
        if !fs::FileType::from_raw_mode(status.st_mode).is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        u64::try_from(status.st_size).map_err(io::Error::other)
    }

    fn pwrite(&self, file: &OwnedFd, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(file, rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn fdatasync(&self, file: &OwnedFd) -> io::Result<()> {
        Ok(fs::fdatasync(file)?)
    }

    fn fsync(&self, file: &OwnedFd) -> io::Result<()> {
        Ok(fs::fsync(file)?)
    }

    fn truncate(&self, file: &OwnedFd, length: u64) -> io::Result<()> {
        Ok(fs::ftruncate(file, length)?)
    }

    fn forget(&self, file: &OwnedFd, offset: u64) {
        // A hint: the kernel drops clean pages only, and where it can't, we are no worse off.
        let _ = fs::fadvise(file, offset, None, Advice::DontNeed);
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn fsync_dir(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.directory)?)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        // getrandom(2) is not interrupted and returns all of it for requests up to 256 bytes.
        let mut bytes = [0; 16];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())? {
            16 => Ok(bytes),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
