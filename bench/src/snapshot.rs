//! `lazaret run` of a program with a costly initialiser, the whole process, from
//! a snapshot and without.

use std::fs;

use crate::Options;
use crate::command::{again, execute, lazaret};
use crate::error::BenchError;
use crate::sample::{MILLISECOND, Sample};
use crate::table::Row;

const PROGRAM: &str = include_str!("../../tests/fixtures/wat/snapshot.wat");
const KEY: &str = "snapshot";
const REPETITIONS: usize = 100;

pub(crate) fn row(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants(KEY) {
        return Ok(());
    }
    progress("lazaret run from a snapshot");
    let row = |ours: &Sample, theirs: &Sample| {
        Row::new(
            KEY,
            "lazaret run of a program that sieves 4,000,000 numbers first, from a snapshot after that, whole process",
            "ms",
        )
        .ours(ours.len(), ours.quantiles(MILLISECOND))
        .baseline(
            "the same without a snapshot: it sieves in every run",
            theirs.quantiles(MILLISECOND),
        )
    };
    let (mut ours, mut theirs, mut made) =
        (Sample::default(), Sample::default(), Sample::default());
    let command = match lazaret(options) {
        Ok(command) => command,
        Err(reason) => {
            rows.push(row(&ours, &theirs).note(reason));
            return Ok(());
        }
    };
    let directory = options.temporary()?;
    let system = |step| BenchError::system(step);
    let module = directory.path().join("snapshot.wasm");
    let wasm = wat::parse_str(PROGRAM).map_err(|error| BenchError::Program {
        program: "snapshot.wat".to_owned(),
        message: error.to_string(),
    })?;
    fs::write(&module, wasm).map_err(system("writing snapshot.wasm"))?;
    let cache = directory.path().join("cache");
    let run = |initialiser: &[&str]| {
        let mut run = std::process::Command::new(&command);
        run.arg("run").arg("--cache-dir").arg(&cache);
        run.args(["--profile", options.profile.name()]);
        for layer in &options.accept_missing {
            run.args(["--accept-missing", layer.name()]);
        }
        run.args(initialiser).arg(&module);
        run
    };
    let (with, without) = (run(&["--snapshot-after", "initialise"]), run(&[]));
    let (from_snapshot, alone) = (b"1 1 1 283146\n", b"1 0 1 283146\n");
    // Once before it counts, as with `lazaret run` of a trivial module.
    execute(&mut again(&without), alone)?;
    execute(&mut again(&with), from_snapshot)?;
    for _ in 0..options.times(REPETITIONS) {
        ours.time(|| execute(&mut again(&with), from_snapshot))?;
        theirs.time(|| execute(&mut again(&without), alone))?;
    }
    // The code is there and the snapshot isn't.
    for _ in 0..options.times(REPETITIONS / 5) {
        for entry in fs::read_dir(&cache).map_err(system("reading the cache"))? {
            let path = entry.map_err(system("reading the cache"))?.path();
            if path.extension().is_some_and(|end| end == "snapshot") {
                fs::remove_file(path).map_err(system("removing the snapshot"))?;
            }
        }
        made.time(|| execute(&mut again(&with), from_snapshot))?;
    }
    rows.push(row(&ours, &theirs).note(format!(
        "the run that makes the snapshot, of 4 MB: {:.1} ms",
        made.median(MILLISECOND)
    )));
    Ok(())
}
