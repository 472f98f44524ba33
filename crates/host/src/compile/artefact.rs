//! Compiled modules.

use std::io;
use std::os::fd::OwnedFd;

use lazaret_guest::contract;
use lazaret_wire::codec::Message;
use lazaret_wire::message::{Artefact as Made, CompileSettings, Compiled, Refused};

use super::MAX_ARTEFACT;
use crate::cache_dir::{self, CacheDir, Key, Use, bad, whole};

/// Compiled code in a cache directory. Its description is the message that the compiler
/// ended with; a module that is refused has no contents.
const KIND: cache_dir::Kind = cache_dir::Kind {
    name: "code",
    max_bytes: MAX_ARTEFACT,
    used: Use::Code,
};

/// A compiled module, ready to be handed to workers.
#[derive(Debug)]
pub(crate) struct Artefact {
    /// Its identity: that of the module and of all that decides the code.
    pub key: Key,
    /// The module's hash (blake3).
    pub module: [u8; 32],
    /// The code, opened read-only: a sealed memfd, or a file that is never changed.
    pub file: OwnedFd,
    /// How it was compiled.
    pub settings: CompileSettings,
    /// What the compiler found.
    pub made: Made,
}

/// The identity of an artefact: module, settings, and everything of ours and
/// of the engine's that decides the code.
pub(super) fn key(module: &[u8; 32], settings: &CompileSettings) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("lazaret 2026-11 compiled module");
    hasher.update(contract::identity(settings.purpose).as_bytes());
    hasher.update(&[
        settings.purpose as u8,
        u8::from(settings.metered),
        u8::from(settings.cards),
        u8::from(settings.snapshot),
    ]);
    hasher.update(module);
    *hasher.finalize().as_bytes()
}

/// Keeps what came of compiling under its key.
pub(super) fn store(
    directory: &CacheDir,
    key: &Key,
    result: Result<&Artefact, &Refused>,
) -> io::Result<()> {
    let compiled = Compiled {
        result: match result {
            Ok(artefact) => Ok(artefact.made.clone()),
            Err(refused) => Err(refused.clone()),
        },
    };
    let mut description = Vec::new();
    compiled
        .to_bytes(&mut description)
        .map_err(io::Error::other)?;
    let mut code = match result {
        Ok(artefact) => Some(whole(&artefact.file)?),
        Err(_) => None,
    };
    let contents = code.as_mut().map(|file| file as &mut dyn io::Read);
    directory.store(KIND, key, &description, contents)
}

/// Whether there is something under this key, whatever it is.
pub(super) fn knows(directory: &CacheDir, key: &Key) -> bool {
    directory.has(KIND, key)
}

/// What came of compiling this module earlier.
///
/// # Errors
/// As [`CacheDir::load`].
pub(super) fn load(
    directory: &CacheDir,
    (key, module): (Key, [u8; 32]),
    settings: CompileSettings,
) -> io::Result<Result<Artefact, Refused>> {
    let (description, contents) = directory.load(KIND, &key)?;
    let compiled = Compiled::from_bytes(&description).map_err(|error| bad(&error.to_string()))?;
    let (made, file) = match (compiled.result, contents) {
        (Ok(made), Some(file)) => (made, file),
        (Err(refused), None) => return Ok(Err(refused)),
        _ => return Err(bad("the description is of other contents")),
    };
    if made.length != rustix::fs::fstat(&file)?.st_size as u64 {
        return Err(bad("the length is wrong"));
    }
    Ok(Ok(Artefact {
        key,
        module,
        file,
        settings,
        made,
    }))
}
