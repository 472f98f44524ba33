//! A disk in memory that fails, loses power and tears writes when told to.
#![allow(dead_code)] // Each test binary uses a part.

mod inode;
mod names;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use inode::{Change, Inode};
use lazaret_image::{ReadAt, Storage};
use names::{NameChange, Names};

/// A small generator of numbers (SplitMix64), so that a seed gives the same run everywhere.
#[derive(Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    /// The names in each directory.
    directories: Vec<Names>,
    /// The directories by path. They all have one parent.
    paths: Names,
    /// Links are refused, as between file systems.
    no_links: bool,
    /// Operations so far, of any kind.
    operations: u64,
    /// Operations so far that change something or wait for it to be on disk.
    mutations: u64,
    fail_at: Option<(u64, i32)>,
    cut_at: Option<u64>,
    numbers: u64,
    /// The test is looking: nothing is counted, nothing fails.
    looking: bool,
}

impl Disk {
    fn is_cut(&self) -> bool {
        self.cut_at.is_some_and(|at| self.mutations >= at)
    }

    fn step(&mut self) -> io::Result<()> {
        if self.looking {
            return Ok(());
        }
        self.operations += 1;
        match self.fail_at {
            _ if self.is_cut() => Err(io::Error::from_raw_os_error(5)),
            Some((at, errno)) if at == self.operations => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    /// Like `step`; the operation at which the power goes fails, after `torn` has had its effect.
    fn mutate(&mut self, torn: impl FnOnce(&mut Disk)) -> io::Result<()> {
        self.step()?;
        self.mutations += 1;
        if self.is_cut() {
            torn(self);
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn names(&mut self, directory: usize) -> &mut Names {
        &mut self.directories[directory]
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[derive(Clone)]
pub struct FaultStorage {
    disk: Arc<Mutex<Disk>>,
    directory: usize,
    path: PathBuf,
}

pub struct FaultFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
    writable: bool,
}

impl FaultStorage {
    /// A disk with an empty directory `/image`, which this is.
    pub fn new(seed: u64) -> FaultStorage {
        let mut disk = Disk {
            numbers: seed,
            directories: vec![Names::default()],
            ..Disk::default()
        };
        let path = PathBuf::from("/image");
        disk.paths.change(NameChange::Set(text(&path), 0));
        disk.paths.sync();
        FaultStorage {
            disk: Arc::new(Mutex::new(disk)),
            directory: 0,
            path,
        }
    }

    /// Another directory of the disk, if it is there.
    pub fn at(&self, path: &Path) -> Option<FaultStorage> {
        let directory = *self.disk().paths.now.get(&text(path))?;
        Some(FaultStorage {
            disk: self.disk.clone(),
            directory,
            path: path.to_path_buf(),
        })
    }

    /// All directories' paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk().paths.now.keys().map(PathBuf::from).collect()
    }

    /// From now on, links are refused, and files copied instead.
    pub fn refuse_links(&self) {
        self.disk().no_links = true;
    }

    /// Whether two names are links to one file.
    pub fn same_file(&self, name: &str, other: &FaultStorage, other_name: &str) -> bool {
        let disk = self.disk();
        disk.directories[self.directory].now[name]
            == disk.directories[other.directory].now[other_name]
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// The `at`th operation from now on (from 1) fails once with `errno`.
    pub fn fail_at(&self, at: u64, errno: i32) {
        let mut disk = self.disk();
        disk.fail_at = Some((disk.operations + at, errno));
    }

    /// The power goes in the `at`th changing operation from now on (from 1): it and all later ones fail.
    pub fn cut_at(&self, at: u64) {
        let mut disk = self.disk();
        disk.cut_at = Some(disk.mutations + at);
    }

    /// Looks without being counted or failing.
    pub fn look<T>(&self, look: impl FnOnce() -> T) -> T {
        self.disk().looking = true;
        let seen = look();
        self.disk().looking = false;
        seen
    }

    pub fn is_cut(&self) -> bool {
        self.disk().is_cut()
    }

    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    pub fn mutations(&self) -> u64 {
        self.disk().mutations
    }

    /// Loses what isn't on disk, by chance, and turns the power on again.
    pub fn power_cut(&self, numbers: &mut Numbers) {
        let mut disk = self.disk();
        disk.paths.power_cut(numbers);
        disk.directories
            .iter_mut()
            .for_each(|names| names.power_cut(numbers));
        disk.inodes
            .iter_mut()
            .for_each(|inode| inode.power_cut(numbers));
        (disk.cut_at, disk.fail_at) = (None, None);
    }

    /// A copy that shares nothing with this one.
    pub fn copy(&self) -> FaultStorage {
        FaultStorage {
            disk: Arc::new(Mutex::new(self.disk().clone())),
            ..self.clone()
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.disk()
            .names(self.directory)
            .now
            .keys()
            .cloned()
            .collect()
    }

    /// A file's bytes.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let disk = self.disk();
        disk.inodes[disk.directories[self.directory].now[name]]
            .cached
            .clone()
    }

    /// Changes a file behind everybody's back.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let inode = disk.names(self.directory).now[name];
        disk.inodes[inode] = Inode {
            cached: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        };
    }

    /// Removes a file behind everybody's back.
    pub fn lose(&self, name: &str) {
        self.disk().names(self.directory).now.remove(name).unwrap();
    }

    fn sync(&self, inode: usize) -> io::Result<()> {
        let mut disk = self.disk();
        if let Err(error) = disk.mutate(|_| {}) {
            if !disk.is_cut() {
                // What Linux does: the pages are clean from now on, though they never reached the disk.
                disk.inodes[inode].pending.clear();
            }
            return Err(error);
        }
        let inode = &mut disk.inodes[inode];
        inode.durable = inode.written();
        inode.pending.clear();
        Ok(())
    }
}

impl ReadAt for FaultFile {
    fn pread(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.step()?;
        let bytes = disk.inodes[self.inode]
            .cached
            .get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Storage for FaultStorage {
    type File = FaultFile;

    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk().step()?;
        Ok(self.names())
    }

    fn open_read(&self, name: &str) -> io::Result<FaultFile> {
        let mut disk = self.disk();
        disk.step()?;
        let names = &disk.directories[self.directory].now;
        let inode = *names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultFile {
            disk: self.disk.clone(),
            inode,
            writable: false,
        })
    }

    fn open_write(&self, name: &str) -> io::Result<FaultFile> {
        Ok(FaultFile {
            writable: true,
            ..self.open_read(name)?
        })
    }

    fn create(&self, name: &str) -> io::Result<FaultFile> {
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        if disk.names(self.directory).now.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.names(self.directory)
            .change(NameChange::Set(name.to_owned(), inode));
        Ok(FaultFile {
            disk: self.disk.clone(),
            inode,
            writable: true,
        })
    }

    fn len(&self, file: &FaultFile) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.step()?;
        Ok(disk.inodes[file.inode].cached.len() as u64)
    }

    fn pwrite(&self, file: &FaultFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(file.writable);
        let mut disk = self.disk();
        let change = Change::Write(offset as usize, bytes.to_vec());
        disk.mutate(|disk| disk.inodes[file.inode].change(change.clone()))?;
        disk.inodes[file.inode].change(change);
        Ok(())
    }

    fn fdatasync(&self, file: &FaultFile) -> io::Result<()> {
        self.sync(file.inode)
    }

    fn fsync(&self, file: &FaultFile) -> io::Result<()> {
        self.sync(file.inode)
    }

    fn truncate(&self, file: &FaultFile, length: u64) -> io::Result<()> {
        assert!(file.writable);
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        disk.inodes[file.inode].change(Change::Truncate(length as usize));
        Ok(())
    }

    fn reserve(&self, _: &FaultFile, _: u64, _: u64) -> io::Result<()> {
        // Never any room to set aside, and nothing depends on it.
        Err(io::ErrorKind::StorageFull.into())
    }

    fn forget(&self, file: &FaultFile, offset: u64) {
        let mut disk = self.disk();
        let inode = &mut disk.inodes[file.inode];
        let mut written = inode.written();
        written.resize(inode.cached.len(), 0);
        let offset = (offset as usize).min(written.len());
        inode.cached[offset..].copy_from_slice(&written[offset..]);
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        disk.mutate(|disk| disk.names(self.directory).change(change.clone()))?;
        disk.names(self.directory).change(change);
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        if !disk.names(self.directory).now.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.names(self.directory)
            .change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn fsync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        disk.names(self.directory).sync();
        Ok(())
    }

    fn make_directory(&self, path: &Path) -> io::Result<FaultStorage> {
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        if disk.paths.now.contains_key(&text(path)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.directories.push(Names::default());
        let directory = disk.directories.len() - 1;
        disk.paths.change(NameChange::Set(text(path), directory));
        Ok(FaultStorage {
            disk: self.disk.clone(),
            directory,
            path: path.to_path_buf(),
        })
    }

    fn open_directory(&self, path: &Path) -> io::Result<FaultStorage> {
        self.disk().step()?;
        self.at(path).ok_or(io::ErrorKind::NotFound.into())
    }

    fn move_directory(&self, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.paths.now.contains_key(&text(to)) {
            disk.step()?;
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let change = NameChange::Rename(text(&self.path), text(to));
        disk.mutate(|disk| disk.paths.change(change.clone()))?;
        disk.paths.change(change);
        Ok(())
    }

    fn discard_directory(&self, path: &Path) -> io::Result<()> {
        let Some(there) = self.at(path) else {
            return self.disk().step();
        };
        for name in there.names() {
            there.unlink(&name)?;
        }
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        disk.paths.change(NameChange::Remove(text(path)));
        Ok(())
    }

    fn fsync_parent(&self, _: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        disk.paths.sync();
        Ok(())
    }

    fn link(&self, name: &str, to: &FaultStorage, to_name: &str) -> io::Result<()> {
        assert!(Arc::ptr_eq(&self.disk, &to.disk));
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        let mut inode =
            *(disk.names(self.directory).now.get(name)).ok_or(io::ErrorKind::NotFound)?;
        if disk.names(to.directory).now.contains_key(to_name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if disk.no_links {
            let cached = disk.inodes[inode].cached.clone();
            disk.inodes.push(Inode {
                durable: cached.clone(),
                cached,
                pending: Vec::new(),
            });
            inode = disk.inodes.len() - 1;
        }
        disk.names(to.directory)
            .change(NameChange::Set(to_name.to_owned(), inode));
        Ok(())
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut disk = self.disk();
        disk.step()?;
        let mut numbers = Numbers(disk.numbers);
        disk.numbers = numbers.next();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&numbers.next().to_le_bytes());
        bytes[8..].copy_from_slice(&numbers.next().to_le_bytes());
        Ok(bytes)
    }
}
