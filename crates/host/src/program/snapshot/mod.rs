//! Snapshots of programs: what an initialiser left, made once and kept beside
//! the compiled module.
//!
//! The initialiser runs in a locked worker; when it has returned, the host
//! copies its memory's pages into a sealed memfd, which workers map privately.
//! A worker that lies about what it left harms nothing but later runs of the
//! same module with the same initialiser: the key names both.

mod pages;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lazaret_wall::policy::Uses;
use lazaret_wire::codec::Message;
use lazaret_wire::layout::{self, PAGE};
use lazaret_wire::message::{
    Beginning, Clock, Exited, Global, Initialised, Initialiser, ProgramEnd, Snapshot, same_types,
};
use thiserror::Error;

use super::error::RunError;
use super::execution::{Execution, Plan, RunLimits, millis};
use super::grants::Granting;
use super::report::Report;
use super::streams::{Input, Output};
use crate::cache_dir::{self, CacheDir, Key, Use, bad, whole};
use crate::compile::Artefact;
use crate::host::Inner;

/// Why no snapshot could be made of an initialiser that ended by itself. One
/// that traps or reaches a limit has a [`Report`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It ended the program.
    #[error(
        "the initialiser `{name}` ended the program with status {status}; it must return, so that there is something to begin from"
    )]
    Exited {
        /// The initialiser.
        name: String,
        /// The exit status.
        status: u32,
    },
    /// What it left depends on a limit.
    #[error(
        "the initialiser `{name}` was refused memory over the limit of {limit} bytes, so what it left depends on that limit; raise it (--memory)"
    )]
    Memory {
        /// The initialiser.
        name: String,
        /// The limit.
        limit: u64,
    },
    /// Its memory could not be copied.
    #[error("copying what the initialiser `{name}` left: {source}")]
    Copy {
        /// The initialiser.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// A snapshot, ready to be handed to workers.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Sizes, globals, and where the pages belong.
    pub state: Snapshot,
    /// The pages, opened read-only: a sealed memfd, or a file that is never changed.
    pub pages: OwnedFd,
}

impl Kept {
    /// Bytes of its pages.
    pub(super) fn bytes(&self) -> u64 {
        self.state
            .runs
            .iter()
            .fold(0u64, |sum, run| sum.saturating_add(run.pages))
            .saturating_mul(PAGE as u64)
    }
}

/// A snapshot that was asked for.
pub(super) enum Obtained {
    /// It was there.
    Found(Arc<Kept>),
    /// It was made now, in so much time.
    Made(Arc<Kept>, Duration),
    /// The initialiser came to a bad end.
    Failed(Box<Report>),
}

/// The snapshots of a host.
#[derive(Debug)]
pub(crate) struct Snapshots {
    directory: Option<Arc<CacheDir>>,
    open: Mutex<HashMap<[u8; 32], Arc<Kept>>>,
}

/// Snapshots in a cache directory: at most all of the largest memory.
const KIND: cache_dir::Kind = cache_dir::Kind {
    name: "snapshot",
    max_bytes: layout::MAX_MEMORY,
    used: Use::Data,
};

/// The identity of a snapshot: the artefact's, and all that decides what the
/// initialiser does.
fn key(artefact: &Arc<Artefact>, initialiser: &Initialiser) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("lazaret 2026-11 snapshot of a program");
    hasher.update(&artefact.key);
    hasher.update(&[u8::from(initialiser.allow_wasi)]);
    hasher.update(initialiser.export.as_bytes());
    *hasher.finalize().as_bytes()
}

/// What an initialiser runs with.
pub(super) struct Making<'a> {
    pub(super) host: &'a Inner,
    pub(super) artefact: &'a Arc<Artefact>,
    pub(super) uses: Uses,
    pub(super) limits: RunLimits,
    pub(super) as_user: Option<u32>,
    /// What the initialiser is told of time.
    pub(super) clock: Clock,
    pub(super) initialiser: &'a Initialiser,
    pub(super) error: Output,
}

impl Snapshots {
    /// Snapshots in `directory`, or in memory only.
    pub(crate) fn new(directory: Option<Arc<CacheDir>>) -> Self {
        Self {
            directory,
            open: Mutex::default(),
        }
    }

    /// The snapshot that this makes, made if there is none.
    pub(super) fn get(&self, making: Making<'_>) -> Result<Obtained, RunError> {
        let key = key(making.artefact, making.initialiser);
        if let Some(found) = self.lock().get(&key) {
            return Ok(Obtained::Found(found.clone()));
        }
        let types = &making.artefact.made.globals;
        let directory = self.directory.as_deref();
        match directory.map(|directory| load(directory, &key, types)) {
            Some(Ok(found)) => {
                let found = Arc::new(found);
                self.lock().insert(key, found.clone());
                return Ok(Obtained::Found(found));
            }
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a snapshot that can't be used is made again");
            }
            _ => {}
        }
        let began = Instant::now();
        let made = match make(making)? {
            Ok(made) => Arc::new(made),
            Err(report) => return Ok(Obtained::Failed(report)),
        };
        if let Some(directory) = directory {
            // As with compiled modules: it costs the next run time, not this
            // one its result.
            if let Err(error) = store(directory, &key, &made) {
                tracing::warn!(path = %directory.path().display(), %error, "the snapshot could not be kept");
            }
        }
        self.lock().insert(key, made.clone());
        Ok(Obtained::Made(made, began.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Kept>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the initialiser and copies what it leaves; a report if it doesn't get
/// that far.
fn make(making: Making<'_>) -> Result<Result<Kept, Box<Report>>, RunError> {
    let Making {
        host,
        artefact,
        limits,
        initialiser,
        ..
    } = making;
    let mut execution = Execution::start(Plan {
        host,
        artefact,
        limits,
        granting: Granting::begin(host, &[], making.as_user)?,
        directories: &[],
        arguments: Vec::new(),
        environment: Vec::new(),
        uses: making.uses,
        learn: false,
        clock: making.clock,
        beginning: Beginning::Initialiser(initialiser.clone()),
        pages: None,
        input: Input::Empty,
        output: making.error.clone(),
        error: making.error,
    })?;
    let mut end = execution.wait(&host.functions);
    let mut kept = None;
    if let Ok(Exited {
        end: ProgramEnd::Exit(0),
        memory_limit_hit: false,
        left: Some(left),
        ..
    }) = &end
    {
        match check(left, &artefact.made.globals, limits.memory) {
            Ok(()) => kept = Some(copy(execution.worker().pid(), left)),
            Err(what) => end = Err(execution.worker().malformed(what)),
        }
    }
    let status = match &end {
        Ok(exited) => match exited.end {
            ProgramEnd::Exit(status) => Some((status, exited.memory_limit_hit)),
            _ => None,
        },
        Err(_) => None,
    };
    let report = execution.end(end).report();
    let name = || initialiser.export.clone();
    if report.output_limit_hit {
        return Ok(Err(failed(report, initialiser)));
    }
    match (kept, status) {
        (Some(Ok(kept)), _) => Ok(Ok(kept)),
        (Some(Err(source)), _) => Err(SnapshotError::Copy {
            name: name(),
            source,
        }
        .into()),
        (None, Some((0, true))) => Err(SnapshotError::Memory {
            name: name(),
            limit: limits.memory,
        }
        .into()),
        (None, Some((status, _))) => Err(SnapshotError::Exited {
            name: name(),
            status,
        }
        .into()),
        (None, None) => Ok(Err(failed(report, initialiser))),
    }
}

/// The report of an initialiser that came to a bad end.
fn failed(mut report: Report, initialiser: &Initialiser) -> Box<Report> {
    report.detail = Some(format!(
        "in the initialiser `{}`: {}",
        initialiser.export,
        report.detail.as_deref().unwrap_or("it ended early"),
    ));
    Box::new(report)
}

/// Whether what a worker says that it left is possible.
fn check(left: &Initialised, types: &[Global], limit: u64) -> Result<(), &'static str> {
    if left.memory > limit || !left.memory.is_multiple_of(pages::WASM_PAGE) {
        return Err("a memory of a size that it can't have");
    }
    if !same_types(&left.globals, types) {
        return Err("globals that are not the module's");
    }
    Ok(())
}

fn copy(pid: i32, left: &Initialised) -> io::Result<Kept> {
    let (runs, pages) = pages::copy(pid, left)?;
    Ok(Kept {
        state: Snapshot {
            memory: left.memory,
            globals: left.globals.clone(),
            runs,
        },
        pages,
    })
}

fn store(directory: &CacheDir, key: &Key, kept: &Kept) -> io::Result<()> {
    let mut description = Vec::new();
    kept.state
        .to_bytes(&mut description)
        .map_err(io::Error::other)?;
    directory.store(KIND, key, &description, Some(&mut whole(&kept.pages)?))
}

fn load(directory: &CacheDir, key: &Key, types: &[Global]) -> io::Result<Kept> {
    let (description, pages) = directory.load(KIND, key)?;
    let pages = pages.ok_or_else(|| bad("there are no pages"))?;
    let state = Snapshot::from_bytes(&description).map_err(|error| bad(&error.to_string()))?;
    let kept = Kept { state, pages };
    if kept.bytes() != rustix::fs::fstat(&kept.pages)?.st_size as u64 {
        return Err(bad("the pages are not those described"));
    }
    if !same_types(&kept.state.globals, types) {
        return Err(bad("the globals are not the module's"));
    }
    Ok(kept)
}

impl Obtained {
    /// The snapshot with the time that making it took, or the report of an
    /// initialiser that failed.
    pub(super) fn kept(self) -> Result<(Arc<Kept>, Option<f64>), Box<Report>> {
        match self {
            Self::Found(kept) => Ok((kept, None)),
            Self::Made(kept, time) => Ok((kept, Some(millis(time)))),
            Self::Failed(report) => Err(report),
        }
    }
}

#[cfg(test)]
mod tests {
    use lazaret_wire::message::PageRun;

    use super::*;

    #[test]
    fn what_no_module_can_leave_is_refused() {
        let types = [Global::I32(0), Global::F64(0)];
        let left = |memory, globals: &[Global]| Initialised {
            memory_at: 0,
            memory,
            globals: globals.to_vec(),
        };
        let good = [Global::I32(7), Global::F64(u64::MAX)];
        assert!(check(&left(2 << 16, &good), &types, 2 << 16).is_ok());
        assert!(check(&left(3 << 16, &good), &types, 2 << 16).is_err());
        assert!(check(&left(4096, &good), &types, 2 << 16).is_err());
        assert!(check(&left(1 << 16, &good[..1]), &types, 2 << 16).is_err());
        let other = [Global::I32(7), Global::I64(7)];
        assert!(check(&left(1 << 16, &other), &types, 2 << 16).is_err());
    }

    #[test]
    fn a_file_is_loaded_only_for_its_module_and_if_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let cache = CacheDir::new(directory.path().to_owned(), 1 << 20);
        let (store, load) = (
            |kept: &Kept| store(&cache, &[7; 32], kept),
            |types: &[Global]| load(&cache, &[7; 32], types),
        );
        let kept = |runs: u64| {
            let file = crate::sealed::memfd().unwrap();
            rustix::fs::ftruncate(&file, 2 * PAGE as u64).unwrap();
            Kept {
                state: Snapshot {
                    memory: 1 << 16,
                    globals: vec![Global::I32(7)],
                    runs: (0..runs).map(|first| PageRun { first, pages: 1 }).collect(),
                },
                pages: crate::sealed::seal(&file).unwrap(),
            }
        };
        store(&kept(2)).unwrap();
        let loaded = load(&[Global::I32(0)]).unwrap();
        assert_eq!(loaded.state, kept(2).state);
        assert!(load(&[Global::I64(0)]).is_err());
        assert!(load(&[]).is_err());
        // A description of other pages than there are.
        store(&kept(1)).unwrap();
        assert!(load(&[Global::I32(0)]).is_err());
    }
}
