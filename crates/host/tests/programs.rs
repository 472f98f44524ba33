//! A program that nobody trusts runs with what it was given and nothing else.

mod harness;

use std::time::Duration;

use harness::{buffer, fixture, host, text, wat};
use lazaret::{Host, Input, ModuleError, Program, Report, RunError, Verdict};

/// Runs a program with its outputs kept.
fn run(program: Program) -> (Report, String, String) {
    let ((out, stdout), (err, stderr)) = (buffer(), buffer());
    let report = program.stdout(stdout).stderr(stderr).run().unwrap();
    (report, text(&out), text(&err))
}

fn plain() -> Host {
    harness::older_kernels::builder()
        .cache_dir(harness::cache())
        .build()
        .unwrap()
}

/// CPython computes, reads a granted directory, and fails to read one that
/// isn't granted.
fn heavy_cpython_reads_what_is_granted_only() {
    let granted = tempfile::tempdir().unwrap();
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(granted.path().join("data.txt"), "17 25").unwrap();
    std::fs::write(secret.path().join("secret.txt"), "secret").unwrap();
    let script = format!(
        r#"
print(sum(int(x) for x in open('/data/data.txt').read().split()))
for path in ['{secret}/secret.txt', '/data/../{secret}/secret.txt', '/etc/passwd', '/proc/self/environ', '/']:
    try:
        import os
        print(os.listdir(path) if path == '/' else open(path).read())
    except OSError as error:
        print('refused', error.errno)
try:
    open('/data/new.txt', 'w')
except OSError as error:
    print('not written', error.errno)
import sys
print(sys.argv[1:], dict(os.environ).get('GREETING'), 'HOME' in os.environ)
sys.exit(7)
"#,
        secret = secret.path().display()
    );
    let program = plain()
        .program(fixture("python.wasm"))
        .arguments(["python", "-c", &script, "an argument"])
        .env("GREETING", "hello")
        .directory(granted.path(), "/data", false);
    let (report, out, err) = run(program);
    assert_eq!(
        (report.verdict, report.exit_code),
        (Verdict::Exited, 7),
        "{out}\n{err}\n{report:?}"
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "42");
    assert!(
        lines[1..6].iter().all(|line| line.starts_with("refused")),
        "{out}"
    );
    assert!(lines[6].starts_with("not written"), "{out}");
    assert_eq!(lines[7], "['an argument'] hello False");
    assert!(!granted.path().join("new.txt").exists());
    assert!(!out.contains("secret'") && !err.contains("secret'"));
}

/// Another large program: PHP.
fn heavy_php_runs_a_script() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("x.php"),
        "<?php echo array_sum(range(1, 1000)), \"\\n\"; exit(7);",
    )
    .unwrap();
    let program = plain()
        .program(fixture("php.wasm"))
        .arguments(["php", "-q", "/d/x.php"])
        .directory(directory.path(), "/d", false);
    let (report, out, err) = run(program);
    assert_eq!((out.trim(), report.exit_code), ("500500", 7), "{err}");
}

/// Files that a program writes in a granted directory are there afterwards, and
/// belong to whoever owns the directory.
fn a_writable_directory_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let program = plain()
        .program(wat("files"))
        .arguments(["files", "write", "new.txt"])
        .stdin(Input::Bytes(b"contents".to_vec()))
        .directory(directory.path(), "/d", true);
    let (report, _, err) = run(program);
    assert_eq!(report.exit_code, 0, "{err} {report:?}");
    let path = directory.path().join("new.txt");
    assert_eq!(std::fs::read(&path).unwrap(), b"contents");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().uid(),
        std::fs::metadata(directory.path()).unwrap().uid()
    );
}

/// A directory granted for reading can't be written, nor left.
fn a_read_only_directory_is_neither_written_nor_left() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(outer.path().join("outside"), "outside").unwrap();
    std::fs::write(inner.join("inside"), "inside").unwrap();
    std::os::unix::fs::symlink("../outside", inner.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inner.join("absolute")).unwrap();
    let operate = |arguments: [&str; 3]| {
        run(plain()
            .program(wat("files"))
            .arguments(arguments)
            .stdin(Input::Bytes(b"x".to_vec()))
            .directory(&inner, "/d", false))
    };
    assert_eq!(operate(["files", "read", "inside"]).1, "inside");
    for arguments in [
        ["files", "write", "inside"],
        ["files", "write", "new"],
        ["files", "unlink", "inside"],
        ["files", "mkdir", "new"],
        ["files", "symlink", "new"],
        ["files", "read", "../outside"],
        ["files", "read", "link"],
        ["files", "read", "absolute"],
        ["files", "read", "/etc/passwd"],
    ] {
        let (report, out, _) = operate(arguments);
        assert_eq!(report.verdict, Verdict::Exited, "{arguments:?}");
        assert_ne!(report.exit_code, 0, "{arguments:?} succeeded: {out}");
        assert_eq!(out, "", "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 3);
}

/// Without a grant there is no directory at all.
fn without_a_grant_there_is_no_file() {
    let (report, ..) = run(plain()
        .program(wat("files"))
        .arguments(["files", "read", "x"]));
    assert_eq!((report.verdict, report.exit_code), (Verdict::Exited, 8));
}

/// Standard input goes through, whole.
fn standard_input_is_copied_to_standard_output() {
    let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let ((out, stdout), _) = (buffer(), ());
    let report = plain()
        .program(wat("cat"))
        .stdin(Input::Bytes(bytes.clone()))
        .stdout(stdout)
        .run()
        .unwrap();
    assert_eq!(report.exit_code, 0);
    assert!(*out.lock().unwrap() == bytes);
}

/// Each way to end has its verdict and its exit code.
fn every_verdict_has_its_code() {
    let host = plain();
    let cases: [(&str, &[&str], Verdict, i32); 5] = [
        ("hello", &[], Verdict::Exited, 0),
        ("trap", &[], Verdict::Trapped, 134),
        ("trap_memory", &[], Verdict::Trapped, 134),
        ("recurse", &[], Verdict::Trapped, 134),
        ("exit_code", &["exit_code", "42"], Verdict::Exited, 42),
    ];
    for (name, arguments, verdict, code) in cases {
        let mut program = host.program(wat(name));
        if !arguments.is_empty() {
            program = program.arguments(arguments.iter().copied());
        }
        let (report, ..) = run(program);
        assert_eq!(
            (report.verdict, report.exit_code),
            (verdict, code),
            "{name}: {report:?}"
        );
    }
    let (report, ..) = run(host.program(wat("loop")).time(Duration::from_millis(200)));
    assert_eq!(
        (report.verdict, report.exit_code),
        (Verdict::TimeLimit, 124)
    );
    let (report, ..) = run(host.program(wat("loop")).cpu_time(Duration::from_secs(1)));
    assert_eq!(
        (report.verdict, report.exit_code),
        (Verdict::TimeLimit, 124)
    );
    let (report, ..) = run(host.program(wat("loop")).fuel(1_000_000));
    assert_eq!(
        (report.verdict, report.exit_code, report.fuel_used),
        (Verdict::FuelLimit, 125, Some(1_000_000))
    );
    let (report, ..) = run(host.program(wat("start_loop")).fuel(1_000_000));
    assert_eq!(report.verdict, Verdict::FuelLimit);
    let (report, ..) = run(host.program(wat("flood")).output_limit(10_000));
    assert_eq!(
        (report.verdict, report.exit_code),
        (Verdict::OutputLimit, 153)
    );
}

/// The same program uses the same fuel every time.
fn fuel_is_deterministic() {
    let host = plain();
    let used = |n: u64| run(host.program(wat("hello")).fuel(n)).0.fuel_used;
    assert_eq!(used(1_000_000), used(2_000_000));
    assert!(used(1_000_000).is_some_and(|used| used > 0));
}

/// A trap says where, with the names of the functions.
fn a_trap_has_a_backtrace_with_names() {
    let text = r#"(module (memory (export "memory") 1)
        (func $deepest unreachable) (func $middle (call $deepest)) (func (export "_start") (call $middle)))"#;
    let (report, ..) = run(plain().program(text));
    let detail = report.detail.unwrap();
    assert!(
        detail.contains("unreachable") && detail.contains("deepest") && detail.contains("middle"),
        "{detail}"
    );
}

/// Memory over the limit is refused, and the report says so.
fn memory_over_the_limit_is_refused() {
    let (report, ..) = run(plain().program(wat("memory_hog")).memory(64 << 20));
    assert!(report.memory_limit_hit, "{report:?}");
    assert!(report.peak_memory_bytes <= 64 << 20, "{report:?}");
    match plain().program(wat("memory_minimum")).memory(1 << 20).run() {
        Err(RunError::Module(ModuleError::Memory { limit, .. })) => assert_eq!(limit, 1 << 20),
        other => panic!("{other:?}"),
    }
}

/// What is no program is refused with a reason, before anything runs.
fn what_is_no_program_is_refused() {
    let host = plain();
    let refusal = |bytes: Vec<u8>| host.program(bytes).run().expect_err("it ran").to_string();
    assert!(refusal(b"\x7fELF\x02\x01".to_vec()).contains("7f 45 4c 46"));
    assert!(refusal(wat("component")).contains("component"));
    assert!(refusal(wat("unknown_import")).contains("does not provide"));
    assert!(refusal(wat("no_start")).contains("_start"));
    assert!(refusal(fixture("quickjs.wasm")).contains("does not provide"));
    assert!(refusal(fixture("sqlite.wasm")).contains("wasi_unstable"));
    let truncated = wat::parse_bytes(&wat("hello")).unwrap()[..60].to_vec();
    assert!(refusal(truncated).contains("offset"));
    // Valid outside, invalid inside: the locked compiler says so, and where.
    let message = refusal(br#"(module (func (export "_start") i32.const 1))"#.to_vec());
    assert!(
        message.contains("at byte") && !message.contains('\n'),
        "{message}"
    );
}

/// A directory that isn't one is refused with its path.
fn a_bad_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [std::path::Path::new("/no/such/directory"), file.path()] {
        match plain()
            .program(wat("hello"))
            .directory(path, "/d", false)
            .run()
        {
            Err(RunError::Directory { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
}

/// Every layer of every run is on its receipt, verified.
fn the_receipt_lists_every_layer() {
    let (_directory, host) = host();
    let (report, ..) = run(host.program(wat("hello")));
    let receipt = report.receipt.unwrap();
    assert_eq!(receipt.layers.len(), lazaret::wall::Layer::ALL.len());
    assert_ne!(receipt.host_uid, 0);
    assert_eq!(receipt.threads, 1);
    for entry in receipt.layers {
        let missing = matches!(entry.state, lazaret::wall::receipt::State::Missing(_));
        let too_old = harness::older_kernels::missing_layers().contains(&entry.layer);
        assert_eq!(missing, too_old, "{entry:?}");
    }
}

/// Of an ordinary user the kernel counts all descriptors that are sent and not
/// yet received, and sends none of a process's that may have fewer open. (So nothing
/// else of this user's runs meanwhile: .config/nextest.toml.)
fn descriptors_under_way_delay_a_worker_and_no_more() {
    use std::os::fd::AsFd;
    // More than a worker may have open at its birth.
    const MOST: usize = 5000;
    // It may send more than it may have open only as root.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.maximum.is_some_and(|most| most <= MOST as u64) {
        eprintln!("skipped: no process of this user may have {MOST} files open: {limit:?}");
        return;
    }
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let channel = || lazaret::wire::socket::Channel::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    // Each socket holds as many messages as its buffer does.
    let full: Vec<_> = (0..40).map(|_| channel()).collect();
    let mut under_way = 0;
    for (ours, _) in &full {
        for _ in 0..2 {
            let many = vec![null.as_fd(); 64];
            if ours.send(b"under way", &many).is_err() {
                break;
            }
            under_way += many.len();
        }
    }
    assert!(under_way > MOST, "{under_way}");
    let worker = std::thread::spawn(|| run(plain().program(wat("hello"))));
    std::thread::sleep(Duration::from_millis(300));
    drop(full);
    let (report, ..) = worker.join().unwrap();
    assert_eq!(report.verdict, Verdict::Exited);
}

/// What is wrong with a module is told when it is read, and what is read runs many times.
fn a_module_is_read_once_and_runs_many_times() {
    let host = plain();
    let module = host.module(wat("hello")).unwrap();
    assert!(module.info().exports.iter().any(|name| name == "_start"));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (report, out, _) = run(module.program());
                assert_eq!(report.verdict, Verdict::Exited);
                assert_eq!(out, "hello, lazaret\n");
            });
        }
    });
    for (bytes, said) in [
        (&b"nothing"[..], "not a WebAssembly module"),
        (b"(module)", "_start"),
        (
            b"(module (import \"env\" \"f\" (func)) (func (export \"_start\")))",
            "env.f",
        ),
    ] {
        let error = host.module(bytes).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// An embedder's function is called by a program.
fn a_host_function_is_called() {
    let host = harness::older_kernels::builder()
        .cache_dir(harness::cache())
        .host_function("shout", 100, 100, |bytes| Ok(bytes.to_ascii_uppercase()))
        .build()
        .unwrap();
    let text = r#"(module
        (import "host" "shout" (func $shout (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "quiet")
        (func (export "_start")
            (i32.store (i32.const 104) (call $shout (i32.const 0) (i32.const 5) (i32.const 200) (i32.const 50)))
            (i32.store (i32.const 100) (i32.const 200))
            (drop (call $write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 108)))))"#;
    let (report, out, _) = run(host.program(text));
    assert_eq!(out, "QUIET", "{report:?}");
}

pub use harness::{Test, main as main_of};

harness::tests! {
    heavy_cpython_reads_what_is_granted_only,
    heavy_php_runs_a_script,
    a_module_is_read_once_and_runs_many_times,
    a_writable_directory_is_written,
    a_read_only_directory_is_neither_written_nor_left,
    without_a_grant_there_is_no_file,
    standard_input_is_copied_to_standard_output,
    every_verdict_has_its_code,
    fuel_is_deterministic,
    a_trap_has_a_backtrace_with_names,
    memory_over_the_limit_is_refused,
    what_is_no_program_is_refused,
    a_bad_directory_is_refused,
    the_receipt_lists_every_layer,
    a_host_function_is_called,
    descriptors_under_way_delay_a_worker_and_no_more,
}
