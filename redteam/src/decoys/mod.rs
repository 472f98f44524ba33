//! What drills are aimed at: files, a process, sockets, queues, memory and a key,
//! all made by the host side for this and looked at by it. They are as weak as can
//! be: everybody may use them, and the process has the worker's user id. So what
//! stops a drill is a layer, and nothing that this host has by chance.
//!
//! Where an attack's classic aim can't be had as a decoy (`core_pattern`), the
//! drill opens it for writing, and writes nothing.

pub mod files;
pub mod key;
pub mod listeners;
pub mod process;
pub mod program;

use std::path::{Path, PathBuf};

use thiserror::Error;

use self::files::Files;
use self::key::Key;
use self::listeners::Listeners;
use self::process::Process;

/// A decoy that can't be put up.
#[derive(Debug, Error)]
#[error("{what}: {source}")]
pub struct DecoyError {
    /// Which.
    pub what: &'static str,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl DecoyError {
    fn at(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self { what, source }
    }
}

/// All decoys.
#[derive(Debug)]
pub struct Decoys {
    /// What only decoys know.
    pub secret: String,
    /// The decoy files.
    pub files: Files,
    /// The decoy process.
    pub process: Process,
    /// Sockets, queues and shared memory.
    pub listeners: Listeners,
    key: Option<Key>,
    release_agent: Option<PathBuf>,
    executable: PathBuf,
    user: Option<u32>,
}

impl Decoys {
    /// Puts all of them up. `executable` knows the decoy process by its name; `user`
    /// is the workers', where that is another than this process's.
    ///
    /// # Errors
    /// The first one that can't be put up.
    pub fn new(executable: &Path, user: Option<u32>) -> Result<Self, DecoyError> {
        let secret = process::secret()?;
        let files = Files::new(&secret, user)?;
        Ok(Self {
            process: Process::start(executable, &secret, user)?,
            listeners: Listeners::new(&process::secret()?, &files.path("socket"))?,
            key: Key::new(&secret),
            release_agent: release_agent(),
            executable: executable.to_owned(),
            secret,
            files,
            user,
        })
    }

    /// Makes everything as it was.
    ///
    /// # Errors
    /// If something can't be.
    pub fn renew(&mut self) -> Result<(), DecoyError> {
        self.files
            .renew()
            .map_err(DecoyError::at("the decoy files"))?;
        self.listeners.renew();
        if self.process.is_touched() {
            self.process = Process::start(&self.executable, &self.secret, self.user)?;
        }
        Ok(())
    }

    /// Whether there is a key.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether there is a control group with a release agent to be seen.
    pub fn has_release_agent(&self) -> bool {
        self.release_agent.is_some()
    }

    /// What an attacker must know, as its argument.
    ///
    /// # Errors
    /// If a socket has no address.
    pub fn words(&self) -> std::io::Result<String> {
        let path = |name: &str| self.files.path(name).display().to_string();
        let mut words = vec![
            ("directory", self.files.directory().display().to_string()),
            ("file", path("file")),
            ("own", path("own")),
            ("program", path("program")),
            ("setuid", path("setuid")),
            ("socket", path("socket")),
            ("handle", self.files.handle().unwrap_or_default()),
            ("pid", self.process.pid().to_string()),
            ("address", self.process.address.to_string()),
            ("descriptor", self.process.descriptor.to_string()),
            ("host", std::process::id().to_string()),
            (
                "serial",
                self.key.as_ref().map_or(0, |key| key.serial).to_string(),
            ),
            (
                "release_agent",
                self.release_agent
                    .as_ref()
                    .map_or_else(String::new, |path| path.display().to_string()),
            ),
        ];
        words.extend(self.listeners.words()?);
        Ok(words
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" "))
    }
}

/// The release agent of a hierarchy of version 1 (cgroups(7)), if there is one.
fn release_agent() -> Option<PathBuf> {
    std::fs::read_dir("/sys/fs/cgroup")
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("release_agent"))
        .find(|path| path.exists())
}
