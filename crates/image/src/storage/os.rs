//! [`Storage`] on the real file system.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, Advice, AtFlags, CWD, Dir, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::descriptors::{Descriptor, Directory, OpenFiles, OsFile};
use super::{ReadAt, Storage};
use crate::format::is_our_name;

/// A directory of the operating system, locked against others that would use it as an image.
///
/// The lock is `flock(2)` on the directory: it ends with the process, however that ends.
#[derive(Debug)]
pub struct OsStorage {
    directory: Arc<Directory>,
}

impl OsStorage {
    /// Opens and locks an existing directory.
    ///
    /// # Errors
    ///
    /// The operating system's; [`io::ErrorKind::WouldBlock`] if somebody else holds the lock.
    pub fn open(path: &Path) -> io::Result<OsStorage> {
        Directory::open(path).map(|directory| OsStorage { directory })
    }

    /// What is open of it.
    pub fn open_files(&self) -> OpenFiles {
        OpenFiles(Arc::downgrade(&self.directory))
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
        sync_parent(path)?;
        Ok(storage)
    }

    /// Removes the directory, which must be empty, and puts that on disk.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::rmdir(&self.directory.path)?;
        sync_parent(&self.directory.path)
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = fs::open(parent, flags, Mode::empty())?;
    Ok(fs::fsync(parent)?)
}

/// Copies all of a file that there is when it gets there, and puts it on disk.
fn copy(from: &Descriptor, to: &Descriptor) -> io::Result<()> {
    loop {
        // The kernel shares the blocks where the file system can. Between file systems it copies (since Linux 5.3), but
        // for some, which say so.
        match fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                copy_through_buffer(from, to)?;
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fs::fsync(to)?)
}

/// From where the descriptors' positions are.
fn copy_through_buffer(from: &Descriptor, to: &Descriptor) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match rustix::io::read(from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut left = buffer.get(..read).unwrap_or_default();
        while !left.is_empty() {
            match rustix::io::write(to, left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => left = left.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl ReadAt for OsFile {
    fn pread(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.get()?;
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&*file, rest, offset + done as u64) {
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
    type File = OsFile;

    fn path(&self) -> &Path {
        &self.directory.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory.descriptor)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open_read(&self, name: &str) -> io::Result<OsFile> {
        self.directory.file(name, OFlags::RDONLY)
    }

    fn open_write(&self, name: &str) -> io::Result<OsFile> {
        self.directory.file(name, OFlags::RDWR)
    }

    fn create(&self, name: &str) -> io::Result<OsFile> {
        self.directory
            .file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn len(&self, file: &OsFile) -> io::Result<u64> {
        let status = fs::fstat(&*file.get()?)?;
        if !fs::FileType::from_raw_mode(status.st_mode).is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        u64::try_from(status.st_size).map_err(io::Error::other)
    }

    fn pwrite(&self, file: &OsFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = file.to_change()?;
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&*file, rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn fdatasync(&self, file: &OsFile) -> io::Result<()> {
        file.sync(|file| fs::fdatasync(file))
    }

    fn fsync(&self, file: &OsFile) -> io::Result<()> {
        file.sync(|file| fs::fsync(file))
    }

    fn truncate(&self, file: &OsFile, length: u64) -> io::Result<()> {
        Ok(fs::ftruncate(&*file.to_change()?, length)?)
    }

    fn reserve(&self, file: &OsFile, offset: u64, length: u64) -> io::Result<()> {
        Ok(fs::fallocate(
            &*file.get()?,
            FallocateFlags::KEEP_SIZE,
            offset,
            length,
        )?)
    }

    fn forget(&self, file: &OsFile, offset: u64) {
        // A hint: the kernel drops clean pages only, and where it can't, we are no worse off.
        if let Ok(file) = file.get() {
            let _ = fs::fadvise(&*file, offset, None, Advice::DontNeed);
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        // What has either name has it no more.
        self.directory.unname(from)?;
        self.directory.unname(to)?;
        let directory = &self.directory.descriptor;
        Ok(fs::renameat(directory, from, directory, to)?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.directory.unname(name)?;
        let directory = &self.directory.descriptor;
        Ok(fs::unlinkat(directory, name, AtFlags::empty())?)
    }

    fn fsync_dir(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.directory.descriptor)?)
    }

    fn make_directory(&self, path: &Path) -> io::Result<OsStorage> {
        fs::mkdir(path, Mode::from_raw_mode(0o700))?;
        OsStorage::open(path)
    }

    fn open_directory(&self, path: &Path) -> io::Result<OsStorage> {
        OsStorage::open(path)
    }

    fn move_directory(&self, to: &Path) -> io::Result<()> {
        let path = &self.directory.path;
        let moved = fs::renameat_with(CWD, path, CWD, to, RenameFlags::NOREPLACE);
        match moved {
            // File systems that don't know the flag. A plain rename replaces an empty directory at most.
            Err(Errno::INVAL | Errno::NOSYS) => match fs::lstat(to) {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(Errno::NOENT) => Ok(fs::rename(path, to)?),
                Err(error) => Err(error.into()),
            },
            moved => Ok(moved?),
        }
    }

    fn discard_directory(&self, path: &Path) -> io::Result<()> {
        let storage = match OsStorage::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        for name in storage.list()?.iter().filter(|name| is_our_name(name)) {
            storage.unlink(name)?;
        }
        // Fails if there is anything else in it.
        Ok(fs::rmdir(path)?)
    }

    fn fsync_parent(&self, path: &Path) -> io::Result<()> {
        sync_parent(path)
    }

    fn link(&self, name: &str, to: &OsStorage, to_name: &str) -> io::Result<()> {
        let linked = fs::linkat(
            &self.directory.descriptor,
            name,
            &to.directory.descriptor,
            to_name,
            AtFlags::empty(),
        );
        match linked {
            // Another file system, links forbidden (fs.protected_hardlinks), too many of them, or not known here.
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP) => {
                let (from, to) = (self.open_read(name)?, to.create(to_name)?);
                copy(&*from.get()?, &*to.get()?)
            }
            linked => Ok(linked?),
        }
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
