//! The table has every row, with numbers that can be. It says nothing about
//! how large they are: a test that asserted times would fail on a busy machine.
//!
//! Without the test harness: `main` must begin with `lazaret::init()`.

use lazaret_bench::{Options, Row, Table};

/// Rows that need a program that may not be installed, or the command itself.
const MAY_LACK_OURS: &[&str] = &["snapshot"];

/// What others need isn't measured where this isn't the command itself.
const PEERS: &[&str] = &[
    "peers/wasmtime",
    "peers/wasmtime-bwrap",
    "peers/node",
    "peers/bwrap",
    "peers/crun",
    "peers/runsc",
    "peers/wasmtime-runsc",
    "peers/large/compile",
    "peers/large/load",
];

const SCALE: &[&str] = &[
    "scale/start/pool/1",
    "scale/start/pool/8",
    "scale/start/cold/1",
    "scale/start/cold/8",
    "scale/query/1",
    "scale/update/1",
    "scale/query/8",
    "scale/update/8",
    "scale/submitted/1",
    "scale/submitted/8",
    "scale/memory",
    "scale/descriptors",
    "scale/idle",
    "scale/at-once",
    "scale/at-once/launchers",
];

/// Which wall the tests are about (`scripts/as-in-a-container.sh`).
fn profile() -> lazaret::wall::Profile {
    std::env::var("LAZARET_PROFILE").map_or_else(
        |_| lazaret::wall::Profile::default(),
        |name| name.parse().expect("LAZARET_PROFILE"),
    )
}

const KEYS: &[&str] = &[
    "query",
    "query/absolute",
    "query/floor",
    "update/1",
    "update/100",
    "update/10000",
    "update/1/durable",
    "update/100/durable",
    "update/10000/durable",
    "trackers/cards",
    "trackers/kernel",
    "trackers/signal",
    "trackers/cards/worker",
    "trackers/signal/worker",
    "state/hot/10",
    "state/hot/100",
    "state/large-heap",
    "state/base-read",
    "state/cold/64",
    "state/cold/1024",
    "state/cold/4096",
    "state/cold/fragmented",
    "state/snapshot",
    "state/fork",
    "state/checkpoint/1",
    "state/checkpoint/100",
    "state/checkpoint/10000",
    "state/hash/1",
    "state/hash/100",
    "state/hash/10000",
    "start",
    "start/pool",
    "start/cgroup",
    "wall/call",
    "wall/start",
    "wall/memory",
    "filter/any",
    "filter/checked",
    "hog/cpu",
    "hog/memory",
    "hog/pids",
    "hog/disk",
    "hog/log",
    "snapshot",
    "memory",
];

fn main() {
    lazaret::init();
    let arguments = libtest_mimic::Arguments::from_args();
    let trial = |name: &str, test: fn()| {
        libtest_mimic::Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial(
            "heavy_every_row_is_there",
            every_row_is_there_with_plausible_numbers,
        ),
        trial("heavy_many_tenants_are_measured", many_tenants_are_measured),
        trial("heavy_peers_are_measured", peers_are_measured),
        trial(
            "heavy_a_filter_leaves_only_its_rows",
            a_filter_leaves_only_its_rows,
        ),
        trial(
            "heavy_curves_are_written_and_drawn",
            curves_are_written_and_drawn,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn every_row_is_there_with_plausible_numbers() {
    let mut said = Vec::new();
    let options = quick();
    let table = lazaret_bench::run(&options, &mut |what| said.push(what.to_owned())).unwrap();
    let keys: Vec<&str> = table.rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, KEYS);
    assert!(
        said.len() >= 8 && said.iter().all(|what| !what.is_empty()),
        "{said:?}"
    );
    assert!(table.machine.cores >= 1 && !table.machine.kernel.is_empty());
    table.rows.iter().for_each(plausible);

    let json = serde_json::to_string(&table).unwrap();
    let back: Table = serde_json::from_str(&json).unwrap();
    assert_eq!(
        serde_json::to_value(&back).unwrap(),
        serde_json::to_value(&table).unwrap()
    );

    let text = table.to_string();
    assert!(text.contains(&table.machine.cpu), "{text}");
    for row in &table.rows {
        assert!(
            text.contains(&row.what) && text.contains(&format!("{}: n = ", row.key)),
            "{} is missing in:\n{text}",
            row.key
        );
    }
    println!("{text}");
}

fn quick() -> Options {
    Options {
        quick: true,
        profile: profile(),
        ..Options::default()
    }
}

fn many_tenants_are_measured() {
    let directory = tempfile::tempdir().unwrap();
    let figures = directory.path().join("figures");
    let mut said = Vec::new();
    let mut progress = |what: &str| said.push(what.to_owned());
    let table = lazaret_bench::scale(&quick(), Some(&figures), &mut progress).unwrap();
    let keys: Vec<&str> = table.rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, SCALE);
    for row in &table.rows {
        // Nothing at all is used in so short a time, and nothing at all is missing of
        // the machine's memory.
        if !["scale/idle", "scale/memory"].contains(&row.key.as_str()) {
            plausible(row);
        }
    }
    assert!(
        said.iter().any(|what| what.contains("MiB available")),
        "{said:?}"
    );
    for name in ["scale-start.svg", "scale-call.svg"] {
        let text = std::fs::read_to_string(figures.join(name)).unwrap();
        assert!(text.contains("<polyline") && text.contains("</svg>"));
    }
    let data = std::fs::read_to_string(figures.join("scale.csv")).unwrap();
    assert_eq!(data.matches("start_pool_ms,").count(), 2, "{data}");
}

fn peers_are_measured() {
    let table = lazaret_bench::peers(&quick(), &mut |_| {}).unwrap();
    let keys: Vec<&str> = table.rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, PEERS);
    for row in &table.rows {
        let baseline = row.baseline.as_ref().unwrap();
        // Ours, as this isn't the command, and whatever isn't installed; of a large
        // module, that there is none.
        let large = row.key.starts_with("peers/large");
        let missing = 1 + usize::from(baseline.measured.is_none() && !large);
        assert!(row.ours.is_none() && row.notes.len() == missing, "{row:?}");
        assert!(
            baseline
                .measured
                .is_none_or(|measured| measured.p50 > 0.0 && measured.p99.is_finite())
        );
    }
}

fn plausible(row: &Row) {
    let numbers = [
        row.ours,
        row.baseline.as_ref().and_then(|baseline| baseline.measured),
    ];
    for found in numbers.into_iter().flatten() {
        assert!(
            found.p50 > 0.0 && found.p50 <= found.p99 && found.p99.is_finite(),
            "{row:?}"
        );
    }
    match (row.ours, row.baseline.as_ref()) {
        (None, _) => assert!(
            MAY_LACK_OURS.contains(&row.key.as_str()) && !row.notes.is_empty() && row.n == 0,
            "{row:?}"
        ),
        (Some(_), baseline) => {
            assert!(row.n > 0, "{row:?}");
            let measured = baseline.is_some_and(|baseline| baseline.measured.is_some());
            assert_eq!(row.ratio.is_some(), measured, "{row:?}");
            assert_eq!(
                row.met.is_some(),
                row.target.is_some() && (measured || baseline.is_none()),
                "{row:?}"
            );
        }
    }
}

fn a_filter_leaves_only_its_rows() {
    let options = Options {
        quick: true,
        filter: Some("update/100".into()),
        profile: profile(),
        ..Options::default()
    };
    let table = lazaret_bench::run(&options, &mut |_| {}).unwrap();
    let keys: Vec<&str> = table.rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["update/100", "update/100/durable"]);
}

fn curves_are_written_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let options = quick();
    let target = directory.path().join("figures");
    let curves = lazaret_bench::curves(&options, &target, &mut |_| {}).unwrap();
    assert_eq!(curves.files.len(), 5);
    for file in &curves.files {
        let text = std::fs::read_to_string(file).unwrap();
        match file.extension().and_then(|found| found.to_str()) {
            Some("svg") => assert!(text.contains("<polyline") && text.contains("</svg>")),
            Some("csv") => lines_are_plausible(&text),
            other => panic!("{other:?}"),
        }
    }
    let text = curves.to_string();
    assert!(text.contains("at most 1.0 x"), "{text}");
}

/// As many columns as there are names, and numbers that can be in all of them
/// but the one with words.
fn lines_are_plausible(text: &str) {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut count = 0;
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), names.len(), "{line}");
        for (name, cell) in names.iter().zip(cells) {
            let positive = cell.parse::<f64>().is_ok_and(|value| value > 0.0);
            assert!(*name == "order" || positive, "{name} in {line}");
        }
        count += 1;
    }
    assert!(count > 1, "{text}");
}
