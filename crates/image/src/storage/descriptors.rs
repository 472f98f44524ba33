//! Descriptors of an image that may be closed while nobody needs them: thousands of images are open at once, and a
//! process has a limit.
//!
//! A file that is still under its name is opened again by it; one that has lost its name stays open, as views read it.
//! A directory is locked by its descriptor, so without one only this process keeps others of its own away ([`Claim`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Descriptors of images that are open in this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many descriptors of images are open in this process.
pub fn open_descriptors() -> usize {
    OPEN.load(Relaxed)
}

/// A descriptor of an image, which is counted.
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

/// Device and inode.
type Identity = (u64, u64);

fn identity(descriptor: impl AsFd) -> io::Result<Identity> {
    let status = fs::fstat(descriptor)?;
    Ok((status.st_dev, status.st_ino))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose a directory is in this process: a number for each claim, and where the directory was.
static CLAIMS: Mutex<Option<HashMap<Identity, (u64, PathBuf)>>> = Mutex::new(None);

/// That a directory is used by one image of this process, until this is dropped.
#[derive(Debug)]
struct Claim {
    of: Identity,
    number: u64,
}

impl Claim {
    /// Nothing if somebody else has it.
    fn take(of: Identity, path: &Path) -> Option<Claim> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let mut claims = lock(&CLAIMS);
        let claims = claims.get_or_insert_default();
        if let Some((_, at)) = claims.get(&of) {
            // One whose directory was removed may be left over, and the inode be another's by now.
            let there = fs::stat(at).map(|status| (status.st_dev, status.st_ino));
            if there == Ok(of) {
                return None;
            }
        }
        let number = NUMBERS.fetch_add(1, Relaxed);
        claims.insert(of, (number, path.to_path_buf()));
        Some(Claim { of, number })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = lock(&CLAIMS);
        let claims = claims.get_or_insert_default();
        if claims
            .get(&self.of)
            .is_some_and(|(number, _)| *number == self.number)
        {
            claims.remove(&self.of);
        }
    }
}

/// A directory that is locked against others, and the files of it that are open.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    claim: Claim,
    descriptor: Mutex<Option<Arc<Descriptor>>>,
    files: Mutex<Vec<Weak<Inner>>>,
    /// It isn't at its path any more, so it can't be opened again.
    moved: AtomicBool,
}

impl Directory {
    /// Opens and locks a directory.
    pub(super) fn open(path: &Path) -> io::Result<Arc<Self>> {
        let descriptor = open_locked(path)?;
        let claim = Claim::take(identity(&descriptor)?, path).ok_or(io::ErrorKind::WouldBlock)?;
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            claim,
            descriptor: Mutex::new(Some(Descriptor::new(descriptor))),
            files: Mutex::default(),
            moved: AtomicBool::new(false),
        }))
    }

    /// Its descriptor, opened again if it was closed.
    pub(super) fn get(&self) -> io::Result<Arc<Descriptor>> {
        let mut held = lock(&self.descriptor);
        if let Some(descriptor) = &*held {
            return Ok(descriptor.clone());
        }
        let opened = open_locked(&self.path)?;
        if identity(&opened)? != self.claim.of {
            return Err(Errno::STALE.into());
        }
        Ok(held.insert(Descriptor::new(opened)).clone())
    }

    /// Opens a file in it.
    pub(super) fn file(self: &Arc<Self>, name: &str, flags: OFlags) -> io::Result<OsFile> {
        let opened = open_in(&*self.get()?, name, flags)?;
        let inner = Arc::new(Inner {
            directory: Arc::downgrade(self),
            name: name.to_owned(),
            // It is there now.
            flags: flags - OFlags::CREATE - OFlags::EXCL,
            identity: identity(&opened)?,
            named: AtomicBool::new(true),
            alone: AtomicBool::new(false),
            descriptor: Mutex::new(Some(Descriptor::new(opened))),
        });
        let mut files = lock(&self.files);
        files.retain(|file| file.strong_count() > 0);
        files.push(Arc::downgrade(&inner));
        Ok(OsFile(inner))
    }

    /// Files with this name lose it: they stay open from now on.
    pub(super) fn unname(&self, name: &str) -> io::Result<()> {
        for file in lock(&self.files).iter().filter_map(Weak::upgrade) {
            if file.name == name {
                file.keep_open(self)?;
            }
        }
        Ok(())
    }

    /// It isn't at its path any more.
    pub(super) fn moved(&self) {
        self.moved.store(true, Relaxed);
    }

    fn close(&self) {
        if self.moved.load(Relaxed) {
            return;
        }
        for file in lock(&self.files).iter().filter_map(Weak::upgrade) {
            file.close();
        }
        let closed = lock(&self.descriptor).take();
        drop(closed);
    }
}

/// Who still reads a file goes on, though nobody can open it again.
impl Drop for Directory {
    fn drop(&mut self) {
        let files = std::mem::take(&mut *lock(&self.files));
        for file in files.iter().filter_map(Weak::upgrade) {
            // If there are no descriptors left, to read it is an error from now on.
            let _ = file.keep_open(self);
            file.alone.store(true, Release);
        }
    }
}

fn open_locked(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = fs::open(path, flags, Mode::empty())?;
    fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

fn open_in(directory: &Descriptor, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    // NOFOLLOW: an image's files are its own; a link is somebody's mistake, or worse.
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(fs::openat(
        directory,
        name,
        flags,
        Mode::from_raw_mode(0o600),
    )?)
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
    identity: Identity,
    /// Whether it still has its name. Changed with the descriptor locked.
    named: AtomicBool,
    /// Its directory was let go: what isn't open can't be opened.
    alone: AtomicBool,
    descriptor: Mutex<Option<Arc<Descriptor>>>,
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
        let opened = open_in(&*directory.get()?, &self.name, self.flags)?;
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
        if self.named.load(Relaxed) {
            *held = None;
        }
    }
}

/// The open descriptors of an image.
#[derive(Debug, Clone)]
pub struct OpenFiles(pub(super) Weak<Directory>);

impl OpenFiles {
    /// Closes them. What is needed again is opened again, so this may be called at any time; but while the directory's
    /// is closed no other process is kept away: whoever closes it must have a lock of its own on what it is in.
    pub fn close(&self) {
        if let Some(directory) = self.0.upgrade() {
            directory.close();
        }
    }
}
