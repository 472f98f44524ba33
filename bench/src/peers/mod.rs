//! What others need for the same: a trivial module, or a trivial static program, from
//! an empty command line to the printed line, whole processes; and a large module.
//!
//! Whatever isn't installed, or doesn't work here, is left out, and its row says why.

mod containers;
mod engines;
mod large;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Options;
use crate::command::{again, execute, lazaret};
use crate::error::BenchError;
use crate::machine::Machine;
use crate::sample::{MILLISECOND, Sample};
use crate::table::{Row, Table, Target};

const HELLO: &str = include_str!("../../../tests/fixtures/wat/hello.wat");
/// What it prints, and what every peer prints.
const LINE: &str = "hello, lazaret";
/// A line of it.
const PRINTED: &[u8] = b"hello, lazaret\n";

/// How often each is run.
const REPETITIONS: usize = 200;

/// Somebody who runs something small.
struct Peer {
    key: &'static str,
    name: String,
    /// What to run, or why it can't be.
    command: Result<Command, String>,
    target: Option<Target>,
}

impl Peer {
    fn new(key: &'static str, name: &str, command: Result<Command, String>) -> Self {
        let name = name.to_owned();
        // What doesn't work here is as good as not installed.
        let command = command.and_then(|mut command| match execute(&mut command, PRINTED) {
            Ok(()) => Ok(command),
            Err(error) => Err(format!("{name} doesn't work here: {error}")),
        });
        Self {
            key,
            name,
            command,
            target: Some(Target::Ratio(1.0)),
        }
    }

    fn target(mut self, ratio: f64) -> Self {
        self.target = Some(Target::Ratio(ratio));
        self
    }

    fn no_target(mut self) -> Self {
        self.target = None;
        self
    }
}

/// What every peer is made from.
struct Materials {
    directory: tempfile::TempDir,
    /// The module, binary.
    module: PathBuf,
}

impl Materials {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Measures `lazaret run` beside others that run something as small. `progress` is told
/// what comes next, in a few words.
///
/// # Errors
/// If the command can't be run. A peer that isn't installed is no error: its row says
/// so in its notes.
pub fn peers(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Table, BenchError> {
    let machine = Machine::look();
    let directory = options.temporary()?;
    let module = directory.path().join("hello.wasm");
    let wasm = wat::parse_str(HELLO).map_err(|error| BenchError::Program {
        program: "hello.wat".to_owned(),
        message: error.to_string(),
    })?;
    fs::write(&module, wasm).map_err(BenchError::system("writing hello.wasm"))?;
    let materials = Materials { directory, module };
    let ours = lazaret(options).map(|path| {
        let mut command = Command::new(path);
        command.args(["run", "--profile", options.profile.name()]);
        for layer in &options.accept_missing {
            command.args(["--accept-missing", layer.name()]);
        }
        command.arg("--cache-dir").arg(materials.path("cache"));
        command.arg(&materials.module);
        command
    });
    type Make = fn(&Materials) -> Peer;
    let all: [(&str, Make); 7] = [
        ("peers/wasmtime", engines::wasmtime),
        ("peers/wasmtime-bwrap", engines::wasmtime_in_bwrap),
        ("peers/node", engines::node),
        ("peers/bwrap", containers::bwrap),
        ("peers/crun", containers::crun),
        ("peers/runsc", containers::runsc),
        ("peers/wasmtime-runsc", engines::wasmtime_in_runsc),
    ];
    let mut rows = Vec::new();
    for (key, make) in all {
        if !options.wants(key) {
            continue;
        }
        progress(&format!("lazaret run, and {key}"));
        rows.push(row(options, ours.as_ref(), make(&materials))?);
    }
    large::rows(options, progress, &mut rows)?;
    Ok(Table { machine, rows })
}

fn row(options: &Options, ours: Result<&Command, &String>, peer: Peer) -> Result<Row, BenchError> {
    let mut commands = [
        (ours.ok().map(again), Sample::default()),
        (peer.command.as_ref().ok().map(again), Sample::default()),
    ];
    // Once before it counts: files come into the page cache, the module into
    // the cache of compiled ones.
    for (command, _) in &mut commands {
        if let Some(command) = command {
            execute(command, PRINTED)?;
        }
    }
    for _ in 0..options.times(REPETITIONS) {
        for (command, sample) in &mut commands {
            if let Some(command) = command {
                sample.time(|| execute(command, PRINTED))?;
            }
        }
    }
    let [(_, sample), (_, measured)] = commands;
    let mut row = Row::new(
        peer.key,
        "lazaret run of a trivial cached module, whole process",
        "ms",
    )
    .ours(sample.len(), sample.quantiles(MILLISECOND))
    .baseline(&peer.name, measured.quantiles(MILLISECOND));
    if let Some(target) = peer.target {
        row = row.target(target);
    }
    for reason in [ours.err().cloned(), peer.command.err()]
        .into_iter()
        .flatten()
    {
        row = row.note(reason);
    }
    Ok(row)
}

/// An installed program of this name.
fn installed(name: &str) -> Result<PathBuf, String> {
    env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}

/// A program that needs no other file.
fn busybox() -> Result<PathBuf, String> {
    installed("busybox").map_err(|reason| format!("{reason}: the static program to run"))
}

/// bubblewrap with nothing shared and nothing but these files, which are where they are
/// outside.
fn bwrap_around(files: &[&Path]) -> Result<Command, String> {
    let mut command = Command::new(installed("bwrap")?);
    command.args(["--unshare-all", "--die-with-parent"]);
    for file in files {
        command.arg("--ro-bind").args([file, file]);
    }
    Ok(command)
}

/// gVisor around a command that sees the files of this machine.
fn runsc_around() -> Result<Command, String> {
    let mut command = Command::new(installed("runsc")?);
    // Of its platforms the one that works in any virtual machine.
    command.args(["--platform=ptrace", "--network=none"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--rootless");
    }
    command.arg("do");
    Ok(command)
}
