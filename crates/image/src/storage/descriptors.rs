//! Descriptors of an image's files, which may be closed while nobody needs them: thousands of images are open at once,
//! and a process has a limit.
//!
//! A file that is still under its name is opened again by it; one that has lost its name stays open, as views read it.
//! So does one with writes that aren't on disk: the kernel tells of a write that failed later only those who had the
//! file open then (fsync(2), "errseq_t" in Documentation/core-api/errseq.rst). The directory stays open, and locked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Descriptors of images' files that are open in this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many descriptors of images' files are open in this process, beside one for each image's directory.
pub fn open_descriptors() -> usize {
    OPEN.load(Relaxed)
}

/// A descriptor of an image's file, which is counted.
#[derive(Debug)]
pub struct Descriptor(OwnedFd);

impl Descriptor {
    fn new(descriptor: OwnedFd) -> Arc<Self> {
        OPEN.fetch_add(1, Relaxed);
        Arc::new(Self(descriptor))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory that is locked against others, and the files of it that are in use.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) descriptor: OwnedFd,
    files: Mutex<Vec<Weak<Inner>>>,
}

impl Directory {
    /// Opens and locks a directory.
    pub(super) fn open(path: &Path) -> io::Result<Arc<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = fs::open(path, flags, Mode::empty())?;
        fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            descriptor,
            files: Mutex::default(),
        }))
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        // NOFOLLOW: an image's files are its own; a link is somebody's mistake, or worse.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        Ok(fs::openat(&self.descriptor, name, flags, mode)?)
    }

    /// Opens a file in it.
    pub(super) fn file(self: &Arc<Self>, name: &str, flags: OFlags) -> io::Result<OsFile> {
        let opened = self.open_file(name, flags)?;
        let mut files = lock(&self.files);
        files.retain(|file| file.strong_count() > 0);
        let identity = identity(&opened)?;
        let mut known = files.iter().filter_map(Weak::upgrade);
        let same = known.find(|file| file.identity == identity);
        let inner = Arc::new(Inner {
            directory: Arc::downgrade(self),
            name: name.to_owned(),
            // It is there now.
            flags: flags - OFlags::CREATE - OFlags::EXCL,
            identity,
            writes: same.map_or_else(Arc::default, |file| file.writes.clone()),
            named: AtomicBool::new(true),
            alone: AtomicBool::new(false),
            descriptor: Mutex::new(Some(Descriptor::new(opened))),
        });
        files.push(Arc::downgrade(&inner));
        Ok(OsFile(inner))
    }

    fn known(&self) -> Vec<Arc<Inner>> {
        lock(&self.files).iter().filter_map(Weak::upgrade).collect()
    }

    /// Files with this name lose it: they stay open from now on.
    pub(super) fn unname(&self, name: &str) -> io::Result<()> {
        for file in self.known().iter().filter(|file| file.name == name) {
            file.keep_open(self)?;
        }
        Ok(())
    }

    fn close(&self) {
        for file in self.known() {
            file.close();
        }
    }
}

/// Who still reads a file goes on, though nobody can open it again.
impl Drop for Directory {
    fn drop(&mut self) {
        for file in self.known() {
            // If there are no descriptors left, to read it is an error from now on.
            let _ = file.keep_open(self);
            file.alone.store(true, Release);
        }
    }
}

/// Device and inode.
fn identity(descriptor: impl AsFd) -> io::Result<(u64, u64)> {
    let status = fs::fstat(descriptor)?;
    Ok((status.st_dev, status.st_ino))
}

/// A file of an image on the real file system.
#[derive(Debug)]
pub struct OsFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// A view outlives the image, and doesn't lock its directory.
    directory: Weak<Directory>,
    name: String,
    flags: OFlags,
    identity: (u64, u64),
    /// The file's, however often it is open.
    writes: Arc<Writes>,
    /// Whether it still has its name. Changed with the descriptor locked.
    named: AtomicBool,
    /// Its directory was let go: what isn't open can't be opened.
    alone: AtomicBool,
    descriptor: Mutex<Option<Arc<Descriptor>>>,
}

/// How often a file was written, and how many of these writes are known to be on disk.
#[derive(Debug, Default)]
struct Writes {
    begun: AtomicU64,
    synced: AtomicU64,
}

impl Writes {
    fn are_on_disk(&self) -> bool {
        self.synced.load(SeqCst) == self.begun.load(SeqCst)
    }
}

impl OsFile {
    /// Its descriptor, opened again if it was closed.
    ///
    /// # Errors
    ///
    /// The operating system's; `ESTALE` if another file has its name now.
    pub fn get(&self) -> io::Result<Arc<Descriptor>> {
        loop {
            if let Some(descriptor) = &*lock(&self.0.descriptor) {
                return Ok(descriptor.clone());
            }
            // Not with the file locked: if this is the last of the directory, it locks all its files.
            if let Some(directory) = self.0.directory.upgrade() {
                let opened = self.0.open(&mut lock(&self.0.descriptor), &directory);
                return opened;
            }
            if self.0.alone.load(Acquire) && lock(&self.0.descriptor).is_none() {
                return Err(Errno::STALE.into());
            }
            // The directory is just being let go, and opens it.
            std::thread::yield_now();
        }
    }

    /// Its descriptor, to change the file by: it stays open until that is on disk.
    pub(super) fn to_change(&self) -> io::Result<Arc<Descriptor>> {
        self.0.writes.begun.fetch_add(1, SeqCst);
        self.get()
    }

    /// Puts it on disk by `sync`, if there is anything that isn't known to be.
    pub(super) fn sync(&self, sync: impl Fn(&Descriptor) -> Result<(), Errno>) -> io::Result<()> {
        let writes = &self.0.writes;
        let begun = writes.begun.load(SeqCst);
        // A new descriptor would not be told of what went wrong, and there is nothing to be told.
        if writes.are_on_disk() && lock(&self.0.descriptor).is_none() {
            return Ok(());
        }
        sync(&*self.get()?)?;
        writes.synced.fetch_max(begun, SeqCst);
        Ok(())
    }
}

impl Inner {
    fn open(
        &self,
        held: &mut Option<Arc<Descriptor>>,
        directory: &Directory,
    ) -> io::Result<Arc<Descriptor>> {
        if let Some(descriptor) = held {
            return Ok(descriptor.clone());
        }
        let opened = directory.open_file(&self.name, self.flags)?;
        if identity(&opened)? != self.identity {
            return Err(Errno::STALE.into());
        }
        Ok(held.insert(Descriptor::new(opened)).clone())
    }

    fn keep_open(&self, directory: &Directory) -> io::Result<()> {
        let mut held = lock(&self.descriptor);
        self.open(&mut held, directory)?;
        self.named.store(false, Relaxed);
        Ok(())
    }

    fn close(&self) {
        let mut held = lock(&self.descriptor);
        // Who is about to write has said so before it asks for the descriptor.
        if self.named.load(Relaxed) && self.writes.are_on_disk() {
            *held = None;
        }
    }
}

/// The open files of an image.
#[derive(Debug, Clone)]
pub struct OpenFiles(pub(super) Weak<Directory>);

impl OpenFiles {
    /// Closes those that can be opened again, and whose writes are on disk. What is needed again is opened again, so
    /// this may be called at any time.
    pub fn close(&self) {
        if let Some(directory) = self.0.upgrade() {
            directory.close();
        }
    }
}
