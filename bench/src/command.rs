//! `lazaret run` of a trivial module, the whole process, beside what else
//! starts something small in a box.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Options;
use crate::error::BenchError;
use crate::sample::{MILLISECOND, Sample};
use crate::table::Row;

const HELLO: &str = include_str!("../../tests/fixtures/wat/hello.wat");
/// What it prints.
const PRINTED: &[u8] = b"hello, lazaret\n";

/// The same module under Node's WASI.
const NODE: &str = r#"
const { WASI } = require("node:wasi");
const wasi = new WASI({ version: "preview1" });
const module = new WebAssembly.Module(require("node:fs").readFileSync(process.argv[1]));
wasi.start(new WebAssembly.Instance(module, wasi.getImportObject()));
"#;

const KEYS: [&str; 2] = ["run/bwrap", "run/node"];
const REPETITIONS: usize = 200;

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants_any(&KEYS) {
        return Ok(());
    }
    let directory = options.temporary()?;
    let module = directory.path().join("hello.wasm");
    let wasm = wat::parse_str(HELLO).map_err(|error| BenchError::Program {
        program: "hello.wat".to_owned(),
        message: error.to_string(),
    })?;
    fs::write(&module, wasm).map_err(BenchError::system("writing hello.wasm"))?;
    let ours = lazaret(options).map(|path| {
        let mut command = Command::new(path);
        command.args(["run", "--profile", options.profile.name()]);
        for layer in &options.accept_missing {
            command.args(["--accept-missing", layer.name()]);
        }
        command.arg(&module);
        command
    });
    for (key, (name, theirs)) in KEYS.into_iter().zip([bubblewrap(), node(&module)]) {
        if options.wants(key) {
            progress(&format!("lazaret run of a trivial module, and {name}"));
            rows.push(row(
                options,
                key,
                ours.as_ref().map_err(String::clone).ok(),
                name,
                theirs,
            )?);
        }
    }
    if let Err(reason) = ours {
        rows.iter_mut()
            .filter(|row| KEYS.contains(&row.key.as_str()))
            .for_each(|row| row.notes.push(reason.clone()));
    }
    Ok(())
}

fn row(
    options: &Options,
    key: &str,
    ours: Option<&Command>,
    name: &str,
    theirs: Result<Command, String>,
) -> Result<Row, BenchError> {
    let mut commands = [
        (ours.map(again), Sample::default()),
        (theirs.as_ref().ok().map(again), Sample::default()),
    ];
    // Once before it counts: files come into the page cache, the module into
    // the cache of compiled ones.
    for (command, sample) in &mut commands {
        if let Some(command) = command {
            execute(command, PRINTED)?;
            *sample = Sample::default();
        }
    }
    for _ in 0..options.times(REPETITIONS) {
        for (command, sample) in &mut commands {
            if let Some(command) = command {
                sample.time(|| execute(command, PRINTED))?;
            }
        }
    }
    let [(_, ours), (_, measured)] = commands;
    let row = Row::new(
        key,
        "lazaret run of a trivial cached module, whole process",
        "ms",
    )
    .ours(ours.len(), ours.quantiles(MILLISECOND))
    .baseline(name, measured.quantiles(MILLISECOND));
    Ok(match theirs {
        Ok(_) => row,
        Err(reason) => row.note(reason),
    })
}

/// The same command, to be run again.
pub(crate) fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

/// Runs a command, which must print just this and succeed.
pub(crate) fn execute(command: &mut Command, printed: &[u8]) -> Result<(), BenchError> {
    let fail = |message: String, command: &Command| BenchError::Program {
        program: format!("{command:?}"),
        message,
    };
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| fail(error.to_string(), command))?;
    match output.status.success() && output.stdout == printed {
        true => Ok(()),
        false => Err(fail(
            format!(
                "{}; {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            command,
        )),
    }
}

/// The `lazaret` command, or why there is none.
pub(crate) fn lazaret(options: &Options) -> Result<PathBuf, String> {
    match (&options.command, env::current_exe()) {
        (Some(command), _) => Ok(command.clone()),
        (None, Ok(own)) if own.file_stem().is_some_and(|stem| stem == "lazaret") => Ok(own),
        _ => Err(
            "lazaret run was not measured: this executable is not the lazaret command".to_owned(),
        ),
    }
}

/// An installed program of this name.
fn installed(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// bubblewrap with everything unshared, and a static program that prints the
/// same line.
fn bubblewrap() -> (&'static str, Result<Command, String>) {
    let command = installed("bwrap")
        .ok_or("bwrap is not installed")
        .and_then(|bwrap| {
            let busybox = installed("busybox")
                .ok_or("busybox, the static program to run in bwrap, is not installed")?;
            let mut command = Command::new(bwrap);
            command
                .args(["--unshare-all", "--ro-bind"])
                .arg(&busybox)
                .args(["/busybox", "/busybox", "echo", "hello, lazaret"]);
            // Where it can't run (no namespaces, a busybox that isn't static), it
            // is as good as not installed.
            execute(&mut command, PRINTED)
                .map_err(|_| "bwrap --unshare-all can't run a static busybox here")?;
            Ok(command)
        });
    (
        "bwrap --unshare-all of a static program (busybox echo)",
        command.map_err(str::to_owned),
    )
}

/// Node with the same module.
fn node(module: &Path) -> (&'static str, Result<Command, String>) {
    let command = installed("node")
        .ok_or("node is not installed")
        .and_then(|node| {
            let mut command = Command::new(node);
            command.args(["--no-warnings", "-e", NODE]).arg(module);
            execute(&mut command, PRINTED)
                .map_err(|_| "this version of node has no node:wasi that runs the module")?;
            Ok(command)
        });
    (
        "node running the same module under node:wasi",
        command.map_err(str::to_owned),
    )
}
