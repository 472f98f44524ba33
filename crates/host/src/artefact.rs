//! Compiled modules: made in a locked process, cached by content and settings,
//! shared read-only by every worker of the module.
//!
//! What a compiler wrote is as hostile as the module was. The host never loads
//! it; it copies it into a sealed memfd, hashes that, and hands the memfd to
//! workers. A cache file that isn't what it says is thrown away.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::supervisor::Supervisor;
use lazaret_guest::{contract, engine};
use lazaret_wall::launcher::Limits;
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wall::{Grade, Layer};
use lazaret_wire::codec::Message;
use lazaret_wire::message::{
    Artefact as Made, Assignment, Compile, CompileSettings, Compiled, FromWorker, ToWorker,
};
use thiserror::Error;

use crate::cache_file;
use crate::ending::Ending;
use crate::launchers::Launchers;
use crate::measures::MeasureOptions;
pub(crate) use crate::sealed::{memfd, seal};
use crate::worker::{Duty, Start, Worker, WorkerError};

/// Why a module could not be compiled or its artefact not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The module is no good.
    #[error("the module is not valid here: {0}")]
    Invalid(String),
    /// The compiler needed too long.
    #[error("compiling took longer than {0:?}; raise the limit")]
    Time(Duration),
    /// The compiler needed too much memory.
    #[error("compiling needed more than {0} bytes of memory; raise the limit")]
    Memory(u64),
    /// The compiler tried to get out: the module is hostile.
    #[error("the compiler process was killed: {0}")]
    Ended(Ending),
    /// The worker could not be started.
    #[error("compiler: {0}")]
    Worker(#[from] WorkerError),
    /// The cache's directory.
    #[error("compile cache {path}: {source}")]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Memory for the artefact.
    #[error("artefact: {0}")]
    Memfd(#[source] io::Error),
}

/// A compiled module, ready to be handed to workers.
#[derive(Debug)]
pub(crate) struct Artefact {
    /// Its identity: that of the module and of all that decides the code.
    pub key: [u8; 32],
    /// The module's hash (blake3).
    pub module: [u8; 32],
    /// The code, in a sealed memfd, opened read-only.
    pub file: OwnedFd,
    /// How it was compiled.
    pub settings: CompileSettings,
    /// What the compiler found.
    pub made: Made,
}

/// What a host says of its compilations, to whoever wants to show progress.
/// Modules that are in the cache are not compiled and not spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compiling {
    /// One begins.
    Begun {
        /// Bytes of the module.
        module_bytes: usize,
    },
    /// It ended, well or not.
    Ended,
}

/// Who is told of compilations.
#[derive(Clone)]
pub(crate) struct Observer(pub Arc<dyn Fn(Compiling) + Send + Sync>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// The compile cache of a host.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: Option<PathBuf>,
    observer: Option<Observer>,
    open: Mutex<HashMap<[u8; 32], Arc<Artefact>>>,
}

/// Limits of one compilation.
#[derive(Debug, Clone, Copy)]
pub struct CompileLimits {
    /// Wall-clock time.
    pub time: Duration,
    /// Private memory, in bytes.
    pub memory: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(600),
            memory: 8 << 30,
        }
    }
}

/// The largest artefact, in bytes.
const MAX_ARTEFACT: u64 = 2 << 30;

/// What a cache file of compiled code begins with, and how large it can be.
const KIND: cache_file::Kind = cache_file::Kind {
    magic: b"LAZCODE1",
    max_bytes: MAX_ARTEFACT,
};

/// The identity of an artefact: module, settings, and everything of ours and
/// of the engine's that decides the code.
fn key(module: &[u8; 32], settings: &CompileSettings) -> [u8; 32] {
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

impl Cache {
    /// A cache in `directory`, or in memory only.
    pub(crate) fn new(directory: Option<PathBuf>, observer: Option<Observer>) -> Self {
        Self {
            directory,
            observer,
            open: Mutex::default(),
        }
    }

    /// The artefact of a module, and how long it took to compile if it was not
    /// there yet.
    pub(crate) fn get(
        &self,
        compiler: &Compiler<'_>,
        wasm: &[u8],
        settings: CompileSettings,
    ) -> Result<(Arc<Artefact>, Option<Duration>), CompileError> {
        let module = *blake3::hash(wasm).as_bytes();
        let key = key(&module, &settings);
        if let Some(found) = self.lock().get(&key) {
            return Ok((found.clone(), None));
        }
        let path = self.directory.as_ref().map(|directory| {
            directory.join(format!("{}.code", blake3::Hash::from_bytes(key).to_hex()))
        });
        if let Some(found) = path
            .as_deref()
            .and_then(|path| load(path, (key, module), settings).ok())
        {
            let found = Arc::new(found);
            self.lock().insert(key, found.clone());
            return Ok((found, None));
        }
        let started = Instant::now();
        self.tell(Compiling::Begun {
            module_bytes: wasm.len(),
        });
        let made = compile(compiler, wasm, (key, module), settings);
        self.tell(Compiling::Ended);
        let made = Arc::new(made?);
        let took = started.elapsed();
        if let Some(path) = path {
            // A cache that can't be written (a full or read-only disk) costs
            // the next one time, not this one its result.
            if let Err(error) = store(&path, &made) {
                tracing::warn!(path = %path.display(), %error, "the compiled module could not be cached");
            }
        }
        self.lock().insert(key, made.clone());
        Ok((made, Some(took)))
    }

    fn tell(&self, what: Compiling) {
        if let Some(Observer(observer)) = &self.observer {
            observer(what);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Artefact>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a compiler is started with.
#[derive(Debug)]
pub(crate) struct Compiler<'a> {
    pub launchers: &'a Launchers,
    pub supervisor: &'a Supervisor,
    pub accepted: &'a [Layer],
    pub required: Option<Grade>,
    pub measures: &'a MeasureOptions,
    pub limits: CompileLimits,
}

fn compile(
    compiler: &Compiler<'_>,
    wasm: &[u8],
    (key, module): ([u8; 32], [u8; 32]),
    settings: CompileSettings,
) -> Result<Artefact, CompileError> {
    let limits = compiler.limits;
    let input = memfd().map_err(CompileError::Memfd)?;
    fs::File::from(input.try_clone().map_err(CompileError::Memfd)?)
        .write_all(wasm)
        .map_err(CompileError::Memfd)?;
    let input = seal(&input).map_err(CompileError::Memfd)?;
    let output = memfd().map_err(CompileError::Memfd)?;
    let launcher = compiler.launchers.compiling().map_err(WorkerError::from)?;
    let (mut worker, _, _) = Worker::start(Start {
        blank: None,
        launcher: &launcher,
        supervisor: compiler.supervisor,
        duty: Duty::Serve,
        lessons: None,
        required: compiler.required,
        measures: compiler.measures,
        tenant: None,
        module: &module,
        code: None,
        limits: Limits {
            address_space: limits.memory.saturating_add(16 << 30),
            data: limits.memory,
            descriptors: 16,
            file: MAX_ARTEFACT,
            cpu_seconds: None,
            stack: engine::NATIVE_STACK,
            compiler: true,
        },
        assignment: &Assignment::Compiler,
        descriptors: &[input.as_fd(), output.as_fd()],
        open: Open {
            fixed: &[0, 1],
            directories: 0,
        },
        accepted: compiler.accepted,
        tracked: false,
    })?;
    worker.send(&ToWorker::Compile(Compile { settings }))?;
    let made = match worker.wait(limits.time) {
        Ok(FromWorker::Compiled(Compiled { result: Ok(made) })) => made,
        Ok(FromWorker::Compiled(Compiled {
            result: Err(reason),
        })) => return Err(CompileError::Invalid(reason)),
        Ok(_) => {
            return Err(CompileError::Ended(
                worker.malformed("neither an artefact nor a reason"),
            ));
        }
        Err(Ending::Deadline(limit)) => return Err(CompileError::Time(limit)),
        Err(Ending::OutOfMemory { .. }) => return Err(CompileError::Memory(limits.memory)),
        Err(ending) => return Err(CompileError::Ended(ending)),
    };
    // It must be gone before the file is sealed: it could still write.
    worker.end();
    let length = rustix::fs::fstat(&output)
        .map_err(|errno| CompileError::Memfd(errno.into()))?
        .st_size as u64;
    if length != made.length || length == 0 {
        return Err(CompileError::Ended(Ending::Malformed(format!(
            "the artefact has {length} bytes, the compiler says {}",
            made.length
        ))));
    }
    Ok(Artefact {
        key,
        module,
        file: seal(&output).map_err(CompileError::Memfd)?,
        settings,
        made,
    })
}

/// Writes a cache file.
fn store(path: &Path, artefact: &Artefact) -> io::Result<()> {
    let mut described = Vec::new();
    Compiled {
        result: Ok(artefact.made.clone()),
    }
    .to_bytes(&mut described)
    .map_err(io::Error::other)?;
    KIND.store(path, &described, artefact.file.as_fd())
}

/// Reads a cache file.
fn load(
    path: &Path,
    (key, module): ([u8; 32], [u8; 32]),
    settings: CompileSettings,
) -> io::Result<Artefact> {
    let (described, file) = KIND.load(path)?;
    let made = match Compiled::from_bytes(&described) {
        Ok(Compiled { result: Ok(made) }) => made,
        _ => return Err(cache_file::bad("the description is wrong")),
    };
    if made.length != rustix::fs::fstat(&file)?.st_size as u64 {
        return Err(cache_file::bad("the length is wrong"));
    }
    Ok(Artefact {
        key,
        module,
        file,
        settings,
        made,
    })
}

#[cfg(test)]
mod tests {
    use lazaret_wire::message::Purpose;

    use super::*;

    const SETTINGS: CompileSettings = CompileSettings {
        purpose: Purpose::Tenant,
        metered: true,
        cards: false,
        snapshot: false,
    };

    fn artefact() -> Artefact {
        let file = memfd().unwrap();
        fs::File::from(file.try_clone().unwrap())
            .write_all(&[7; 5000])
            .unwrap();
        Artefact {
            key: [0; 32],
            module: [0; 32],
            file: seal(&file).unwrap(),
            settings: SETTINGS,
            made: Made {
                length: 5000,
                globals: Vec::new(),
                reusable: true,
            },
        }
    }

    #[test]
    fn what_is_stored_is_loaded_and_what_is_changed_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.code");
        store(&path, &artefact()).unwrap();
        assert_eq!(
            load(&path, ([0; 32], [0; 32]), SETTINGS)
                .unwrap()
                .made
                .length,
            5000
        );
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(
                load(&path, ([0; 32], [0; 32]), SETTINGS).is_err(),
                "a change at {at} went unnoticed"
            );
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(load(&path, ([0; 32], [0; 32]), SETTINGS).is_err());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.code");
        store(&path, &artefact()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(load(&path, ([0; 32], [0; 32]), SETTINGS).is_err());
    }
}
