//! `lazaret run`: one program, once, as if it were run without Lazaret.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum, ValueHint};
use lazaret::{
    Clock, CompileError, Ending, Input, Output, Program, Report, RunError, SnapshotError, Verdict,
    WorkerError,
};

use crate::failure::Failure;
use crate::groups::Groups;
use crate::host_options::Wall;
use crate::module_file;
use crate::output;
use crate::values::directory::Directory;
use crate::values::duration::TimeLimit;
use crate::values::environment::Variable;
use crate::values::size::Size;

/// Run a WASI program in a locked process, with only what it is given
///
/// The program's input, output and exit code are its own. Nothing else of this
/// machine reaches it but the directories and variables that are named here.
#[derive(Debug, Args)]
#[command(override_usage = "lazaret run [OPTIONS] <MODULE> [ARGS]...", after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Run {
    /// Grant a directory, under its own path or as GUEST; `:ro` to read only
    #[arg(
        long = "dir",
        value_name = "HOST[::GUEST][:ro]",
        help_heading = "Grants"
    )]
    directories: Vec<Directory>,
    /// Set a variable, or hand on the value that it has here
    #[arg(long = "env", value_name = "K[=V]", help_heading = "Grants")]
    environment: Vec<Variable>,
    /// What the program is told of time: clocks that move on with the kernel's
    /// tick, every 1 to 10 ms, exact ones, or ones that stand still
    #[arg(
        long,
        value_name = "KIND",
        default_value = "coarse",
        help_heading = "Grants"
    )]
    clock: ClockKind,
    /// Standard input from a file
    #[arg(long, value_name = "FILE", help_heading = "Grants")]
    stdin: Option<PathBuf>,
    /// The host user that the program's process is; only root can choose
    #[arg(long, value_name = "UID", help_heading = "Grants")]
    as_user: Option<u32>,
    /// Memory that it may have, such as 64MiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1GiB",
        help_heading = "Limits"
    )]
    memory: Size,
    /// Time that it may take, such as 500ms or 2s
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    time: Option<TimeLimit>,
    /// Processor time that it may take; the kernel counts whole seconds
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    cpu_time: Option<TimeLimit>,
    /// Fuel that it may use: about one an instruction, the same on every machine
    #[arg(long, value_name = "N", help_heading = "Limits")]
    fuel: Option<u64>,
    /// Bytes that it may write to standard output and error together
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    output_limit: Option<Size>,
    /// Begin every run from what this export leaves, which runs only once
    ///
    /// As with Wizer: INIT is an exported function without parameters and
    /// results. It runs once, in a locked process of its own, with the limits of
    /// the run but no grants; its memory and globals are kept beside the
    /// compiled module, and `_start` of every run begins from them. What `_start`
    /// itself does first, such as calling constructors, it does in every run.
    #[arg(long, value_name = "INIT", help_heading = "Snapshot")]
    snapshot_after: Option<String>,
    /// Let INIT call all of WASI, not only write to standard error
    ///
    /// Without it, a call that depends on the outside (clocks, random bytes,
    /// arguments, variables, input, files) is a trap: the snapshot would keep
    /// the answer for all runs. With it, INIT sees the clocks and random bytes of
    /// the run that makes the snapshot, and no arguments, variables or files.
    #[arg(long, requires = "snapshot_after", help_heading = "Snapshot")]
    snapshot_allow_wasi: bool,
    /// Write how it went to a file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where compiled modules and snapshots are kept [default: $XDG_CACHE_HOME/lazaret or ~/.cache/lazaret]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache_dir: Option<PathBuf>,
    /// Keep no compiled module and no snapshot
    #[arg(long)]
    no_cache: bool,
    /// A data directory: what the program's worker does that no worker should
    /// is put on record there, if the directory exists (`lazaret incidents`)
    #[arg(
        long,
        value_name = "DIR",
        env = "LAZARET_DATA",
        default_value = "./lazaret-data"
    )]
    data: PathBuf,
    #[command(flatten)]
    wall: Wall,
    #[command(flatten)]
    groups: Groups,
    /// The program (a .wasm or .wat file, or - for standard input), and its
    /// arguments: all that follows is the program's, whatever it looks like
    // One list: with two, an argument of the program's that is also an option
    // of ours would be ours.
    #[arg(value_name = "MODULE [ARGS]", required = true, trailing_var_arg = true, value_hint = ValueHint::FilePath)]
    command: Vec<OsString>,
}

/// What a program is told of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClockKind {
    /// The kernel's clocks as they are, and with them the cycle counter: fine
    /// enough to time what others leave in the processor's caches
    Exact,
    /// Clocks that move on with the kernel's tick
    Coarse,
    /// Clocks that show when the program was loaded; it can still wait
    Frozen,
}

impl ClockKind {
    /// As the library says it.
    fn kind(self) -> Clock {
        match self {
            Self::Exact => Clock::Exact,
            Self::Coarse => Clock::Coarse,
            Self::Frozen => Clock::Frozen,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  lazaret run --dir ./input::/data:ro --time 10s --memory 256MiB tool.wasm /data/list.csv
  lazaret run --report report.json --fuel 1000000000 untrusted.wasm < input
  lazaret run --snapshot-after wizer.initialize interpreter.wasm script";

const EXIT_CODES: &str = "\
Exit codes: the program's own, or
    1  the host failed
    2  bad usage, or not a module that can be run
  124  time limit (--time, --cpu-time)
  125  fuel limit (--fuel)
  134  trap
  137  killed for memory (--memory, --worker-memory)
  153  output limit (--output-limit)
  159  tried a forbidden system call";

/// The members of a report are those of [`Report`].
const REPORT: &str = "lazaret.report/v1";

impl Run {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        let report = self.reported(false)?;
        Ok(exit_code(&report))
    }

    /// The same, with what the program's calls were.
    pub(super) fn learned(self) -> Result<Report, Failure> {
        self.reported(true)
    }

    /// Runs it, and says how it went where that is wanted.
    fn reported(self, learn: bool) -> Result<Report, Failure> {
        // Opened first: not to be able to say how it went is no way to run it.
        let report = match &self.report {
            Some(path) => Some((
                path.clone(),
                File::create(path).map_err(|source| Failure::WriteFile {
                    path: path.clone(),
                    source,
                })?,
            )),
            None => None,
        };
        let result = self.run(learn);
        if let Some((path, mut file)) = report {
            let bytes = match &result {
                Ok(report) => output::to_json(REPORT, report)?,
                Err(failure) => output::to_json(
                    REPORT,
                    failed(Verdict::HostError, failure, failure.exit_code()),
                )?,
            };
            file.write_all(&bytes)
                .map_err(|source| Failure::WriteFile { path, source })?;
        }
        let report = result?;
        if let Some(detail) = report.detail.as_deref() {
            let words = match words(report.verdict) {
                "" => String::new(),
                words => format!("{words}: "),
            };
            let text = format!("lazaret: {words}{}\n", output::harmless(detail, true));
            match report.verdict {
                // Nobody may be reading: that must not hold the command either.
                Verdict::TimeLimit => output::note_in_time(text),
                _ => output::note(&text),
            }
        }
        Ok(report)
    }

    fn run(self, learn: bool) -> Result<Report, Failure> {
        let module = match module_file::read(self.module()) {
            Ok(module) => module,
            Err(error @ Failure::ReadModule { .. }) => {
                return Ok(failed(Verdict::InvalidModule, &error, error.exit_code()));
            }
            Err(error) => return Err(error),
        };
        let mut builder = self.groups.set(self.wall.builder());
        if let Some(cache) = self.cache() {
            builder = builder.cache_dir(cache);
        }
        if self.data.is_dir() {
            builder = builder.record_incidents(&self.data);
        }
        let host = match builder.build() {
            Ok(host) => host,
            Err(error) => {
                let failure = Failure::from(error);
                return Ok(failed(Verdict::HostError, &failure, failure.exit_code()));
            }
        };
        let program = host.program(module);
        let program = self.prepare(program)?;
        let program = match learn {
            true => program.learn(),
            false => program,
        };
        Ok(match program.run() {
            Ok(report) => report,
            Err(error) => {
                let (verdict, code) = verdict(&error);
                failed(verdict, &error, code)
            }
        })
    }

    fn module(&self) -> &Path {
        self.command
            .first()
            .map_or(Path::new(""), |module| Path::new(module))
    }

    fn prepare(self, program: Program) -> Result<Program, Failure> {
        let name = module_file::program_name(self.module());
        let arguments = self.command.iter().skip(1).map(|argument| {
            argument
                .clone()
                .into_string()
                .map_err(|argument| Failure::ProgramArgument { argument })
        });
        let arguments: Vec<String> = std::iter::once(Ok(name))
            .chain(arguments)
            .collect::<Result<_, _>>()?;
        let stdin = match &self.stdin {
            Some(path) => Input::Descriptor(
                File::open(path)
                    .map_err(|source| Failure::Stdin {
                        path: path.clone(),
                        source,
                    })?
                    .into(),
            ),
            None if module_file::is_stdin(self.module()) => Input::Empty,
            None => Input::Descriptor(own(io::stdin())?),
        };
        let mut program = program
            .arguments(arguments)
            .clock(self.clock.kind())
            .memory(self.memory.0)
            .stdin(stdin)
            .stdout(Output::Descriptor(Arc::new(own(io::stdout())?)))
            .stderr(Output::Descriptor(Arc::new(own(io::stderr())?)));
        for variable in &self.environment {
            program = program.env(&variable.name, &variable.value);
        }
        for directory in self.directories {
            program = program.directory(directory.host, directory.guest, directory.writable);
        }
        if let Some(uid) = self.as_user {
            program = program.as_user(uid);
        }
        if let Some(limit) = self.time {
            program = program.time(limit.0);
        }
        if let Some(limit) = self.cpu_time {
            program = program.cpu_time(limit.0);
        }
        if let Some(fuel) = self.fuel {
            program = program.fuel(fuel);
        }
        if let Some(limit) = self.output_limit {
            program = program.output_limit(limit.0);
        }
        if let Some(initialiser) = self.snapshot_after {
            program = program.snapshot_after(initialiser);
        }
        if self.snapshot_allow_wasi {
            program = program.snapshot_allow_wasi();
        }
        Ok(program)
    }

    /// Where compiled modules are kept (XDG Base Directory Specification: a
    /// relative path in the variable is ignored).
    fn cache(&self) -> Option<PathBuf> {
        if self.no_cache {
            return None;
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        self.cache_dir
            .clone()
            .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("lazaret")))
            .or_else(|| Some(absolute("HOME")?.join(Path::new(".cache/lazaret"))))
    }
}

/// What the command exits with: the program's code as the kernel would give it
/// on, the low eight bits.
pub(super) fn exit_code(report: &Report) -> u8 {
    (report.exit_code & 0xff) as u8
}

/// A descriptor of one of this process's streams.
fn own(stream: impl AsFd) -> Result<std::os::fd::OwnedFd, Failure> {
    stream
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Failure::Stream(error.into()))
}

/// What a program is said to be that never ran.
fn verdict(error: &RunError) -> (Verdict, u8) {
    match error {
        RunError::Module(_)
        | RunError::Snapshot(SnapshotError::Exited { .. } | SnapshotError::Memory { .. })
        | RunError::Compile(CompileError::Invalid(_))
        | RunError::Worker(WorkerError::Setup(_)) => (Verdict::InvalidModule, 2),
        RunError::Compile(CompileError::Ended(Ending::Violation(_) | Ending::Malformed(_))) => {
            (Verdict::Violation, 159)
        }
        error if error.is_usage() => (Verdict::HostError, 2),
        _ => (Verdict::HostError, 1),
    }
}

fn failed(verdict: Verdict, error: &dyn std::error::Error, code: u8) -> Report {
    Report::failed(verdict, code.into(), output::chain(error))
}

/// A verdict, before its detail.
fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Trapped => "trap",
        Verdict::TimeLimit => "time limit",
        Verdict::FuelLimit => "fuel limit",
        Verdict::MemoryLimit => "memory limit",
        Verdict::OutputLimit => "output limit",
        Verdict::Violation => "violation",
        _ => "",
    }
}
