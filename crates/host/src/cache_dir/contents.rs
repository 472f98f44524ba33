//! Contents: files that workers map, by their hash.
//!
//! To hash all of a large module's code takes longer than everything else about its
//! start. So it is done once after it was written or the machine has started, and its
//! entry says which file that was: a file that is still the same (its number, length,
//! and the times of its last changes, which nobody can set back) has the same contents.
//! Where that can't be said of a file system, or where nothing can be executed from it,
//! workers get a copy in memory, hashed on the way.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{StatVfsMountFlags, fstatfs, fstatvfs};
use serde::{Deserialize, Serialize};

use super::{Use, bad};
use crate::aside::Aside;
use crate::sealed::{memfd, seal};

/// How much is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// File systems of this machine alone, whose times of change are the kernel's (kernel:
/// `include/uapi/linux/magic.h`; ZFS and bcachefs: their own sources).
const LOCAL: &[u64] = &[
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683E, // Btrfs
    0xF2F5_2010, // F2FS
    0x0102_1994, // tmpfs
    0x794C_7630, // overlayfs
    0x2FC1_2FC1, // ZFS
    0xCA45_1A4E, // bcachefs
];

/// Which contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    hash: [u8; 32],
    pub length: u64,
    /// The file that is known to have them.
    verified: Option<Stamp>,
}

/// A file as it was at a time: of this start of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    boot: String,
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Option<Self> {
        Some(Self {
            boot: boot()?.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Which start of the machine this is (proc_sys_kernel(5)): what was not yet on disk
/// when it ended may be torn.
fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    BOOT.get_or_init(read).as_deref().map(str::trim)
}

/// Contents that were found.
#[derive(Debug)]
pub(super) enum Found {
    /// In the file, which was verified earlier.
    AsBefore(OwnedFd),
    /// In the file, which was verified now.
    Verified(OwnedFd),
    /// Copied into memory.
    Copied(OwnedFd),
}

impl Contents {
    pub(super) fn hash(&self) -> blake3::Hash {
        blake3::Hash::from_bytes(self.hash)
    }

    /// Writes all that can be read into a file with its hash as its name, which whoever
    /// may by this mode can open.
    pub(super) fn write(from: &mut dyn Read, directory: &Path, mode: u32) -> io::Result<Self> {
        let mut aside = Aside::create(&directory.join("new"), 0o400)?;
        let (hash, length) = copy(from, aside.file())?;
        aside
            .file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        let file = aside.file().try_clone()?;
        // Its name is a change too.
        aside.put(&directory.join(hash.to_hex().as_str()))?;
        Ok(Self {
            hash: *hash.as_bytes(),
            length,
            verified: Stamp::of(&file.metadata()?),
        })
    }

    /// Opens the file that is said to have these contents, and makes sure that it has.
    pub(super) fn open(&mut self, path: &Path, used: Use) -> io::Result<Found> {
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let mapped = can_be_mapped(&file, used)?;
        self.take(file, mapped)
    }

    /// Makes sure that a file has these contents: the file itself, or a copy of it.
    pub(super) fn take(&mut self, mut file: File, mapped: bool) -> io::Result<Found> {
        let metadata = file.metadata()?;
        // Whoever may write this file decides what workers execute.
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(bad("the contents can be written by others"));
        }
        if metadata.len() != self.length {
            return Err(bad("the contents have another length"));
        }
        if !mapped {
            let memory = memfd()?;
            let mut copied = File::from(memory.try_clone()?);
            self.check(copy(&mut file, &mut copied)?)?;
            return Ok(Found::Copied(seal(&memory)?));
        }
        let stamp = Stamp::of(&metadata);
        if stamp.is_some() && stamp == self.verified {
            return Ok(Found::AsBefore(file.into()));
        }
        self.check(copy(&mut file, &mut io::sink())?)?;
        file.rewind()?;
        // Not as it is now: what has changed since it was opened isn't verified.
        self.verified = stamp;
        Ok(Found::Verified(file.into()))
    }

    fn check(&self, (hash, length): (blake3::Hash, u64)) -> io::Result<()> {
        match hash == self.hash() && length == self.length {
            true => Ok(()),
            false => Err(bad("the contents have another hash")),
        }
    }
}

/// Copies all of it; its hash and length.
fn copy(from: &mut dyn Read, to: &mut impl Write) -> io::Result<(blake3::Hash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok((hasher.finalize(), hasher.count())),
            read => {
                hasher.update(&piece[..read]);
                to.write_all(&piece[..read])?;
            }
        }
    }
}

/// Whether workers can map the file itself.
fn can_be_mapped(file: &File, used: Use) -> io::Result<bool> {
    let local = LOCAL.contains(&(fstatfs(file.as_fd())?.f_type as u64));
    let flags = fstatvfs(file.as_fd())?.f_flag;
    let executed = used != Use::Data;
    Ok(local && !(executed && flags.contains(StatVfsMountFlags::NOEXEC)))
}
