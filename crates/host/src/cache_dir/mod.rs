//! The cache directory: what was made once from other things, and can be made again.
//!
//! ```text
//! DIR/key              32 random bytes, of this directory
//! DIR/entries/KEY.KIND what is known under a key: a description, and which contents
//! DIR/contents/HASH    the contents with this BLAKE3 hash: what workers map
//! ```
//!
//! A worker executes what is found here, so nothing is believed that this user did not
//! write ([`contents`]) or that this directory's key doesn't vouch for ([`entry`]).
//! Every file is written aside and renamed, and none is changed afterwards: several
//! hosts can use one directory, and what was torn by the end of a machine is made
//! again, as is whatever was deleted.

mod contents;
mod entry;
mod prune;
mod secret;

use std::fs;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use contents::{Contents, Found};
use entry::Entry;

/// How many bytes it may hold, if nobody says.
pub(crate) const DEFAULT_LIMIT: u64 = 2 << 30;
/// It is noted that an entry was used if that was noted so long ago.
const NOTED_EVERY: Duration = Duration::from_secs(3600);

/// What entries are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// How their names end. Another format has another name.
    pub name: &'static str,
    /// The most bytes that the contents of one have.
    pub max_bytes: u64,
    /// What is done with their contents.
    pub used: Use,
}

/// What workers do with contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// They map them.
    Data,
    /// They map them and execute parts of them.
    Code,
    /// They are what workers run, as whatever user.
    Program,
}

impl Use {
    fn mode(self) -> u32 {
        match self {
            Self::Data | Self::Code => 0o400,
            Self::Program => 0o555,
        }
    }
}

/// A key: a hash of all that decides what is made.
pub(crate) type Key = [u8; 32];

/// What was found under a key: its description, and its contents if it has any.
pub(crate) type Kept = (Vec<u8>, Option<OwnedFd>);

/// All of a file, to be kept.
pub(crate) fn whole(file: impl AsFd) -> io::Result<fs::File> {
    let mut file = fs::File::from(file.as_fd().try_clone_to_owned()?);
    file.rewind()?;
    Ok(file)
}

/// A file that isn't what it says.
pub(crate) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A cache directory. It is made when something is first kept in it.
#[derive(Debug)]
pub(crate) struct CacheDir {
    path: PathBuf,
    /// The most bytes that it may hold.
    limit: u64,
    secret: OnceLock<[u8; 32]>,
    /// Bytes that may be added until it is looked through again.
    room: Mutex<u64>,
}

impl CacheDir {
    pub(crate) fn new(path: PathBuf, limit: u64) -> Self {
        Self {
            path,
            limit,
            secret: OnceLock::new(),
            room: Mutex::default(),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn entry(&self, kind: Kind, key: &Key) -> PathBuf {
        let name = blake3::Hash::from_bytes(*key).to_hex();
        self.path.join(format!("entries/{name}.{}", kind.name))
    }

    /// Whether there is an entry, which may be no good.
    pub(crate) fn has(&self, kind: Kind, key: &Key) -> bool {
        self.entry(kind, key).exists()
    }

    fn contents(&self, hash: &blake3::Hash) -> PathBuf {
        self.path.join("contents").join(hash.to_hex().as_str())
    }

    fn secret(&self, make: bool) -> io::Result<&[u8; 32]> {
        if let Some(secret) = self.secret.get() {
            return Ok(secret);
        }
        let secret = secret::of(&self.path.join("key"), make)?;
        Ok(self.secret.get_or_init(|| secret))
    }

    /// Keeps this under a key, in place of what was there.
    pub(crate) fn store(
        &self,
        kind: Kind,
        key: &Key,
        description: &[u8],
        contents: Option<&mut dyn Read>,
    ) -> io::Result<()> {
        for directory in ["entries", "contents"] {
            fs::create_dir_all(self.path.join(directory))?;
        }
        let secret = self.secret(true)?;
        let contents = match contents {
            None => None,
            Some(bytes) => {
                let mode = kind.used.mode();
                Some(Contents::write(bytes, &self.path.join("contents"), mode)?)
            }
        };
        let added = contents.as_ref().map_or(0, |contents| contents.length);
        let entry = Entry {
            description: description.to_vec(),
            contents,
        };
        entry.write(&self.entry(kind, key), secret, (kind, key))?;
        self.make_room(added);
        Ok(())
    }

    /// What is kept under a key.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if nothing is, and what is wrong with it.
    pub(crate) fn load(&self, kind: Kind, key: &Key) -> io::Result<Kept> {
        let (entry, found) = self.find(kind, key)?;
        let file = found.map(|(found, _)| match found {
            Found::AsBefore(file) | Found::Verified(file) | Found::Copied(file) => file,
        });
        Ok((entry.description, file))
    }

    /// Where the contents are that are kept under a key.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`io::ErrorKind::Unsupported`] if they can't be used
    /// where they are.
    pub(crate) fn locate(&self, kind: Kind, key: &Key) -> io::Result<PathBuf> {
        match self.find(kind, key)?.1 {
            Some((Found::AsBefore(_) | Found::Verified(_), path)) => Ok(path),
            Some((Found::Copied(_), _)) => Err(io::ErrorKind::Unsupported.into()),
            None => Err(bad("it has no contents")),
        }
    }

    fn find(&self, kind: Kind, key: &Key) -> io::Result<(Entry, Option<(Found, PathBuf)>)> {
        let path = self.entry(kind, key);
        let (mut entry, noted) = Entry::read(&path, || self.secret(false), (kind, key))?;
        let Some(contents) = &mut entry.contents else {
            note_use(&path, noted);
            return Ok((entry, None));
        };
        if contents.length > kind.max_bytes {
            return Err(bad("its contents are too long"));
        }
        let at = self.contents(&contents.hash());
        let found = contents.open(&at, kind.used)?;
        match &found {
            // So that the next one need not.
            Found::Verified(_) => {
                if let Err(error) = entry.write(&path, self.secret(false)?, (kind, key)) {
                    tracing::debug!(%error, "it could not be noted that a cache file was verified");
                }
            }
            Found::AsBefore(_) | Found::Copied(_) => note_use(&path, noted),
        }
        Ok((entry, Some((found, at))))
    }

    /// So many bytes were added: throws away what was used least lately, if there may be
    /// too much now.
    fn make_room(&self, added: u64) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = room.checked_sub(added).filter(|left| *left > 0) {
            *room = left;
            return;
        }
        match prune::prune(&self.path, self.limit) {
            // Others may add to it too.
            Ok(used) => *room = self.limit.saturating_sub(used) / 4,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the cache can't be looked through");
            }
        }
    }
}

/// Notes that an entry is used, if that was noted long ago.
fn note_use(path: &Path, noted: SystemTime) {
    if noted.elapsed().is_ok_and(|ago| ago > NOTED_EVERY) {
        let now = fs::FileTimes::new().set_modified(SystemTime::now());
        let used = fs::File::open(path).and_then(|file| file.set_times(now));
        if let Err(error) = used {
            tracing::debug!(%error, "it could not be noted that a cache file was used");
        }
    }
}

#[cfg(test)]
mod tests;
