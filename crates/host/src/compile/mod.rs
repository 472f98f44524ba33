//! Compiling: in a locked process that is used once, kept by content and settings,
//! shared read-only by every worker of the module.
//!
//! What a compiler wrote is as hostile as the module was. The host never loads
//! it; it hands it to workers, which are locked as the compiler was.

mod artefact;
mod cache;

pub(crate) use artefact::Artefact;
pub(crate) use cache::Cache;

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use lazaret_guest::engine;
use lazaret_wall::launcher::Limits;
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wall::{Grade, Layer};
use lazaret_wire::message::{
    Assignment, Compile, CompileSettings, Compiled, FromWorker, Refused, ToWorker,
};
use thiserror::Error;

use crate::ending::Ending;
use crate::launchers::Launchers;
use crate::measures::MeasureOptions;
use crate::sealed::{memfd, seal};
use crate::supervisor::Supervisor;
use crate::worker::{Duty, Start, Worker, WorkerError};

/// Why a module could not be compiled or its artefact not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The module is no good.
    #[error("the module is not valid here: {0}")]
    Invalid(String),
    /// It could not be compiled this time, which may be no fault of its own. Worth another
    /// try.
    #[error("{0}; try again")]
    Failed(String),
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
    /// Memory for the artefact.
    #[error("artefact: {0}")]
    Memfd(#[source] io::Error),
}

impl CompileError {
    /// Whether the same may succeed later, as nothing is wrong with the module.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed(_) => true,
            Self::Ended(ending) => ending.was_not_its_own(),
            Self::Worker(error) => error.was_killed(),
            _ => false,
        }
    }
}

impl From<Refused> for CompileError {
    fn from(refused: Refused) -> Self {
        match refused.of_module {
            true => Self::Invalid(refused.reason),
            false => Self::Failed(refused.reason),
        }
    }
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
        meanwhile: &mut || {},
    })?;
    worker.send(&ToWorker::Compile(Compile { settings }))?;
    let made = match worker.wait(limits.time) {
        Ok(FromWorker::Compiled(Compiled { result: Ok(made) })) => made,
        Ok(FromWorker::Compiled(Compiled {
            result: Err(refused),
        })) => return Err(refused.into()),
        Ok(_) => {
            return Err(CompileError::Ended(
                worker.malformed("neither an artefact nor a reason"),
            ));
        }
        Err(Ending::Deadline(limit)) => return Err(CompileError::Time(limit)),
        Err(Ending::OutOfMemory {
            text,
            of_host: true,
        }) => return Err(CompileError::Failed(format!("compiler: {text}"))),
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
