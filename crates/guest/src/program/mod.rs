//! Programs: WASI preview 1 commands, run once, on one thread.
//!
//! [`Program::load`] does all that must be done before the worker is locked and
//! stops before the first instruction of the guest, also if the module has a
//! start function. [`Program::run`] then needs the system calls below and no
//! others.
//!
//! # System calls after loading
//!
//! From traces of Wasmtime 48.0.8, its WASI and the GNU C library on x86-64,
//! with CPython going through every file operation; those marked * are not in
//! the traces but in the code, for rarer paths.
//!
//! *Without any grant.*
//! - `mmap` of `PROT_NONE` or `PROT_READ | PROT_WRITE` with exactly
//!   `MAP_PRIVATE | MAP_ANONYMOUS`, also with `MAP_NORESERVE`* or `MAP_STACK`*
//!   (the stack that Wasm runs on, if the module imports nothing; the
//!   allocator). Never with a descriptor.
//! - `mprotect` to `PROT_READ | PROT_WRITE` (`memory.grow`, that stack), or
//!   `PROT_NONE`* (the allocator returning memory).
//! - `munmap`; `mremap` with exactly `MREMAP_MAYMOVE`; `brk`*; `madvise` with
//!   `MADV_DONTNEED`* (the allocator).
//! - `rt_sigreturn` (each trap is a SIGSEGV, SIGILL or SIGFPE), `restart_syscall`*.
//! - `write` to standard output and error; `ppoll` with a null signal mask
//!   (`poll_oneoff`); `close`.
//! - `futex` with `FUTEX_WAKE_PRIVATE` (a lazily initialised static; nobody
//!   waits) and, for host functions, the wire's `FUTEX_WAIT` and `FUTEX_WAKE`*.
//! - `exit_group`*.
//!
//! *Standard input*: `read`.
//!
//! *Clocks*: none; the vDSO reads them. Where it can't (a clock source without
//! it, vdso(7)): `clock_gettime`*, `clock_getres`*. *Random bytes*: `getrandom`
//! with flags 0, or `GRND_INSECURE` (seeds of hash tables).
//!
//! *A directory, read-only.*
//! - `openat2` relative to a descriptor, always `RESOLVE_BENEATH |
//!   RESOLVE_NO_MAGICLINKS`, with `O_RDONLY` or `O_PATH`, `O_LARGEFILE |
//!   O_CLOEXEC`, perhaps `O_DIRECTORY`, `O_NOFOLLOW`, `O_NONBLOCK`*, `O_DSYNC`*,
//!   `O_SYNC`*.
//! - `openat` relative to a descriptor, never `AT_FDCWD`, never `O_CREAT`:
//!   `"."` with `O_DIRECTORY | O_NOFOLLOW` for listing, and single components
//!   with `O_PATH | O_NOFOLLOW` or as in the grant where `openat2` returned
//!   `EPERM` or `ENOSYS`.
//! - `statx` (`AT_EMPTY_PATH`, `AT_SYMLINK_NOFOLLOW`, or 0*); `newfstatat`* and
//!   `fstat`* where `statx` is refused; `readlinkat`; `getdents64`; `pread64`;
//!   `lseek`*; `fcntl` with `F_GETFL` only; `fadvise64`; `fsync`, `fdatasync`.
//!
//! *A directory, writable*: also
//! - `openat2` and `openat`* with `O_WRONLY` or `O_RDWR`, `O_CREAT`, `O_EXCL`,
//!   `O_TRUNC`; `pwrite64`; `pwritev2` with `RWF_APPEND` (it must not be
//!   answered with `ENOSYS`: the fallback is `F_SETFL`); `ftruncate`; `utimensat`
//!   (with a null path, or `AT_SYMLINK_NOFOLLOW`); `mkdirat`, `unlinkat` (0 or
//!   `AT_REMOVEDIR`), `renameat`, `linkat` with flags 0, `symlinkat`;
//!   `faccessat`* and `faccessat2`*.
//! - For times of a file that may be neither read nor written, `openat`* and
//!   `statx`* of `/proc` by `AT_FDCWD`: refuse it with an error, it is no sign
//!   of a break-out.

mod clocks;
mod drive;
mod error;
mod execution;
mod host_function;
mod imports;
mod limiter;
mod poll;
mod snapshot;
mod state;
mod streams;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;

use lazaret_instrument::names;
use lazaret_wire::message::{Exited, Failed, ProgramEnd, ProgramSetup};
use wasmtime::{Engine, ExternType, Module, Store};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::exchange::Exchange;
use crate::trap;
use drive::{Gate, Stop, drive};
pub use error::LoadError;
use execution::START;
use host_function::Line;
pub use imports::{FUNCTIONS, HOST, WASI, provided};
use limiter::Limiter;
use state::State;
use streams::Stream;

type Execution = Pin<Box<dyn Future<Output = Result<Exited, LoadError>> + Send>>;

/// A program that is ready to run: linked and instantiated, but not one of its
/// instructions has run.
pub struct Program {
    execution: Execution,
    gate: Arc<Gate>,
    line: Arc<Line>,
    /// How it ended, if instantiating it did: by a data or element segment
    /// that doesn't fit, which is a trap.
    ended: Option<Exited>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Program {
    /// Loads a program: all that must be done before the worker is locked.
    ///
    /// `artefact` is a module compiled by an engine configured as `engine` is;
    /// `streams` are standard input, output and error; `pages` those of the
    /// snapshot, if the set-up begins from one; `preopens` one directory for
    /// each of the set-up's. The process must ignore SIGPIPE, as Rust's
    /// start-up code does. If there are directories, the working directory of
    /// the process is changed, in the end to `/` if that can be entered.
    ///
    /// # Errors
    ///
    /// A [`LoadError`], in words.
    pub fn load(
        engine: &Engine,
        artefact: &File,
        setup: &ProgramSetup,
        streams: [OwnedFd; 3],
        pages: Option<OwnedFd>,
        preopens: Vec<OwnedFd>,
    ) -> Result<Self, Failed> {
        Ok(Self::try_load(
            engine, artefact, setup, streams, pages, preopens,
        )?)
    }

    fn try_load(
        engine: &Engine,
        artefact: &File,
        setup: &ProgramSetup,
        streams: [OwnedFd; 3],
        pages: Option<OwnedFd>,
        preopens: Vec<OwnedFd>,
    ) -> Result<Self, LoadError> {
        let internal = |error: wasmtime::Error| LoadError::Engine(trap::message(&error));
        // SAFETY: deserialising runs what the artefact says, so it must come
        // from this engine's compiler. The host hands over a file that its
        // compiler made and nobody changes; and should that compiler have been subverted,
        // this process holds nothing but what this one program was given.
        let module = unsafe { crate::engine::load(engine, artefact.as_fd()) }
            .map_err(|error| LoadError::Artefact(trap::message(&error)))?;
        check(&module, setup)?;
        snapshot::check(&module, &setup.beginning)?;
        let mut linker = imports::linker(engine, &setup.host_functions).map_err(internal)?;
        snapshot::restrict(&mut linker, &module, &setup.beginning).map_err(internal)?;
        let module = linker
            .instantiate_pre(&module)
            .map_err(|error| LoadError::ImportTypes(trap::message(&error)))?;

        let line = Arc::new(Line::default());
        let gate = Arc::new(Gate::default());
        let mut store = Store::new(engine, state(setup, streams, preopens, Arc::clone(&line))?);
        store.limiter(|state| &mut state.limiter);
        // One tick of the epoch, if the engine counts them, ends the run.
        store.set_epoch_deadline(1);
        // The alternate signal stack: mapped now, not at the first call.
        Engine::tls_eager_initialize();

        let mut execution: Execution = Box::pin(execution::execute(
            module,
            store,
            Arc::clone(&gate),
            setup.fuel,
            setup.beginning.clone(),
            pages,
        ));
        let ended = match drive(execution.as_mut(), &gate, &line, None) {
            Stop::Gate => None,
            Stop::Done(ended) => Some(ended?),
            Stop::Stuck => {
                return Err(LoadError::Engine(
                    "instantiation waits for nothing".to_owned(),
                ));
            }
        };
        Ok(Self {
            execution,
            gate,
            line,
            ended,
        })
    }

    /// Runs the program to its end. Host functions are called through
    /// `exchange`.
    pub fn run(mut self, exchange: &mut Exchange) -> Exited {
        if let Some(ended) = self.ended {
            return ended;
        }
        self.gate.open();
        let aborted = |reason: String| Exited {
            end: ProgramEnd::Aborted(reason),
            fuel_left: None,
            memory_limit_hit: false,
            peak_memory: 0,
            left: None,
        };
        match drive(
            self.execution.as_mut(),
            &self.gate,
            &self.line,
            Some(exchange),
        ) {
            Stop::Done(Ok(exited)) => exited,
            Stop::Done(Err(error)) => aborted(error.to_string()),
            Stop::Gate | Stop::Stuck => aborted("the program waits for nothing".to_owned()),
        }
    }
}

/// What can be said of a module before it is linked.
fn check(module: &Module, setup: &ProgramSetup) -> Result<(), LoadError> {
    let mut missing: Vec<String> = module
        .imports()
        .filter(|import| {
            let host = import.module() == HOST
                && setup
                    .host_functions
                    .iter()
                    .any(|function| function.name == import.name());
            !host && !provided(import.module(), import.name())
        })
        .map(|import| format!("{}.{}", import.module(), import.name()))
        .collect();
    if !missing.is_empty() {
        missing.sort();
        missing.dedup();
        return Err(LoadError::Imports(missing));
    }
    let command = matches!(
        module.get_export(START),
        Some(ExternType::Func(ty)) if snapshot::is_entry(&ty)
    );
    if !command {
        return Err(LoadError::NoStart {
            reactor: module.get_export("_initialize").is_some(),
        });
    }
    if setup.fuel.is_some() && module.get_export(names::FUEL).is_none() {
        return Err(LoadError::NotMetered);
    }
    Ok(())
}

/// All that the program is given, and nothing else.
fn state(
    setup: &ProgramSetup,
    streams: [OwnedFd; 3],
    preopens: Vec<OwnedFd>,
    line: Arc<Line>,
) -> Result<State, LoadError> {
    let streams = streams.map(Stream::new);
    let [stdin, stdout, stderr] = streams.clone();
    let clocks = clocks::Clocks::start(setup.clock);
    let mut wasi = WasiCtxBuilder::new();
    // Or the engine would start threads for files.
    wasi.allow_blocking_current_thread(true);
    wasi.stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .wall_clock(clocks)
        .monotonic_clock(clocks);
    for argument in &setup.arguments {
        wasi.arg(text("argument", argument)?);
    }
    for variable in &setup.environment {
        let error = |problem| LoadError::Text {
            kind: "the environment variable",
            value: variable.clone(),
            problem,
        };
        let (name, value) = text("the environment variable", variable)?
            .split_once('=')
            .ok_or_else(|| error("has no `=` after its name"))?;
        wasi.env(name, value);
    }
    open_directories(&mut wasi, setup, &preopens)?;
    // Sockets need no word: no address is allowed unless a check is set.
    let limiter = Limiter::new(setup.memory_limit);
    Ok(State {
        wasi: wasi.build_p1(),
        limiter,
        clocks,
        streams,
        line,
    })
}

/// The interface ends each string with a NUL, so none can be within.
fn text<'a>(kind: &'static str, value: &'a str) -> Result<&'a str, LoadError> {
    if value.contains('\0') {
        return Err(LoadError::Text {
            kind,
            value: value.to_owned(),
            problem: "contains a NUL character",
        });
    }
    Ok(value)
}

/// The engine opens directories by path only. A descriptor has none, without
/// `/proc`, but it can become the working directory.
fn open_directories(
    wasi: &mut WasiCtxBuilder,
    setup: &ProgramSetup,
    preopens: &[OwnedFd],
) -> Result<(), LoadError> {
    if preopens.len() != setup.preopens.len() {
        return Err(LoadError::Preopens {
            given: preopens.len(),
            named: setup.preopens.len(),
        });
    }
    for (preopen, descriptor) in setup.preopens.iter().zip(preopens) {
        let error = |error: String| LoadError::Preopen {
            guest: preopen.guest.clone(),
            error,
        };
        let permissions = if preopen.writable {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        let guest = text("the directory name", &preopen.guest)?;
        rustix::process::fchdir(descriptor.as_fd())
            .map_err(|refused| error(refused.to_string()))?;
        wasi.preopened_dir(".", guest, permissions)
            .map_err(|refused| error(trap::message(&refused)))?;
    }
    if !preopens.is_empty() {
        // The root may be one that can't be entered.
        let _ = rustix::process::chdir("/");
    }
    Ok(())
}
