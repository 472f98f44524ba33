//! A large module: compiled, and loaded when it was compiled before.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazaret::{Builder, Host, Input, Output};

use super::{HELLO, installed};
use crate::Options;
use crate::command::run;
use crate::error::BenchError;
use crate::sample::{MILLISECOND, Sample};
use crate::table::{Row, Target};

/// How often it is compiled.
const COMPILES: usize = 5;
/// How often it is loaded.
const LOADS: usize = 50;

const KEYS: [&str; 2] = ["peers/large/compile", "peers/large/load"];

pub(super) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants_any(&KEYS) {
        return Ok(());
    }
    let given = match &options.module {
        Some(path) => Ok(Large::read(path)?),
        None => Err("no large module was given (--module)".to_owned()),
    };
    let directory = options.temporary()?;
    for (key, measure) in [(KEYS[0], compile as Measure), (KEYS[1], load as Measure)] {
        if !options.wants(key) {
            continue;
        }
        progress(key);
        rows.push(measure(options, given.as_ref(), directory.path())?.build(key));
    }
    Ok(())
}

type Measure = fn(&Options, Result<&Large, &String>, &Path) -> Result<Found, BenchError>;

/// A module from outside.
struct Large {
    path: PathBuf,
    wasm: Vec<u8>,
}

impl Large {
    fn read(path: &Path) -> Result<Self, BenchError> {
        let bytes = std::fs::read(path).map_err(BenchError::system("reading the module"))?;
        let wasm = lazaret::binary(bytes).map_err(|error| BenchError::Program {
            program: path.display().to_string(),
            message: error.to_string(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            wasm,
        })
    }

    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        let mib = self.wasm.len() as f64 / f64::from(1 << 20);
        format!("{} ({mib:.1} MiB)", name.to_string_lossy())
    }
}

/// What was measured for a row.
struct Found {
    what: String,
    ours: Sample,
    baseline: &'static str,
    theirs: Sample,
    target: Option<Target>,
    notes: Vec<String>,
}

impl Found {
    fn build(self, key: &str) -> Row {
        let mut row = Row::new(key, self.what, "ms")
            .ours(self.ours.len(), self.ours.quantiles(MILLISECOND))
            .baseline(self.baseline, self.theirs.quantiles(MILLISECOND));
        if let Some(target) = self.target {
            row = row.target(target);
        }
        for note in self.notes {
            row = row.note(note);
        }
        row
    }
}

/// A host whose programs say nothing, with its cache here.
fn host(options: &Options, cache: &Path) -> Result<Host, BenchError> {
    Ok(Builder::cache_dir(options.host(), cache).build()?)
}

/// Runs a module, whatever becomes of it: how long it took from when it was read and hashed
/// until its code ran, and how much of that it was compiled.
fn start(host: &Host, wasm: &[u8]) -> Result<(Duration, Option<f64>), BenchError> {
    let fail = |message: String| BenchError::Program {
        program: "the module".to_owned(),
        message,
    };
    let module = host.module(wasm).map_err(|error| fail(error.to_string()))?;
    let begin = Instant::now();
    let report = module
        .program()
        // Most print that and end.
        .arguments(["program", "--version"])
        .stdin(Input::Empty)
        .stdout(Output::Buffer(Arc::default()))
        .stderr(Output::Buffer(Arc::default()))
        .run()
        .map_err(|error| fail(error.to_string()))?;
    let whole = begin.elapsed();
    let ran = Duration::from_secs_f64(report.wall_ms / 1000.0);
    Ok((whole.saturating_sub(ran), report.compile_ms))
}

fn compile(
    options: &Options,
    large: Result<&Large, &String>,
    directory: &Path,
) -> Result<Found, BenchError> {
    let mut found = Found {
        what: "a large module, compiled behind its wall".to_owned(),
        ours: Sample::default(),
        baseline: "wasmtime compile of the same, whole process, in no sandbox",
        theirs: Sample::default(),
        target: None,
        notes: Vec::new(),
    };
    let large = match large {
        Ok(large) => large,
        Err(reason) => {
            found.notes.push(reason.clone());
            return Ok(found);
        }
    };
    found.what = format!("{}, compiled behind its wall", large.name());
    let wasmtime = installed("wasmtime");
    for repetition in 0..options.times(COMPILES).min(COMPILES) {
        let cache = directory.join(format!("compile-{repetition}"));
        let (_, compiled) = start(&host(options, &cache)?, &large.wasm)?;
        if let Some(time) = compiled {
            found.ours.push(Duration::from_secs_f64(time / 1000.0));
        }
        if let Ok(wasmtime) = &wasmtime {
            let mut command = Command::new(wasmtime);
            command.arg("compile").arg(&large.path);
            command.arg("-o").arg(directory.join("large.cwasm"));
            found.theirs.time(|| run(&mut command))?;
        }
    }
    found.notes.extend(wasmtime.err());
    Ok(found)
}

fn load(
    options: &Options,
    large: Result<&Large, &String>,
    directory: &Path,
) -> Result<Found, BenchError> {
    let mut found = Found {
        what: "a large module that was compiled before, from its hash to its first instruction"
            .to_owned(),
        ours: Sample::default(),
        baseline: "the same of a trivial module",
        theirs: Sample::default(),
        target: Some(Target::Value(5.0)),
        notes: Vec::new(),
    };
    let large = match large {
        Ok(large) => large,
        Err(reason) => {
            found.notes.push(reason.clone());
            return Ok(found);
        }
    };
    found.what = format!(
        "{}, compiled before, from its hash to its first instruction, on a host that has not used it yet",
        large.name()
    );
    let trivial = |text: &str| {
        wat::parse_str(text).map_err(|error| BenchError::Program {
            program: "hello.wat".to_owned(),
            message: error.to_string(),
        })
    };
    let small = trivial(HELLO)?;
    // Another one, so that the launcher is there when it counts.
    let other = trivial("(module (memory (export \"memory\") 1) (func (export \"_start\")))")?;
    let cache = directory.join("load");
    {
        let host = host(options, &cache)?;
        for wasm in [&small, &large.wasm, &other] {
            start(&host, wasm)?;
        }
    }
    for _ in 0..options.times(LOADS) {
        let host = host(options, &cache)?;
        start(&host, &other)?;
        for (wasm, sample) in [(&large.wasm, &mut found.ours), (&small, &mut found.theirs)] {
            let (time, compiled) = start(&host, wasm)?;
            if compiled.is_some() {
                found.notes.push("it was not cached".to_owned());
            }
            sample.push(time);
        }
    }
    Ok(found)
}
