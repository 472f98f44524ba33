//! A disk in memory that fails, loses power and tears writes when told to.
#![allow(dead_code)] // Each test binary uses a part.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use lazaret_image::{ReadAt, Storage};

/// What a disk writes at once or not at all.
const BLOCK: usize = 512;

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

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => {
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Change::Truncate(length) => bytes.resize(*length, 0),
        }
    }
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    /// Whether one of `later` has to do with the same name, or this is a rename (which the tests are about).
    fn is_needed_by(&self, later: &[NameChange]) -> bool {
        let (NameChange::Set(name, _) | NameChange::Remove(name)) = self else {
            return true;
        };
        later.iter().any(|change| match change {
            NameChange::Set(other, _) | NameChange::Remove(other) => other == name,
            NameChange::Rename(from, to) => from == name || to == name,
        })
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
            NameChange::Rename(from, to) => {
                let inode = names.remove(from).expect("renamed what isn't there");
                names.insert(to.clone(), inode);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Inode {
    /// What readers see: the page cache.
    cached: Vec<u8>,
    /// What the disk holds.
    durable: Vec<u8>,
    /// Changes in the cache that the disk may or may not hold yet.
    pending: Vec<Change>,
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    /// What the disk will hold when all that is pending is written.
    fn written(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.pending
            .iter()
            .for_each(|change| change.apply(&mut bytes));
        bytes
    }

    /// Loses power: the file's size and each block are as they were after some number of the pending changes,
    /// each a different one.
    fn power_cut(&mut self, numbers: &mut Numbers) {
        let mut histories = vec![self.durable.clone()];
        for change in &self.pending {
            let mut next = histories.last().unwrap().clone();
            change.apply(&mut next);
            histories.push(next);
        }
        // One time in four nothing was written, one in four all.
        let mut pick: Box<dyn FnMut() -> usize> = match numbers.below(4) {
            0 => Box::new(|| 0),
            1 => Box::new(|| histories.len() - 1),
            _ => Box::new(|| numbers.below(histories.len())),
        };
        let size = histories[pick()].len();
        let mut bytes = vec![0; size];
        for (position, block) in bytes.chunks_mut(BLOCK).enumerate() {
            let old = histories[pick()]
                .get(position * BLOCK..)
                .unwrap_or_default();
            let length = old.len().min(block.len());
            block[..length].copy_from_slice(&old[..length]);
        }
        drop(pick);
        *self = Inode {
            cached: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        };
    }
}

#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
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

    fn rename_now(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

#[derive(Clone)]
pub struct FaultStorage {
    disk: Arc<Mutex<Disk>>,
}

pub struct FaultFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
    writable: bool,
}

impl FaultStorage {
    pub fn new(seed: u64) -> FaultStorage {
        FaultStorage {
            disk: Arc::new(Mutex::new(Disk {
                numbers: seed,
                ..Disk::default()
            })),
        }
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
        // A journaling file system keeps the order of changes to names; POSIX promises nothing before the fsync. So
        // the first few are kept, and any of those that no other builds upon may be missing.
        let kept = numbers.below(disk.pending_names.len() + 1);
        let changes: Vec<NameChange> = disk.pending_names.drain(..).take(kept).collect();
        let mut names = disk.durable_names.clone();
        for (position, change) in changes.iter().enumerate() {
            let later = &changes[position + 1..];
            if change.is_needed_by(later) || numbers.below(4) > 0 {
                change.apply(&mut names);
            }
        }
        (disk.names, disk.durable_names) = (names.clone(), names);
        disk.inodes
            .iter_mut()
            .for_each(|inode| inode.power_cut(numbers));
        (disk.cut_at, disk.fail_at) = (None, None);
    }

    /// A copy that shares nothing with this one.
    pub fn copy(&self) -> FaultStorage {
        FaultStorage {
            disk: Arc::new(Mutex::new(self.disk().clone())),
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.disk().names.keys().cloned().collect()
    }

    /// A file's bytes.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let disk = self.disk();
        disk.inodes[disk.names[name]].cached.clone()
    }

    /// Changes a file behind everybody's back.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let inode = disk.names[name];
        disk.inodes[inode] = Inode {
            cached: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        };
    }

    /// Removes a file behind everybody's back.
    pub fn lose(&self, name: &str) {
        self.disk().names.remove(name).unwrap();
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
        Path::new("/image")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk().step()?;
        Ok(self.names())
    }

    fn open_read(&self, name: &str) -> io::Result<FaultFile> {
        let mut disk = self.disk();
        disk.step()?;
        let inode = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
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
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.rename_now(NameChange::Set(name.to_owned(), inode));
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
        disk.mutate(|disk| disk.rename_now(change.clone()))?;
        disk.rename_now(change);
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        if !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.rename_now(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn fsync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.mutate(|_| {})?;
        disk.durable_names = disk.names.clone();
        disk.pending_names.clear();
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
