//! Entries: what a cache directory knows under a key.
//!
//! ```text
//! BLAKE3 with the directory's key of kind, key and the rest (32) | the rest (postcard)
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::contents::Contents;
use super::{Key, Kind, bad};
use crate::aside::Aside;

/// The longest entry, in bytes.
const MAX_BYTES: u64 = 2 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub description: Vec<u8>,
    pub contents: Option<Contents>,
}

/// What vouches for the body of an entry.
fn voucher(secret: &[u8; 32], (kind, key): (Kind, &Key), body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(&(kind.name.len() as u64).to_le_bytes());
    hasher.update(kind.name.as_bytes());
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

impl Entry {
    pub(super) fn write(&self, path: &Path, secret: &[u8; 32], of: (Kind, &Key)) -> io::Result<()> {
        let body = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let mut aside = Aside::create(path, 0o600)?;
        aside
            .file()
            .write_all(voucher(secret, of, &body).as_bytes())?;
        aside.file().write_all(&body)?;
        aside.put(path)
    }

    /// The entry in this file, and when it was last noted that it is used.
    pub(super) fn read<'a>(
        path: &Path,
        secret: impl FnOnce() -> io::Result<&'a [u8; 32]>,
        of: (Kind, &Key),
    ) -> io::Result<(Self, SystemTime)> {
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let metadata = file.metadata()?;
        if metadata.len() > MAX_BYTES {
            return Err(bad("the entry is too long"));
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let (vouched, body) = bytes
            .split_first_chunk::<{ blake3::OUT_LEN }>()
            .ok_or_else(|| bad("the entry is too short"))?;
        if voucher(secret()?, of, body) != *vouched {
            return Err(bad("this directory's key doesn't vouch for the entry"));
        }
        let entry = postcard::from_bytes(body)
            .map_err(|error| bad(&format!("the entry makes no sense: {error}")))?;
        Ok((entry, metadata.modified()?))
    }

    /// Which contents the entry in this file names, as far as it can be read; nobody
    /// vouches for that.
    pub(super) fn names(path: &Path) -> Option<blake3::Hash> {
        let bytes = fs::read(path).ok()?;
        let entry: Self = postcard::from_bytes(bytes.get(blake3::OUT_LEN..)?).ok()?;
        entry.contents.map(|contents| contents.hash())
    }
}
