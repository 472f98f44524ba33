//! A rewritten module computes what the module itself computes.
//!
//! The corpus is a directory of modules. Lines that start with `;; call` say what is called, in
//! order, in one instance.

use crate::run::{OPT_LEVELS, Outcome, Run, engine, rewrite};
use lazaret_instrument::{CardOptions, Options, names};
use std::path::Path;
use wasmtime::Val;

pub struct Case {
    pub name: String,
    pub wasm: Vec<u8>,
    pub calls: Vec<(String, Vec<Val>)>,
}

pub fn corpus() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instrument/corpus");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let calls = text
            .lines()
            .filter_map(|line| line.strip_prefix(";; call "))
            .map(parse);
        cases.push(Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            calls: calls.collect(),
            wasm: wat::parse_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}")),
        });
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 12, "the corpus is missing");
    cases
}

/// `name 1 2` is a call with two `i32`; `1L` is an `i64`, `1.5` an `f64`.
fn parse(line: &str) -> (String, Vec<Val>) {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap().to_string();
    let values = words.map(|word| match word.strip_suffix('L') {
        Some(long) => Val::I64(long.parse().unwrap()),
        None if word.contains('.') => Val::F64(word.parse::<f64>().unwrap().to_bits()),
        None => Val::I32(word.parse().unwrap()),
    });
    (name, values.collect())
}

/// What can be seen of a run from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    outcomes: Vec<Outcome>,
    globals: Vec<String>,
    memory: Vec<u8>,
}

fn observe(run: &mut Run, case: &Case) -> Seen {
    let outcomes = case
        .calls
        .iter()
        .map(|(name, values)| run.call(name, values))
        .collect();
    Seen {
        outcomes,
        globals: run.globals(),
        memory: run.memory("memory"),
    }
}

fn variants() -> Vec<Options> {
    let mut variants = Vec::new();
    for bits in 0..16_u32 {
        variants.push(Options {
            metering: bits & 1 != 0,
            recursion_limit: (bits & 2 != 0).then_some(1_000),
            persistent: bits & 4 != 0,
            cards: (bits & 8 != 0).then(CardOptions::default),
            ..Options::default()
        });
    }
    variants
}

#[test]
fn rewritten_modules_compute_the_same() {
    for opt_level in OPT_LEVELS {
        let engine = engine(opt_level);
        for case in corpus() {
            let mut original = Run::new(&engine, &case.wasm).unwrap();
            let expected = observe(&mut original, &case);
            for options in variants() {
                let instrumented = rewrite(&case.wasm, &options);
                let mut run = Run::new(&engine, &instrumented.wasm)
                    .unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
                if options.persistent {
                    assert_eq!(run.call(names::INIT, &[]), Outcome::Results(vec![]));
                }
                if instrumented.report.has_start && (options.metering || options.persistent) {
                    assert_eq!(run.call(names::START, &[]), Outcome::Results(vec![]));
                }
                let seen = observe(&mut run, &case);
                assert_eq!(seen, expected, "{} with {options:?}", case.name);
            }
        }
    }
}

#[test]
fn rewritten_modules_are_the_same_each_time() {
    for case in corpus() {
        for options in variants() {
            let first = rewrite(&case.wasm, &options).wasm;
            assert_eq!(first, rewrite(&case.wasm, &options).wasm, "{}", case.name);
        }
    }
}
