//! The key of a cache directory: what it vouches for was kept there by a host of this
//! user, in this directory, and not brought along from elsewhere.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use super::bad;
use crate::aside::Aside;

/// The key in this file; a new one if there is none and it is to be made.
pub(super) fn of(path: &Path, make: bool) -> io::Result<[u8; 32]> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && make => {}
        other => return other,
    }
    let mut key = [0; 32];
    if getrandom(&mut key, GetRandomFlags::empty())? != key.len() {
        return Err(io::Error::other("too few random bytes"));
    }
    let mut aside = Aside::create(path, 0o600)?;
    aside.file().write_all(&key)?;
    // Only one of several hosts can; what is there then is whole.
    aside.put_if_free(path)?;
    read(path)
}

fn read(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(bad("the cache's key can be read or written by others"));
    }
    let mut key = [0; 32];
    if metadata.len() != key.len() as u64 {
        return Err(bad("the cache's key has a wrong length"));
    }
    file.read_exact(&mut key)?;
    Ok(key)
}
