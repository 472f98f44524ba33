//! The file layer: everything that an image asks of the operating system.
//!
//! A trait, so that tests can make any single operation fail and cut the power at any moment.

mod descriptors;
mod os;

use std::io;
use std::path::Path;

pub use descriptors::{Descriptor, OpenFiles, OsFile, open_descriptors};
pub use os::OsStorage;

/// An open file that can be read, without the directory that it is in: a [`View`](crate::View) outlives the image.
pub trait ReadAt: Send + Sync + 'static {
    /// Fills `into` from `offset`; fails with [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn pread(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
}

/// One directory and the files in it.
///
/// `name`s are plain file names. Reads and writes are complete or fail: an implementation repeats short
/// ones. Errors are the operating system's own.
pub trait Storage: Send + Sync + Sized + 'static {
    /// An open file.
    type File: ReadAt;

    /// The directory, for messages.
    fn path(&self) -> &Path;
    /// The names in the directory, in any order. Names that are not UTF-8 may be left out.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading.
    fn open_read(&self, name: &str) -> io::Result<Self::File>;
    /// Opens an existing file for reading and writing.
    fn open_write(&self, name: &str) -> io::Result<Self::File>;
    /// Creates a file for reading and writing; fails if the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// The file's length in bytes.
    fn len(&self, file: &Self::File) -> io::Result<u64>;
    /// Writes all of `bytes` at `offset`.
    fn pwrite(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Puts the file's data, and the metadata needed to read it back, on disk.
    fn fdatasync(&self, file: &Self::File) -> io::Result<()>;
    /// Puts the file's data and metadata on disk.
    fn fsync(&self, file: &Self::File) -> io::Result<()>;
    /// Cuts the file to `length` bytes.
    fn truncate(&self, file: &Self::File, length: u64) -> io::Result<()>;
    /// Sets space aside for `length` bytes from `offset` on, without changing the file's length. A hint: it may fail.
    fn reserve(&self, file: &Self::File, offset: u64, length: u64) -> io::Result<()>;
    /// Hints that cached clean pages from `offset` on should be read again from the disk.
    fn forget(&self, file: &Self::File, offset: u64);
    /// Renames a file, replacing what has the new name, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name.
    fn unlink(&self, name: &str) -> io::Result<()>;
    /// Puts the directory's names on disk.
    fn fsync_dir(&self) -> io::Result<()>;
    /// Makes and opens the directory `path`; fails with [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn make_directory(&self, path: &Path) -> io::Result<Self>;
    /// Opens the directory `path`; fails with [`io::ErrorKind::WouldBlock`] if somebody else has it open.
    fn open_directory(&self, path: &Path) -> io::Result<Self>;
    /// Renames this directory, atomically; fails with [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn move_directory(&self, to: &Path) -> io::Result<()>;
    /// Removes the directory `path`, if it exists, and an image's files in it. It must hold nothing else.
    fn discard_directory(&self, path: &Path) -> io::Result<()>;
    /// Puts the names in the directory that `path` is in on disk.
    fn fsync_parent(&self, path: &Path) -> io::Result<()>;
    /// Gives the file `name` the name `to_name` in the directory `to` as well. Where that isn't possible, `to` gets
    /// a copy, which is on disk when this returns (but not its name).
    fn link(&self, name: &str, to: &Self, to_name: &str) -> io::Result<()>;
    /// Sixteen bytes that nobody can guess.
    fn random(&self) -> io::Result<[u8; 16]>;
}
