//! `run --report`: how it went, in JSON.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Run, lazaret, module, wat};

fn report(arguments: &[&str], program: &std::path::Path, code: i32) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    lazaret()
        .args(["run", "--report"])
        .arg(&file)
        .args(arguments)
        .arg(program)
        .run()
        .exits(code);
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

const MEMBERS: [&str; 20] = [
    "$type",
    "verdict",
    "exit_code",
    "detail",
    "wall_ms",
    "cpu_ms",
    "peak_memory_bytes",
    "peak_resident_bytes",
    "memory_limit_hit",
    "fuel_used",
    "incident",
    "compile_ms",
    "spawn_ms",
    "output_bytes",
    "output_limit_hit",
    "snapshot",
    "snapshot_ms",
    "snapshot_bytes",
    "tier",
    "receipt",
];

#[test]
fn a_report_has_these_members() {
    let report = report(&["--fuel", "1000000"], &wat("hello"), 0);
    let found: BTreeSet<&str> = report
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(found, MEMBERS.into_iter().collect());
    assert_eq!(report["$type"], "lazaret.report/v1");
    assert_eq!(
        (&report["verdict"], &report["exit_code"], &report["tier"]),
        (&"exited".into(), &0.into(), &"process".into())
    );
    assert_eq!(report["output_bytes"], "hello, lazaret\n".len());
    assert_eq!(report["peak_memory_bytes"], 65_536);
    assert!(
        report["wall_ms"].as_f64().unwrap() > 0.0 && report["spawn_ms"].as_f64().unwrap() > 0.0
    );
    assert!((1..1_000_000).contains(&report["fuel_used"].as_u64().unwrap()));
}

#[test]
fn a_receipt_names_every_layer() {
    let report = report(&[], &wat("hello"), 0);
    let receipt = &report["receipt"];
    assert_eq!(receipt["threads"], 1);
    assert_ne!(receipt["host_uid"], 0);
    let layers: Vec<&str> = receipt["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["layer"].as_str().unwrap())
        .collect();
    for layer in [
        "user-namespace",
        "network-namespace",
        "no-new-privs",
        "capabilities",
        "landlock",
        "mdwe",
        "seccomp",
    ] {
        assert!(layers.contains(&layer), "{layers:?}");
    }
    let landlock = receipt["layers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["layer"] == "landlock")
        .unwrap();
    assert_eq!(landlock["state"], "applied");
    let coverage = lazaret::wall::layers::landlock::coverage_here();
    assert!(
        landlock["evidence"].as_str().unwrap().contains(&coverage),
        "{landlock}"
    );
}

#[test]
fn every_verdict_is_told() {
    let verdict = |report: &Value| report["verdict"].as_str().unwrap().to_owned();
    assert_eq!(verdict(&report(&[], &wat("exit_code"), 42)), "exited");
    let trapped = report(&[], &wat("trap"), 134);
    assert_eq!(verdict(&trapped), "trapped");
    assert!(trapped["detail"].as_str().unwrap().contains("innermost"));
    assert_eq!(
        verdict(&report(&["--time", "200ms"], &wat("loop"), 124)),
        "time_limit"
    );
    assert_eq!(
        verdict(&report(&["--fuel", "1000"], &wat("loop"), 125)),
        "fuel_limit"
    );
    let cut = report(&["--output-limit", "10"], &wat("flood"), 153);
    assert_eq!(
        (verdict(&cut), &cut["output_limit_hit"]),
        ("output_limit".into(), &true.into())
    );
    let refused = report(&["--memory", "64MiB"], &wat("memory_hog"), 0);
    assert_eq!(
        (verdict(&refused), &refused["memory_limit_hit"]),
        ("exited".into(), &true.into())
    );
    assert_eq!(
        verdict(&report(&[], &wat("component"), 2)),
        "invalid_module"
    );
    assert_eq!(
        verdict(&report(&[], std::path::Path::new("/no/such/module"), 2)),
        "invalid_module"
    );
    let nowhere = report(&["--dir", "/no/such/directory"], &wat("hello"), 2);
    assert_eq!(verdict(&nowhere), "host_error");
    assert!(
        nowhere["detail"]
            .as_str()
            .unwrap()
            .contains("/no/such/directory")
    );
    assert_eq!(nowhere["receipt"], Value::Null);
    assert_eq!(
        verdict(&report(&["--stdin", "/no/such/file"], &wat("hello"), 2)),
        "host_error"
    );
}

#[test]
fn a_module_is_compiled_once_for_its_cache() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let program = module(
        directory.path(),
        "p.wat",
        r#"(module (memory (export "memory") 1) (func (export "_start")))"#,
    );
    let compiled = |arguments: &[&str]| !report(arguments, &program, 0)["compile_ms"].is_null();
    let cached = ["--cache-dir", cache.to_str().unwrap()];
    assert!(compiled(&cached));
    assert!(!compiled(&cached));
    assert!(compiled(&["--no-cache"]));
    assert!(compiled(&["--no-cache"]));
    // A cache that can't be trusted is not used: others may write the file.
    for entry in std::fs::read_dir(&cache).unwrap() {
        std::fs::set_permissions(
            entry.unwrap().path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        )
        .unwrap();
    }
    assert!(compiled(&cached));
}

#[test]
fn a_report_that_can_t_be_written_stops_the_run() {
    lazaret()
        .args(["run", "--report", "/no/such/directory/report.json"])
        .arg(wat("hello"))
        .run()
        .fails(1, &["/no/such/directory/report.json"]);
}

/// How a measure stands on the receipt of a run with these options.
fn standing(options: &[&str], measure: &str) -> String {
    let report = report(options, &wat("hello"), 0);
    let measures = report["receipt"]["measures"].as_array().unwrap();
    assert_eq!(measures.len(), lazaret::wall::Measure::ALL.len());
    let entry = measures
        .iter()
        .find(|entry| entry["measure"] == measure)
        .unwrap_or_else(|| panic!("no {measure} in {measures:?}"));
    assert!(entry["evidence"].is_string(), "{entry}");
    entry["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_receipt_says_how_measures_stand_and_options_decide() {
    assert_eq!(standing(&[], "read-only-executable"), "verified");
    assert_eq!(standing(&[], "cycle-counter"), "applied");
    // Exact clocks read the counter.
    assert_eq!(standing(&["--clock", "exact"], "cycle-counter"), "off");
    assert_eq!(standing(&["--clock", "frozen"], "cycle-counter"), "applied");
    let off = ["--measure-off", "cycle-counter"];
    assert_eq!(standing(&off, "cycle-counter"), "off");
    // What is required is there, or nothing runs.
    let required = ["--require-measure", "read-only-executable"];
    assert_eq!(standing(&required, "read-only-executable"), "verified");
    let refused = crate::support::lazaret()
        .args(["run", "--require-measure", "cycle-counter"])
        .args(off)
        .arg(wat("hello"))
        .run()
        .exits(1);
    assert!(
        refused
            .stderr
            .contains("measure cycle-counter is required, but: turned off"),
        "{refused:?}"
    );
    let unknown = crate::support::lazaret()
        .args(["run", "--require-measure", "prayer"])
        .arg(wat("hello"))
        .run()
        .exits(2);
    assert!(
        unknown
            .stderr
            .contains("`prayer` is not a measure; the measures are read-only-executable"),
        "{unknown:?}"
    );
}
