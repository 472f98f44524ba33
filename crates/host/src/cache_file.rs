//! Files of the compile cache: made once, verified at each use.
//!
//! ```text
//! magic (8) | BLAKE3 of the rest (32) | length of the description (4) | description | contents
//! ```
//!
//! Each is written aside and renamed, so that no torn file is ever seen under
//! its name, and none is changed afterwards. One that isn't what it says is an
//! error, and made again.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::data_dir;
use crate::sealed::{memfd, seal};

/// The longest description, in bytes.
const MAX_DESCRIPTION: u32 = 1 << 20;
/// How much is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// A kind of cache file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What it begins with.
    pub magic: &'static [u8; 8],
    /// The most bytes of one.
    pub max_bytes: u64,
}

/// A file that isn't what it says.
pub(crate) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Kind {
    /// Writes a file with all that `contents` has.
    pub(crate) fn store(
        &self,
        path: &Path,
        description: &[u8],
        contents: BorrowedFd<'_>,
    ) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut contents = fs::File::from(contents.try_clone_to_owned()?);
        contents.rewind()?;
        let aside = data_dir::aside(path);
        let mut write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(self.magic)?;
            file.write_all(&[0; blake3::OUT_LEN])?;
            let mut hasher = blake3::Hasher::new();
            let mut put = |file: &mut fs::File, bytes: &[u8]| {
                hasher.update(bytes);
                file.write_all(bytes)
            };
            let length = u32::try_from(description.len()).map_err(io::Error::other)?;
            put(&mut file, &length.to_le_bytes())?;
            put(&mut file, description)?;
            let mut piece = vec![0; PIECE];
            loop {
                match contents.read(&mut piece)? {
                    0 => break,
                    read => put(&mut file, &piece[..read])?,
                }
            }
            let hash = *hasher.finalize().as_bytes();
            file.write_all_at(&hash, self.magic.len() as u64)?;
            fs::rename(&aside, path)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
    }

    /// Reads a file: its description, and its contents as a sealed memfd. The
    /// hash is checked on the way.
    pub(crate) fn load(&self, path: &Path) -> io::Result<(Vec<u8>, OwnedFd)> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let metadata = file.metadata()?;
        // Whoever may write this file decides what workers execute.
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(bad("written by others"));
        }
        if metadata.len() > self.max_bytes {
            return Err(bad("too long"));
        }
        let (mut magic, mut expected, mut length) = ([0; 8], [0; blake3::OUT_LEN], [0; 4]);
        file.read_exact(&mut magic)?;
        file.read_exact(&mut expected)?;
        file.read_exact(&mut length)?;
        if magic != *self.magic {
            return Err(bad("not a cache file of this kind"));
        }
        let described = u32::from_le_bytes(length);
        if described > MAX_DESCRIPTION {
            return Err(bad("lengths are wrong"));
        }
        let mut description = vec![0; described as usize];
        file.read_exact(&mut description)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&length);
        hasher.update(&description);
        let memory = memfd()?;
        let mut copy = fs::File::from(memory.try_clone()?);
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => {
                    hasher.update(&piece[..read]);
                    copy.write_all(&piece[..read])?;
                }
            }
        }
        if hasher.finalize() != expected {
            return Err(bad("the hash is wrong"));
        }
        Ok((description, seal(&memory)?))
    }
}
