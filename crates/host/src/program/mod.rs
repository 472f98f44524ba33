//! Programs: one untrusted WASI module, run once in one locked process.
//!
//! [`Program`] says what to run; [`execution`] runs it in a worker. With an
//! initialiser ([`Program::snapshot_after`]) that worker begins from a
//! [`snapshot`], made by a worker of its own if there is none yet.

mod error;
mod execution;
mod grants;
mod learned;
mod module;
mod report;
mod snapshot;
mod streams;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lazaret_wall::policy::Uses;
use lazaret_wire::message::{Beginning, Clock, CompileSettings, Initialiser, Purpose};

pub use error::RunError;
use execution::{Execution, Plan, RunLimits, millis};
use grants::{Directory, Granting};
pub(crate) use learned::Lessons;
pub use learned::{Learned, UnusedCall, UsedCall, UsedDirectory};
pub use module::Module;
use module::Source;
pub use report::{Report, SnapshotUse, Verdict};
use snapshot::Making;
pub use snapshot::SnapshotError;
pub(crate) use snapshot::Snapshots;
pub use streams::{Input, Output, StreamError};

use crate::host::Inner;
use crate::module::ModuleError;

/// A program to run. Nothing of the host's reaches it but what is given here.
#[derive(Debug)]
pub struct Program {
    host: Arc<Inner>,
    source: Source,
    arguments: Vec<String>,
    environment: Vec<String>,
    directories: Vec<Directory>,
    as_user: Option<u32>,
    clock: Clock,
    limits: RunLimits,
    snapshot_after: Option<String>,
    snapshot_allow_wasi: bool,
    learn: bool,
    input: Input,
    output: Output,
    error: Output,
}

/// The default memory limit of a program, in bytes.
pub const DEFAULT_MEMORY: u64 = 1 << 30;

impl Program {
    /// A module that is read when it is run.
    pub(crate) fn of_bytes(host: Arc<Inner>, bytes: Vec<u8>) -> Self {
        Self::new(host, Source::Bytes(bytes))
    }

    fn new(host: Arc<Inner>, source: Source) -> Self {
        Self {
            host,
            source,
            arguments: vec!["program".into()],
            environment: Vec::new(),
            directories: Vec::new(),
            as_user: None,
            clock: Clock::Coarse,
            limits: RunLimits {
                memory: DEFAULT_MEMORY,
                time: None,
                cpu_time: None,
                fuel: None,
                output: None,
            },
            snapshot_after: None,
            snapshot_allow_wasi: false,
            learn: false,
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

    /// What it is told of time: [`Clock::Coarse`] if not set, whose clocks move
    /// on every 1 to 10 ms. With exact clocks its worker can read the cycle
    /// counter too, and time what others leave in the processor's caches.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Bytes that all its memories and tables may have together.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory = bytes;
        self
    }

    /// Wall-clock time from its start.
    #[must_use]
    pub fn time(mut self, limit: Duration) -> Self {
        self.limits.time = Some(limit);
        self
    }

    /// Processor time; the kernel counts in seconds, so it is rounded up.
    #[must_use]
    pub fn cpu_time(mut self, limit: Duration) -> Self {
        self.limits.cpu_time = Some(limit);
        self
    }

    /// Fuel: deterministic, the same everywhere. A metered module is compiled
    /// anew and runs a little slower.
    #[must_use]
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.limits.fuel = Some(fuel);
        self
    }

    /// Bytes that it may write to standard output and error together.
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.limits.output = Some(bytes);
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

    /// Begins every run from what the export `initialiser` leaves, a function
    /// without parameters and results. It runs once for each module, with fuel
    /// counted and without, in a locked process of its own. What it leaves in
    /// memory and globals is kept beside the compiled module, and `_start` of
    /// every run begins from a copy of that.
    ///
    /// It has the limits of the run, each to itself, but no directories,
    /// arguments, variables, input or host functions, and what it prints goes
    /// to standard error. Of WASI it may call nothing else unless
    /// [`snapshot_allow_wasi`](Self::snapshot_allow_wasi) says so. If it traps
    /// or reaches a limit, [`run`](Self::run) reports that, and `_start` doesn't
    /// run.
    ///
    /// `_start` does all that it does otherwise. A toolchain whose `_start`
    /// calls constructors first calls them again, in a memory in which they have
    /// run: such a program has to be built for this, as for Wizer.
    #[must_use]
    pub fn snapshot_after(mut self, initialiser: impl Into<String>) -> Self {
        self.snapshot_after = Some(initialiser.into());
        self
    }

    /// Lets the initialiser call all of WASI. The snapshot then keeps what it
    /// was told, the time and random bytes among it, for all runs; files that
    /// it opens are not part of the snapshot.
    #[must_use]
    pub fn snapshot_allow_wasi(mut self) -> Self {
        self.snapshot_allow_wasi = true;
        self
    }

    /// Learns which system calls and files it really uses
    /// ([`Report::learned`]). It may do what it may otherwise, and no more; but
    /// it is the host that decides on each call, so the wall counts as one
    /// without a filter, and each call costs tens of microseconds.
    #[must_use]
    pub fn learn(mut self) -> Self {
        self.learn = true;
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it can't be run; how it ended is in the report.
    pub fn run(self) -> Result<Report, RunError> {
        self.run_to_end().map_err(RunError::or_shortage)
    }

    fn run_to_end(self) -> Result<Report, RunError> {
        let host = self.host;
        // It gets ready while the module is looked at. What is wrong with that is told first.
        let mut granting = Some(Granting::begin(&host, &self.directories, self.as_user));
        let module = self.source.read(&host)?;
        let info = &module.info;
        if info.memory_minimum > self.limits.memory {
            return Err(ModuleError::Memory {
                minimum: info.memory_minimum,
                limit: self.limits.memory,
            }
            .into());
        }
        let uses = match (self.clock, info.uses()) {
            (Clock::Exact, uses) if uses.any(Uses::CLOCKS) => uses.with(Uses::EXACT_CLOCKS),
            (_, uses) => uses,
        };
        let initialiser = self.snapshot_after.map(|export| Initialiser {
            export,
            allow_wasi: self.snapshot_allow_wasi,
        });
        let settings = CompileSettings {
            purpose: Purpose::Program,
            metered: self.limits.fuel.is_some(),
            cards: false,
            snapshot: initialiser.is_some(),
        };
        // A compiler may take minutes, and an initialiser; nobody else could use a launcher of
        // its own meanwhile.
        if initialiser.is_some() || !host.cache.may_have(&module.hash, settings) {
            // Nor is what is in the way now what is in the way then.
            granting = granting.filter(|granting| matches!(granting, Ok(Granting::Nothing)));
        }
        let (artefact, compile_time) = host.compile(&module.wasm, module.hash, settings)?;
        // It may be large, and is needed no more.
        drop(module);
        let compile_ms = compile_time.map(millis);
        let snapshot = match &initialiser {
            None => None,
            Some(initialiser) => {
                let making = Making {
                    host: &host,
                    artefact: &artefact,
                    uses,
                    limits: self.limits,
                    as_user: self.as_user,
                    clock: self.clock,
                    initialiser,
                    error: self.error.clone(),
                };
                match host.snapshots.get(making)?.kept() {
                    Ok(kept) => Some(kept),
                    Err(report) => {
                        return Ok(Report {
                            compile_ms,
                            ..*report
                        });
                    }
                }
            }
        };

        let kept = snapshot.as_ref().map(|(kept, _)| kept);
        let mut execution = Execution::start(Plan {
            host: &host,
            artefact: &artefact,
            limits: self.limits,
            granting: match granting {
                Some(granting) => granting?,
                None => Granting::begin(&host, &self.directories, self.as_user)?,
            },
            directories: &self.directories,
            arguments: self.arguments,
            environment: self.environment,
            uses,
            learn: self.learn,
            clock: self.clock,
            beginning: kept.map_or(Beginning::Fresh, |kept| {
                Beginning::Snapshot(kept.state.clone())
            }),
            pages: kept.map(|kept| &kept.pages),
            input: self.input,
            output: self.output,
            error: self.error,
        })?;
        let end = execution.wait(&host.functions);
        let report = execution.end(end).report();
        let snapshot_ms = snapshot.as_ref().and_then(|(_, time)| *time);
        Ok(Report {
            compile_ms,
            snapshot: kept.map(|_| match snapshot_ms {
                Some(_) => SnapshotUse::Made,
                None => SnapshotUse::Used,
            }),
            snapshot_ms,
            snapshot_bytes: kept.map(|kept| kept.bytes()),
            ..report
        })
    }
}
