//! Programs: one untrusted WASI module, run once in one locked process.

mod report;
mod streams;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazaret_guest::engine;
use lazaret_wall::launcher::{Grants, IdsError, Launcher, LauncherError, LauncherOptions, Limits};
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wire::message::{
    Assignment, CompileSettings, Exited, FromWorker, HostReturn, Preopen, ProgramEnd, ProgramSetup,
    Purpose, ToWorker, Trap, TrapKind,
};
pub use report::{Report, Verdict};
pub use streams::{Input, Output, StreamError};
use thiserror::Error;

use crate::artefact::CompileError;
use crate::ending::Ending;
use crate::host::Inner;
use crate::module::{self, ModuleError};
use crate::worker::{Start, Worker, WorkerError};

/// Why a program could not be run at all. How one ended that ran is a
/// [`Verdict`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The module is no good.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Or can't be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A directory can't be granted.
    #[error("--dir {path}: {reason}")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A stream can't be used.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The launcher.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// The worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl RunError {
    /// Whether the fault is the module's or the caller's rather than the host's.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Module(_)
                | Self::Directory { .. }
                | Self::Stream(_)
                | Self::Compile(CompileError::Invalid(_))
                | Self::Worker(WorkerError::Setup(_))
                | Self::Launcher(LauncherError::Ids(
                    IdsError::NotRoot { .. } | IdsError::Zero
                ))
        )
    }
}

/// A directory for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory {
    host: PathBuf,
    guest: String,
    writable: bool,
}

/// A program to run. Nothing of the host's reaches it but what is given here.
#[derive(Debug)]
pub struct Program {
    host: Arc<Inner>,
    module: Vec<u8>,
    arguments: Vec<String>,
    environment: Vec<String>,
    directories: Vec<Directory>,
    as_user: Option<u32>,
    memory: u64,
    time: Option<Duration>,
    cpu_time: Option<Duration>,
    fuel: Option<u64>,
    output_limit: Option<u64>,
    input: Input,
    output: Output,
    error: Output,
}

/// The default memory limit of a program, in bytes.
pub const DEFAULT_MEMORY: u64 = 1 << 30;

/// How long, after a program's time is over, the rest of its output may take to
/// be read.
const DELIVERY: Duration = Duration::from_millis(500);

/// Room for the worker's own data beside the program's memories, in bytes.
const OWN_DATA: u64 = 512 << 20;
/// Address space beside the memories' own bytes: reservations of 4 GiB each,
/// code, stacks.
const OWN_ADDRESSES: u64 = 32 << 30;

impl Program {
    pub(crate) fn new(host: Arc<Inner>, module: Vec<u8>) -> Self {
        Self {
            host,
            module,
            arguments: vec!["program".into()],
            environment: Vec::new(),
            directories: Vec::new(),
            as_user: None,
            memory: DEFAULT_MEMORY,
            time: None,
            cpu_time: None,
            fuel: None,
            output_limit: None,
            input: Input::Empty,
            output: Output::Discard,
            error: Output::Discard,
        }
    }

    /// All arguments; the first is the program's name.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// A directory of the host's, under a path of the guest's.
    #[must_use]
    pub fn directory(
        mut self,
        host: impl Into<PathBuf>,
        guest: impl Into<String>,
        writable: bool,
    ) -> Self {
        self.directories.push(Directory {
            host: host.into(),
            guest: guest.into(),
            writable,
        });
        self
    }

    /// The host user that the worker runs as; root only.
    #[must_use]
    pub fn as_user(mut self, uid: u32) -> Self {
        self.as_user = Some(uid);
        self
    }

    /// Bytes that all its memories and tables may have together.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Wall-clock time from its start.
    #[must_use]
    pub fn time(mut self, limit: Duration) -> Self {
        self.time = Some(limit);
        self
    }

    /// Processor time; the kernel counts in seconds, so it is rounded up.
    #[must_use]
    pub fn cpu_time(mut self, limit: Duration) -> Self {
        self.cpu_time = Some(limit);
        self
    }

    /// Fuel: deterministic, the same everywhere. A metered module is compiled
    /// anew and runs a little slower.
    #[must_use]
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.fuel = Some(fuel);
        self
    }

    /// Bytes that it may write to standard output and error together.
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.output_limit = Some(bytes);
        self
    }

    /// Standard input.
    #[must_use]
    pub fn stdin(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Standard output.
    #[must_use]
    pub fn stdout(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Standard error.
    #[must_use]
    pub fn stderr(mut self, output: Output) -> Self {
        self.error = output;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Result<Report, RunError> {
        let wasm = module::binary(self.module)?;
        let host = self.host;
        let info = module::inspect(&wasm, Purpose::Program, &host.functions.names())?;
        if info.memory_minimum > self.memory {
            return Err(ModuleError::Memory {
                minimum: info.memory_minimum,
                limit: self.memory,
            }
            .into());
        }
        let (artefact, compile_time) = host.compile(
            &wasm,
            CompileSettings {
                purpose: Purpose::Program,
                metered: self.fuel.is_some(),
                cards: false,
            },
        )?;
        drop(wasm);

        let started = Instant::now();
        let (launcher, directories) = grants(&host, &self.directories, self.as_user)?;
        let streams = streams::connect(self.input, self.output, self.error, self.output_limit)?;
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![artefact.file.as_fd()];
        descriptors.extend(streams.worker_ends().map(|end| end.as_fd()));
        descriptors.extend(directories.iter().map(AsFd::as_fd));
        let cpu_seconds = self
            .cpu_time
            .map(|limit| limit.as_secs() + u64::from(limit.subsec_nanos() > 0));
        let (mut worker, _, _) = Worker::start(Start {
            launcher: &launcher,
            limits: Limits {
                address_space: self.memory.saturating_add(OWN_ADDRESSES),
                data: self.memory.saturating_add(OWN_DATA),
                descriptors: 256,
                file: if self.directories.iter().any(|directory| directory.writable) {
                    u64::MAX
                } else {
                    0
                },
                cpu_seconds,
                stack: engine::NATIVE_STACK,
            },
            assignment: Assignment::Program(ProgramSetup {
                arguments: self.arguments,
                environment: self.environment,
                preopens: self
                    .directories
                    .iter()
                    .map(|directory| Preopen {
                        guest: directory.guest.clone(),
                        writable: directory.writable,
                    })
                    .collect(),
                memory_limit: self.memory,
                fuel: self.fuel,
                host_functions: host.functions.names(),
            }),
            descriptors: &descriptors,
            open: Open {
                fixed: &[0, 1, 2],
                directories: self.directories.len(),
            },
            accepted: &host.options.accept_missing,
            tracked: false,
        })
        .map_err(|error| refused(error, &self.directories, launcher.first_host_uid()))?;
        drop(descriptors);
        let spawn_time = started.elapsed();
        let relays = streams.start().map_err(StreamError::from)?;

        let ran = Instant::now();
        worker.send(&ToWorker::Start)?;
        let limit = self.time.unwrap_or(Duration::MAX);
        let end = loop {
            let left = limit.saturating_sub(ran.elapsed());
            match worker.wait(left) {
                Ok(FromWorker::Exited(exited)) => break Ok(exited),
                Ok(FromWorker::HostCall(call)) => {
                    let result = host.functions.call(call.function, &call.argument);
                    if let Err(error) = worker.send(&ToWorker::HostReturn(HostReturn { result })) {
                        break Err(worker.malformed(&error.to_string()));
                    }
                }
                Ok(_) => break Err(worker.malformed("neither an end nor a host call")),
                Err(Ending::Deadline(_)) => break Err(Ending::Deadline(limit)),
                Err(ending) => break Err(ending),
            }
        };
        let wall_time = ran.elapsed();
        let usage = worker.end();
        // The kernel ends who is over its processor time by SIGXCPU, which pid 1
        // of a namespace ignores, and a second later by SIGKILL.
        let end = match (end, self.cpu_time, usage) {
            (Err(Ending::Signal(libc::SIGKILL)), Some(limit), Some(usage))
                if Duration::from_micros(usage.user_us + usage.system_us) >= limit =>
            {
                Err(Ending::CpuTime)
            }
            (end, ..) => end,
        };
        // Whoever reads the output can't hold a program past its time.
        let now = Instant::now();
        let until = match (&end, self.time) {
            (Err(Ending::Deadline(_) | Ending::CpuTime), _) => now.checked_add(DELIVERY),
            (_, Some(limit)) => ran
                .checked_add(limit)
                .and_then(|end| end.max(now).checked_add(DELIVERY)),
            (_, None) => None,
        };
        let output = relays.finish(until);
        let (verdict, exit_code, detail) = match end {
            Ok(_) if output.unread => (
                Verdict::TimeLimit,
                124,
                Some(format!(
                    "it ended, but its output was not read within its limit of {limit:?}"
                )),
            ),
            _ => verdict(&end, output.limit_hit),
        };
        let exited = end.ok();
        Ok(Report {
            verdict,
            exit_code,
            detail,
            wall_ms: millis(wall_time),
            cpu_ms: usage.map_or(0.0, |usage| {
                (usage.user_us + usage.system_us) as f64 / 1000.0
            }),
            peak_memory_bytes: exited.as_ref().map_or(0, |exited| exited.peak_memory),
            peak_resident_bytes: usage.map_or(0, |usage| usage.peak_resident),
            memory_limit_hit: exited
                .as_ref()
                .is_some_and(|exited| exited.memory_limit_hit),
            fuel_used: exited
                .as_ref()
                .and_then(|exited| Some(self.fuel? - exited.fuel_left?.min(self.fuel?))),
            compile_ms: compile_time.map(millis),
            spawn_ms: millis(spawn_time),
            output_bytes: output.bytes,
            output_limit_hit: output.limit_hit,
            tier: "process",
            receipt: Some(worker.receipt().clone()),
        })
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What an end means, what `lazaret run` exits with, and a line for people.
fn verdict(end: &Result<Exited, Ending>, output_limit_hit: bool) -> (Verdict, i32, Option<String>) {
    let trapped = |trap: &Trap| {
        let mut text = trap.message.clone();
        if !trap.backtrace.is_empty() {
            text.push('\n');
            text.push_str(trap.backtrace.trim_end());
        }
        Some(text)
    };
    match end {
        _ if output_limit_hit => (
            Verdict::OutputLimit,
            153,
            Some("the output limit was reached".into()),
        ),
        Ok(exited) => match &exited.end {
            ProgramEnd::Exit(code) => (Verdict::Exited, *code as i32, None),
            ProgramEnd::Trap(trap) if trap.kind == TrapKind::Fuel => {
                (Verdict::FuelLimit, 125, trapped(trap))
            }
            ProgramEnd::Trap(trap) if exited.memory_limit_hit => (
                Verdict::MemoryLimit,
                137,
                trapped(trap).map(|text| format!("refused memory over its limit, then {text}")),
            ),
            ProgramEnd::Trap(trap) => (Verdict::Trapped, 134, trapped(trap)),
            ProgramEnd::Aborted(reason) => (Verdict::HostError, 1, Some(reason.clone())),
        },
        Err(ending) => {
            let (verdict, code) = match ending {
                Ending::Deadline(_) | Ending::CpuTime => (Verdict::TimeLimit, 124),
                Ending::Violation | Ending::Malformed(_) | Ending::Exited(_) => {
                    (Verdict::Violation, 159)
                }
                Ending::OutOfMemory { .. } | Ending::Signal(libc::SIGKILL) => {
                    (Verdict::MemoryLimit, 137)
                }
                _ => (Verdict::HostError, 1),
            };
            let text = match ending {
                Ending::Deadline(limit) => {
                    format!("it ran longer than its limit of {limit:?} and was killed")
                }
                ending => ending.to_string(),
            };
            (verdict, code, Some(text))
        }
    }
}

/// A worker that could not open a directory was refused it for its user id: the
/// error says which that is, and what to do.
fn refused(error: WorkerError, directories: &[Directory], uid: u32) -> RunError {
    let WorkerError::Setup(text) = &error else {
        return error.into();
    };
    match directories.iter().find(|directory| {
        text.contains(&format!(
            "the directory for {:?} can't be opened",
            directory.guest
        ))
    }) {
        Some(directory) => RunError::Directory {
            path: directory.host.clone(),
            reason: format!(
                "{text}; the worker runs as uid {uid} on the host: let that user read it (chmod, setfacl), or as root choose another (--as-user UID) or none"
            ),
        },
        None => error.into(),
    }
}

/// The launcher for a program, and the directories for its worker.
fn grants(
    host: &Inner,
    directories: &[Directory],
    as_user: Option<u32>,
) -> Result<(Arc<Launcher>, Vec<OwnedFd>), RunError> {
    if directories.is_empty() && as_user.is_none() {
        return Ok((host.launcher()?, Vec::new()));
    }
    for directory in directories {
        let fail = |reason: String| RunError::Directory {
            path: directory.host.clone(),
            reason,
        };
        match std::fs::metadata(&directory.host) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(fail(
                    "it is not a directory; grant the directory that contains it".into(),
                ));
            }
            Err(error) => return Err(fail(error.to_string())),
        }
        // With the effective ids, as the launcher will open it.
        let access = rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK;
        if let Err(errno) = rustix::fs::accessat(
            rustix::fs::CWD,
            &directory.host,
            access,
            rustix::fs::AtFlags::EACCESS,
        ) {
            let uid = rustix::process::geteuid().as_raw();
            return Err(fail(format!(
                "{}; this process is uid {uid}: let that user read it (chmod, setfacl)",
                io::Error::from(errno)
            )));
        }
    }
    let grants: Vec<Grants> = directories
        .iter()
        .map(|directory| Grants {
            path: directory.host.clone(),
            writable: directory.writable,
        })
        .collect();
    let root = rustix::process::geteuid().is_root();
    let options = LauncherOptions {
        as_user,
        directories: if root { Vec::new() } else { grants.clone() },
        ..host.launcher_options()
    };
    let launcher = Arc::new(Launcher::start(&options)?);
    let opened = if root {
        lazaret_wall::grants::open_as_root(&grants, launcher.first_host_uid(), as_user.is_some())
            .map_err(|error| RunError::Directory {
                path: error.path.clone(),
                reason: error.to_string(),
            })?
    } else {
        launcher
            .directories()
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| RunError::Directory {
                path: PathBuf::new(),
                reason: error.to_string(),
            })?
    };
    Ok((launcher, opened))
}
