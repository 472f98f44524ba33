//! Programs that begin from what an initialiser left: it runs once, every run
//! begins from the same state, and whatever is wrong with it is said.

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::{buffer, fixture, text, wat};
use lazaret::{
    CompileError, Host, Program, Report, RunError, SnapshotError, SnapshotUse, Verdict, WorkerError,
};

/// What `snapshot.wat` prints if it begins from a snapshot: it was started and
/// initialised once, and this is its first run.
const FROM_SNAPSHOT: &str = "1 1 1 283146\n";
/// And what without.
const ALONE: &str = "1 0 1 283146\n";

fn host(cache: &Path) -> Host {
    harness::older_kernels::builder()
        .cache_dir(cache)
        .build()
        .unwrap()
}

fn run(program: Program) -> (Report, String, String) {
    let ((out, stdout), (err, stderr)) = (buffer(), buffer());
    let report = program.stdout(stdout).stderr(stderr).run().unwrap();
    (report, text(&out), text(&err))
}

fn ran(program: Program) -> (Report, String) {
    let (report, out, err) = run(program);
    assert_eq!(
        (report.verdict, report.exit_code),
        (Verdict::Exited, 0),
        "{out}{err}{report:?}"
    );
    (report, out)
}

/// The snapshots in a cache directory.
fn kept(cache: &Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(cache.join("entries"))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "snapshot"))
        .collect();
    found.sort();
    found
}

/// The pages of the one snapshot of `snapshot.wat` in a cache directory: the only file
/// of about that length.
fn pages(cache: &Path) -> std::path::PathBuf {
    std::fs::read_dir(cache.join("contents"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| (4_000_000..4_100_000).contains(&entry.metadata().unwrap().len()))
        .unwrap()
        .path()
}

/// A host that has compiled and made everything, and a new one on the same
/// directory, give what a program that initialises itself gives.
fn the_initialiser_runs_once_over_many_runs_and_hosts() {
    let cache = tempfile::tempdir().unwrap();
    let module = wat("snapshot");
    let (report, out) = ran(host(cache.path()).program(module.clone()));
    assert_eq!((out.as_str(), report.snapshot), (ALONE, None));
    assert!(kept(cache.path()).is_empty());
    for round in 0..2 {
        let host = host(cache.path());
        for run in 0..3 {
            let (report, out) = ran(host.program(module.clone()).snapshot_after("initialise"));
            assert_eq!(out, FROM_SNAPSHOT);
            let made = (round, run) == (0, 0);
            let expected = if made {
                SnapshotUse::Made
            } else {
                SnapshotUse::Used
            };
            assert_eq!(report.snapshot, Some(expected));
            assert_eq!(report.snapshot_ms.is_some(), made);
            // The sieve, and a page of variables and text; not the zeros between.
            let bytes = report.snapshot_bytes.unwrap();
            assert!((4_000_000..4_100_000).contains(&bytes), "{bytes}");
        }
    }
    assert_eq!(kept(cache.path()).len(), 1);
}

/// Another module, another initialiser and fuel each have a snapshot of their
/// own.
fn what_decides_a_snapshot_has_its_own() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path());
    let module = String::from_utf8(wat("snapshot")).unwrap();
    let changed = module.replace("(i32.const 4000000)", "(i32.const 100)");
    let (report, out) = ran(host.program(module.clone()).snapshot_after("initialise"));
    assert_eq!(
        (out.as_str(), report.snapshot),
        (FROM_SNAPSHOT, Some(SnapshotUse::Made))
    );
    let (report, out) = ran(host.program(changed).snapshot_after("initialise"));
    assert_eq!(
        (out.as_str(), report.snapshot),
        ("1 1 1 25\n", Some(SnapshotUse::Made))
    );
    let (report, out) = ran(host.program(module.clone()).snapshot_after("say"));
    assert_eq!(
        (out.as_str(), report.snapshot),
        (ALONE, Some(SnapshotUse::Made))
    );
    let metered = || {
        host.program(module.clone())
            .snapshot_after("initialise")
            .fuel(1 << 40)
    };
    assert_eq!(ran(metered()).0.snapshot, Some(SnapshotUse::Made));
    assert_eq!(ran(metered()).0.snapshot, Some(SnapshotUse::Used));
    let allowed = host
        .program(module)
        .snapshot_after("initialise")
        .snapshot_allow_wasi();
    assert_eq!(ran(allowed).0.snapshot, Some(SnapshotUse::Made));
    assert_eq!(kept(cache.path()).len(), 5);
}

/// Fuel is what `_start` uses, whoever made the snapshot, and whether it was
/// made now.
fn fuel_is_that_of_the_run_alone() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let used = |cache: &Path, fuel: u64| {
        let program = host(cache).program(wat("snapshot"));
        let (report, out) = ran(program.snapshot_after("initialise").fuel(fuel));
        assert_eq!(out, FROM_SNAPSHOT);
        report.fuel_used.unwrap()
    };
    let first = used(one.path(), 1 << 40);
    assert!(first < 1_000, "{first}");
    assert_eq!(first, used(one.path(), 1 << 41));
    assert_eq!(first, used(other.path(), 1 << 42));
    // It is there now: the fuel need not be enough to make it.
    assert_eq!(first, used(one.path(), first));
    let (report, ..) = run(host(one.path())
        .program(wat("snapshot"))
        .snapshot_after("initialise")
        .fuel(first - 1));
    assert_eq!(
        (report.verdict, report.exit_code),
        (Verdict::FuelLimit, 125)
    );
}

/// Each byte of a snapshot's file counts, and one that is damaged, cut or
/// replaced is made again, as is one that others may write.
fn a_damaged_snapshot_is_made_again() {
    use std::os::unix::fs::PermissionsExt;
    let cache = tempfile::tempdir().unwrap();
    let again = || {
        let program = host(cache.path()).program(wat("snapshot"));
        let (report, out) = ran(program.snapshot_after("initialise"));
        assert_eq!(out, FROM_SNAPSHOT);
        report.snapshot
    };
    assert_eq!(again(), Some(SnapshotUse::Made));
    assert_eq!(again(), Some(SnapshotUse::Used));
    let [entry] = <[_; 1]>::try_from(kept(cache.path())).unwrap();
    let pages = pages(cache.path());
    let open = |mode| {
        std::fs::set_permissions(&pages, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let contents = std::fs::read(&pages).unwrap();
    for path in [&entry, &pages] {
        for at in [0.0, 0.05, 0.3, 0.5, 0.9, 1.0] {
            open(0o600);
            let mut bad = std::fs::read(path).unwrap();
            // An entry's length isn't always the same.
            let at = ((bad.len() - 1) as f64 * at) as usize;
            bad[at] ^= 1;
            std::fs::write(path, bad).unwrap();
            assert_eq!(again(), Some(SnapshotUse::Made), "a change at {at}");
            assert_eq!(again(), Some(SnapshotUse::Used));
        }
    }
    open(0o600);
    std::fs::write(&pages, &contents[..contents.len() - 4096]).unwrap();
    assert_eq!(again(), Some(SnapshotUse::Made));
    assert_eq!(std::fs::read(&pages).unwrap(), contents);
    open(0o666);
    assert_eq!(again(), Some(SnapshotUse::Made));
    assert_eq!(again(), Some(SnapshotUse::Used));
}

/// A run that has no directory to keep anything in, or one that can't be made,
/// works all the same.
fn without_a_cache_it_is_made_each_time() {
    for host in [
        harness::older_kernels::builder().build().unwrap(),
        host(Path::new("/dev/null/nowhere")),
    ] {
        let (report, out) = ran(host.program(wat("snapshot")).snapshot_after("initialise"));
        assert_eq!(
            (out.as_str(), report.snapshot),
            (FROM_SNAPSHOT, Some(SnapshotUse::Made))
        );
        // This host remembers.
        let (report, _) = ran(host.program(wat("snapshot")).snapshot_after("initialise"));
        assert_eq!(report.snapshot, Some(SnapshotUse::Used));
    }
}

/// An initialiser that doesn't return: which limit it reached or how it
/// trapped, with the run's exit codes, and nothing is kept or run.
fn an_initialiser_that_does_not_return_is_reported() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path());
    let program = |initialiser: &str| host.program(wat("snapshot")).snapshot_after(initialiser);
    for (program, verdict, code, part) in [
        (program("trap"), Verdict::Trapped, 134, "`trap`"),
        (program("recurse"), Verdict::Trapped, 134, "recursion"),
        (
            program("spin").time(Duration::from_millis(300)),
            Verdict::TimeLimit,
            124,
            "300ms",
        ),
        (
            program("initialise").fuel(1_000_000),
            Verdict::FuelLimit,
            125,
            "fuel",
        ),
        (
            program("ask_the_time"),
            Verdict::Trapped,
            134,
            "`clock_time_get` of WASI",
        ),
        (
            program("leave").output_limit(1),
            Verdict::HostError,
            0,
            "status 3",
        ),
        (
            program("say").output_limit(3),
            Verdict::OutputLimit,
            153,
            "output limit",
        ),
    ] {
        let ((out, stdout), (_, stderr)) = (buffer(), buffer());
        match program.stdout(stdout).stderr(stderr).run() {
            Ok(report) => {
                let detail = report.detail.clone().unwrap();
                assert_eq!(
                    (report.verdict, report.exit_code),
                    (verdict, code),
                    "{detail}"
                );
                assert!(
                    detail.starts_with("in the initialiser `") && detail.contains(part),
                    "{detail}"
                );
                assert_eq!(report.snapshot, None);
            }
            Err(error @ RunError::Snapshot(SnapshotError::Exited { status: 3, .. })) => {
                assert!(
                    error.is_usage() && error.to_string().contains(part),
                    "{error}"
                );
            }
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(text(&out), "", "it was run");
    }
    assert!(kept(cache.path()).is_empty());
}

/// With leave, the initialiser asks the outside; what it prints goes to
/// standard error either way.
fn what_an_initialiser_may_do() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path());
    let program = || host.program(wat("snapshot"));
    let (_, out) = ran(program()
        .snapshot_after("ask_the_time")
        .snapshot_allow_wasi());
    assert_eq!(out, "1 1 1 283146\n");
    let (report, out, err) = run(program().snapshot_after("say"));
    assert_eq!((out.as_str(), err.as_str()), (ALONE, "primes:"));
    assert_eq!(report.output_bytes, ALONE.len() as u64);
    let (_, out, err) = run(program().snapshot_after("say"));
    assert_eq!((out.as_str(), err.as_str()), (ALONE, ""));
}

/// A function of the host's may not be called before the snapshot is taken, but
/// by every run.
fn a_host_function_is_for_runs_only() {
    let host = harness::older_kernels::builder()
        .cache_dir(harness::cache())
        .host_function("shout", 100, 100, |bytes| Ok(bytes.to_ascii_uppercase()))
        .build()
        .unwrap();
    let module = r#"(module
        (import "host" "shout" (func $shout (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "quiet"))
        (func $call (export "loud")
            (drop (call $shout (i32.const 0) (i32.const 5) (i32.const 200) (i32.const 50))))
        (func (export "_start") (call $call)))"#;
    ran(host.program(module).snapshot_after("quiet"));
    let (report, ..) = run(host
        .program(module)
        .snapshot_after("loud")
        .snapshot_allow_wasi());
    assert_eq!(report.verdict, Verdict::Trapped);
    assert!(report.detail.unwrap().contains("`host.shout`"));
}

/// What can't be an initialiser, with the exports that can.
fn what_is_no_initialiser_is_refused() {
    let host = harness::older_kernels::builder()
        .cache_dir(harness::cache())
        .build()
        .unwrap();
    for (name, part) in [
        ("missing", "`missing` is not exported"),
        (
            "with_parameter",
            "`with_parameter` has parameters or results",
        ),
        ("with_result", "`with_result` has parameters or results"),
        ("memory", "`memory` is no function"),
        ("_start", "`_start` is the program itself"),
        ("lazaret:init", "`lazaret:init` is not exported"),
    ] {
        match host.program(wat("snapshot")).snapshot_after(name).run() {
            Err(error @ RunError::Worker(WorkerError::Setup(_))) => {
                let text = error.to_string();
                assert!(error.is_usage());
                assert!(text.contains(part), "{text}");
                assert!(
                    text.contains("`initialise`") && !text.contains("`with_result`,"),
                    "{text}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    match host.program(wat("hello")).snapshot_after("x").run() {
        Err(error) => assert!(
            error.to_string().contains("exports none but `_start`"),
            "{error}"
        ),
        other => panic!("{other:?}"),
    }
}

/// A module that can change more than a snapshot holds is refused, with the
/// instruction; it runs without a snapshot.
fn what_no_snapshot_holds_is_refused() {
    let host = harness::older_kernels::builder()
        .cache_dir(harness::cache())
        .build()
        .unwrap();
    for (body, part) in [
        ("(table.set (i32.const 0) (ref.func $f))", "`table.set`"),
        ("(elem.drop $e)", "`elem.drop`"),
        (
            "(table.init $e (i32.const 0) (i32.const 0) (i32.const 1))",
            "`table.init`",
        ),
        ("(data.drop $d)", "`data.drop`"),
    ] {
        let module = format!(
            r#"(module (memory (export "memory") 1) (table 1 funcref)
                (elem $e func $f) (data $d "x") (func $f)
                (func (export "prepare") {body}) (func (export "_start")))"#
        );
        ran(host.program(module.clone()));
        match host.program(module).snapshot_after("prepare").run() {
            Err(error @ RunError::Compile(CompileError::Invalid(_))) => {
                assert!(
                    error.is_usage() && error.to_string().contains(part),
                    "{error}"
                );
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    let two = r#"(module (memory (export "memory") 1) (memory 1)
        (func (export "prepare")) (func (export "_start")))"#;
    match host.program(two).snapshot_after("prepare").run() {
        Err(error) => assert!(error.to_string().contains("memor"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// What an initialiser left doesn't depend on the memory limit: it is refused if
/// it would, and so is a run with less memory than the snapshot has.
fn the_memory_limit_decides_nothing_in_a_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path());
    match host.program(wat("snapshot")).snapshot_after("grow").run() {
        Err(error @ RunError::Snapshot(SnapshotError::Memory { .. })) => {
            assert!(
                error.is_usage() && error.to_string().contains("--memory"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    let limited = |bytes: u64| {
        host.program(wat("snapshot"))
            .snapshot_after("initialise")
            .memory(bytes)
    };
    let size = 63 << 16;
    let (report, _) = ran(limited(size));
    assert_eq!(report.peak_memory_bytes, size);
    match limited(size - 1).run() {
        Err(error) => {
            assert!(error.is_usage());
            assert!(error.to_string().contains("--memory"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// State of all kinds comes back: vectors, floats, far pages, a larger memory,
/// passive data, and the rest of the memory is zero.
fn every_kind_of_state_comes_back() {
    let host = harness::older_kernels::builder()
        .cache_dir(harness::cache())
        .build()
        .unwrap();
    let module = r#"(module (memory (export "memory") 2 300)
        (global $v (mut v128) (v128.const i64x2 0 0)) (global $d (mut f64) (f64.const 0))
        (global $l (mut i64) (i64.const 0)) (global $f (mut f32) (f32.const 0))
        (data $passive "passive!") (data (i32.const 100000) "active")
        (table 1 funcref) (elem (i32.const 0) $seven)
        (func $seven (result i32) (i32.const 7))
        (func (export "prepare")
            (global.set $v (v128.const i64x2 -1 5)) (global.set $d (f64.const -0.0))
            (global.set $l (i64.const -9)) (global.set $f (f32.const nan:0x200001))
            (drop (memory.grow (i32.const 100)))
            (memory.init $passive (i32.const 6600000) (i32.const 0) (i32.const 8))
            (i32.store8 (i32.const 100000) (i32.const 65)))
        (func $check (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
        (func (export "_start")
            (call $check (i64.eq (i64x2.extract_lane 0 (global.get $v)) (i64.const -1)))
            (call $check (i64.eq (i64x2.extract_lane 1 (global.get $v)) (i64.const 5)))
            (call $check (i64.eq (i64.reinterpret_f64 (global.get $d)) (i64.const 0x8000000000000000)))
            (call $check (i64.eq (global.get $l) (i64.const -9)))
            (call $check (i32.eq (i32.reinterpret_f32 (global.get $f)) (i32.const 0x7fa00001)))
            (call $check (i32.eq (memory.size) (i32.const 102)))
            (call $check (i32.eq (i32.load8_u (i32.const 6600000)) (i32.const 112)))
            (call $check (i32.eq (i32.load (i32.const 100000)) (i32.const 0x69746341)))
            (call $check (i32.eqz (i32.load (i32.const 3000000))))
            (call $check (i32.eq (call_indirect (result i32) (i32.const 0)) (i32.const 7)))
            (memory.init $passive (i32.const 8) (i32.const 0) (i32.const 8))
            (call $check (i32.eq (memory.grow (i32.const 10)) (i32.const 102)))
            (i32.store (i32.const 7000000) (i32.const 1))
            (i32.store (i32.const 6600000) (i32.const 1))))"#;
    for _ in 0..3 {
        ran(host.program(module).snapshot_after("prepare"));
    }
}

/// CPython exports one function that could be an initialiser, the one that packs
/// its file system, and none that starts its interpreter: so a snapshot spares
/// it the copying of its data, and no more.
fn heavy_cpython_begins_from_its_packed_files() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path());
    let python = fixture("python.wasm");
    let info = lazaret::inspect(&python, lazaret::wire::message::Purpose::Program, &[]).unwrap();
    assert_eq!(info.exports, ["memory", "_start", "wasi_vfs_pack_fs"]);
    for expected in [SnapshotUse::Made, SnapshotUse::Used] {
        let program = host
            .program(python.clone())
            .snapshot_after("wasi_vfs_pack_fs")
            .snapshot_allow_wasi()
            .arguments(["python", "-c", "import json; print(json.dumps([6 * 7]))"]);
        let (report, out) = ran(program);
        assert_eq!((out.as_str(), report.snapshot), ("[42]\n", Some(expected)));
    }
}

harness::tests! {
    the_initialiser_runs_once_over_many_runs_and_hosts,
    what_decides_a_snapshot_has_its_own,
    fuel_is_that_of_the_run_alone,
    a_damaged_snapshot_is_made_again,
    without_a_cache_it_is_made_each_time,
    an_initialiser_that_does_not_return_is_reported,
    what_an_initialiser_may_do,
    a_host_function_is_for_runs_only,
    what_is_no_initialiser_is_refused,
    what_no_snapshot_holds_is_refused,
    the_memory_limit_decides_nothing_in_a_snapshot,
    every_kind_of_state_comes_back,
    heavy_cpython_begins_from_its_packed_files,
}
