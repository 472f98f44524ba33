//! Programs, run in this process without a wall.

mod harness;
mod host_function;
mod threads;

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{compile, fixture, pipe, run, run_with, setup};
use lazaret_wire::message::{Clock, ProgramEnd, ProgramSetup, TrapKind};

fn with_arguments(arguments: &[&str]) -> ProgramSetup {
    let arguments = std::iter::once("program")
        .chain(arguments.iter().copied())
        .map(str::to_owned)
        .collect();
    ProgramSetup {
        arguments,
        ..setup()
    }
}

#[test]
fn standard_output_and_return() {
    let ran = run(&fixture("hello"), &setup(), b"", &[]).unwrap();
    assert_eq!(
        (ran.exited.end, ran.stdout.as_str(), ran.stderr.as_str()),
        (ProgramEnd::Exit(0), "hello, lazaret\n", "")
    );
    assert_eq!(
        (
            ran.exited.peak_memory,
            ran.exited.memory_limit_hit,
            ran.exited.fuel_left
        ),
        (65536, false, None)
    );
}

#[test]
fn exit_status_is_any_number() {
    for status in [0_u32, 1, 125, 126, 255, 256, u32::MAX] {
        let ran = run(
            &fixture("exit_code"),
            &with_arguments(&[&status.to_string()]),
            b"",
            &[],
        )
        .unwrap();
        assert_eq!(ran.exited.end, ProgramEnd::Exit(status));
    }
}

#[test]
fn arguments_and_environment_are_those_given_and_no_others() {
    let environment = ["A=1", "B=x=y", "EMPTY="].map(str::to_owned).to_vec();
    let ran = run(
        &fixture("environment"),
        &ProgramSetup {
            environment,
            ..with_arguments(&["", "two words"])
        },
        b"",
        &[],
    )
    .unwrap();
    assert_eq!(
        ran.stdout,
        "arg program\narg \narg two words\nenv A=1\nenv B=x=y\nenv EMPTY=\n"
    );
    for environment in ["no equals sign", "NUL=\0"] {
        let environment = vec![environment.to_owned()];
        let failed = run(
            &fixture("environment"),
            &ProgramSetup {
                environment,
                ..setup()
            },
            b"",
            &[],
        )
        .unwrap_err();
        assert!(
            failed.message.contains("environment variable"),
            "{}",
            failed.message
        );
    }
}

#[test]
fn input_is_copied_from_pipes_and_files() {
    let text = "0123456789abcdef".repeat(20_000);
    let ran = run(&fixture("cat"), &setup(), text.as_bytes(), &[]).unwrap();
    assert_eq!(ran.exited.end, ProgramEnd::Exit(0));
    assert!(ran.stdout == text);

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let input = OwnedFd::from(file.reopen().unwrap());
    let ran = run_with(&compile(&fixture("cat")), &setup(), input, &[]).unwrap();
    assert!(ran.stdout == text);
}

/// The flags of a stream are shared with whoever else holds it: they stay as
/// they were, and a stream that somebody made non-blocking still works.
#[test]
fn a_non_blocking_input_works_and_stays_non_blocking() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let artefact = compile(&fixture("cat"));
    for flags in [OFlags::empty(), OFlags::NONBLOCK] {
        let (reader, writer) = pipe();
        fcntl_setfl(&reader, flags).unwrap();
        let kept = reader.try_clone().unwrap();
        let before = fcntl_getfl(&kept).unwrap();
        let feeder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            fs::File::from(writer).write_all(b"late").unwrap();
        });
        let ran = run_with(&artefact, &setup(), reader, &[]).unwrap();
        feeder.join().unwrap();
        assert_eq!(
            (ran.stdout.as_str(), fcntl_getfl(&kept).unwrap()),
            ("late", before)
        );
    }
}

#[test]
fn a_closed_output_is_epipe() {
    let (input, _) = pipe();
    let (reader, writer) = pipe();
    drop(reader);
    let artefact = compile(&fixture("flood"));
    let stderr = OwnedFd::from(tempfile::tempfile().unwrap());
    let program = lazaret_guest::program::Program::load(
        harness::engine(),
        &artefact,
        &setup(),
        [input, writer, stderr],
        None,
        vec![],
    )
    .unwrap();
    // 64 is `pipe` among WASI's errors.
    assert_eq!(
        program.run(&mut harness::exchange()).end,
        ProgramEnd::Exit(64)
    );
}

#[test]
fn what_was_written_before_a_trap_is_out_and_in_order() {
    let output = tempfile::NamedTempFile::new().unwrap();
    let open = || {
        OwnedFd::from(
            fs::OpenOptions::new()
                .append(true)
                .open(output.path())
                .unwrap(),
        )
    };
    let module = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\20\00\00\00\02\00\00\00") (data (i32.const 32) "o\n")
        (data (i32.const 8) "\24\00\00\00\02\00\00\00") (data (i32.const 36) "e\n")
        (func (export "_start") (local $left i32)
            (local.set $left (i32.const 3))
            (loop $again
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
                (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 16)))
                (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            unreachable))"#;
    let artefact = compile(module.as_bytes());
    let program = lazaret_guest::program::Program::load(
        harness::engine(),
        &artefact,
        &setup(),
        [pipe().0, open(), open()],
        None,
        vec![],
    )
    .unwrap();
    let exited = program.run(&mut harness::exchange());
    assert!(matches!(exited.end, ProgramEnd::Trap(trap) if trap.kind == TrapKind::Unreachable));
    assert_eq!(
        fs::read_to_string(output.path()).unwrap(),
        "o\ne\no\ne\no\ne\n"
    );
}

#[test]
fn traps_have_a_kind_and_a_named_backtrace() {
    let ran = run(&fixture("trap"), &setup(), b"", &[]).unwrap();
    let ProgramEnd::Trap(trap) = ran.exited.end else {
        panic!("{:?}", ran.exited.end)
    };
    assert_eq!(
        (trap.kind, trap.message.as_str()),
        (
            TrapKind::Unreachable,
            "wasm `unreachable` instruction executed"
        )
    );
    let frames: Vec<&str> = trap.backtrace.lines().collect();
    assert_eq!(frames.len(), 3, "{}", trap.backtrace);
    for (frame, name) in frames.iter().zip(["innermost", "middle", "_start"]) {
        assert!(frame.ends_with(name), "{frame}");
    }
    let ran = run(&fixture("trap_memory"), &setup(), b"", &[]).unwrap();
    assert!(
        matches!(&ran.exited.end, ProgramEnd::Trap(trap) if trap.kind == TrapKind::MemoryOutOfBounds),
        "{:?}",
        ran.exited.end
    );
}

#[test]
fn a_segment_that_does_not_fit_is_a_trap() {
    let module = r#"(module (memory (export "memory") 1) (data (i32.const 65535) "ab") (func (export "_start")))"#;
    let ran = run(module.as_bytes(), &setup(), b"", &[]).unwrap();
    assert!(
        matches!(&ran.exited.end, ProgramEnd::Trap(trap) if trap.kind == TrapKind::MemoryOutOfBounds),
        "{:?}",
        ran.exited.end
    );
}

/// A start function is guest code: loading must not run it.
#[test]
fn a_start_function_runs_after_loading() {
    let module = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\06\00\00\00start\n\00\00start\n")
        (func $first (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))))
        (start $first)
        (func (export "_start")))"#;
    let output = tempfile::NamedTempFile::new().unwrap();
    let read = || fs::read_to_string(output.path()).unwrap();
    let artefact = compile(module.as_bytes());
    let streams = [
        pipe().0,
        OwnedFd::from(output.reopen().unwrap()),
        OwnedFd::from(tempfile::tempfile().unwrap()),
    ];
    let program = lazaret_guest::program::Program::load(
        harness::engine(),
        &artefact,
        &setup(),
        streams,
        None,
        vec![],
    )
    .unwrap();
    assert_eq!(read(), "");
    assert_eq!(
        program.run(&mut harness::exchange()).end,
        ProgramEnd::Exit(0)
    );
    assert_eq!(read(), "start\n");
}

#[test]
fn memory_beyond_the_limit_is_refused() {
    let limit = 16 << 20;
    let ran = run(
        &fixture("memory_hog"),
        &ProgramSetup {
            memory_limit: limit,
            ..setup()
        },
        b"",
        &[],
    )
    .unwrap();
    assert_eq!(
        (ran.exited.end, ran.stdout.as_str()),
        (ProgramEnd::Exit(0), "refused\n")
    );
    assert!(ran.exited.memory_limit_hit);
    assert_eq!(ran.exited.peak_memory, (15 << 20) + 65536);
}

#[test]
fn growth_that_the_type_forbids_is_not_the_limit() {
    let module = r#"(module (memory 1 2) (table 1 2 funcref) (memory 1) (table 1 funcref)
        (func $refused (param i32) (if (i32.ne (local.get 0) (i32.const -1)) (then unreachable)))
        (func (export "_start")
            (call $refused (memory.grow 0 (i32.const 2)))
            (call $refused (memory.grow 1 (i32.const 65536)))
            (call $refused (table.grow 0 (ref.null func) (i32.const 2)))))"#;
    let ran = run(
        module.as_bytes(),
        &ProgramSetup {
            memory_limit: u64::MAX,
            ..setup()
        },
        b"",
        &[],
    )
    .unwrap();
    assert_eq!(
        (ran.exited.end, ran.exited.memory_limit_hit),
        (ProgramEnd::Exit(0), false)
    );
}

#[test]
fn a_memory_that_starts_too_large_fails_with_both_numbers() {
    let failed = run(&fixture("memory_minimum"), &setup(), b"", &[]).unwrap_err();
    assert_eq!(
        failed.message,
        "the module wants at least 2147483648 bytes of memory, the limit is 67108864: raise it with --memory"
    );
}

#[test]
fn modules_that_are_no_commands_are_refused_in_words() {
    let message = |module: &[u8]| run(module, &setup(), b"", &[]).unwrap_err().message;
    assert_eq!(
        message(br#"(module (import "env" "foo" (func)) (import "env" "bar" (memory 1)) (import "wasi_snapshot_preview1" "nope" (func)) (func (export "_start")))"#),
        "the module imports what Lazaret does not provide: env.bar, env.foo, wasi_snapshot_preview1.nope"
    );
    assert!(
        message(br#"(module (import "wasi_unstable" "fd_write" (func)) (func (export "_start")))"#)
            .contains("preview 1")
    );
    assert!(message(br#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (func (export "_start")))"#).contains("fd_write"));
    assert!(message(b"(module)").starts_with("the module is no command"));
    assert!(
        message(br#"(module (func (export "_start") (param i32)))"#)
            .starts_with("the module is no command")
    );
    assert!(message(br#"(module (func (export "_initialize")))"#).contains("reactor"));
}

#[test]
fn fuel_for_an_unmetered_module_is_refused() {
    let failed = run(
        &fixture("hello"),
        &ProgramSetup {
            fuel: Some(1000),
            ..setup()
        },
        b"",
        &[],
    )
    .unwrap_err();
    assert!(
        failed.message.contains("without metering"),
        "{}",
        failed.message
    );
}

/// The globals as the instrumentation adds them, by hand.
#[test]
fn fuel_is_set_before_and_read_after() {
    let module = r#"(module
        (global (export "lazaret:fuel") (mut i64) (i64.const 0))
        (global (export "lazaret:stop") (mut i32) (i32.const 0))
        (func (export "_start")
            (global.set 0 (i64.sub (global.get 0) (i64.const 60)))
            (if (i64.lt_s (global.get 0) (i64.const 0)) (then (global.set 1 (i32.const 1)) unreachable))))"#;
    let run = |fuel| {
        run(
            module.as_bytes(),
            &ProgramSetup { fuel, ..setup() },
            b"",
            &[],
        )
        .unwrap()
        .exited
    };
    let enough = run(Some(100));
    assert_eq!(
        (enough.end, enough.fuel_left),
        (ProgramEnd::Exit(0), Some(40))
    );
    let short = run(Some(50));
    assert!(matches!(short.end, ProgramEnd::Trap(trap) if trap.kind == TrapKind::Fuel));
    assert_eq!(short.fuel_left, Some(0));
    assert_eq!(
        (run(None).end, run(None).fuel_left),
        (ProgramEnd::Exit(0), None)
    );
}

/// Nanoseconds between loading a program and running it: longer than any tick.
const WAITED: u64 = 200_000_000;

#[test]
fn clocks_and_random_bytes() {
    let output = tempfile::NamedTempFile::new().unwrap();
    let artefact = compile(&fixture("clocks"));
    let run = |clock| {
        let streams = [
            pipe().0,
            OwnedFd::from(output.reopen().unwrap()),
            OwnedFd::from(tempfile::tempfile().unwrap()),
        ];
        let program = lazaret_guest::program::Program::load(
            harness::engine(),
            &artefact,
            &ProgramSetup { clock, ..setup() },
            streams,
            None,
            vec![],
        )
        .unwrap();
        std::thread::sleep(Duration::from_nanos(WAITED));
        assert_eq!(
            program.run(&mut harness::exchange()).end,
            ProgramEnd::Exit(0)
        );
        let bytes = fs::read(output.path()).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        [number(0), number(8), number(16)]
    };
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let before = now();
    // A machine that is emulated loses ticks.
    let (waited, tick) = (WAITED, 50_000_000);
    let [real, monotonic, random] = run(Clock::Exact);
    assert!((before + waited..=now()).contains(&real));
    assert!((waited..10_000_000_000).contains(&monotonic), "{monotonic}");
    assert_ne!(random, run(Clock::Exact)[2]);
    let before = now();
    let [real, monotonic, _] = run(Clock::Coarse);
    assert!((before + waited - tick..=now()).contains(&real));
    assert!(
        (waited - tick..10_000_000_000).contains(&monotonic),
        "{monotonic}"
    );
    // When it was loaded, not when it ran.
    let before = now();
    let [real, monotonic, _] = run(Clock::Frozen);
    assert!((before - tick..=now() - waited).contains(&real));
    assert_eq!(monotonic, 0);
}

#[test]
fn input_and_a_clock_are_waited_for_at_once() {
    for clock in [Clock::Coarse, Clock::Exact, Clock::Frozen] {
        input_and_a_clock(clock);
    }
}

fn input_and_a_clock(clock: Clock) {
    let artefact = compile(&fixture("poll"));
    let (reader, writer) = pipe();
    let before = Instant::now();
    let feeder = std::thread::spawn(move || {
        let mut writer = fs::File::from(writer);
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(130));
            writer.write_all(b"word\n").unwrap();
        }
    });
    let setup = ProgramSetup { clock, ..setup() };
    let ran = run_with(&artefact, &setup, reader, &[]).unwrap();
    feeder.join().unwrap();
    assert_eq!(ran.exited.end, ProgramEnd::Exit(0));
    // 130 ms have two whole periods of 50 ms; a slow machine may begin to wait when
    // the first word is there already.
    assert!(ran.stdout.contains("tick\n"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("word\n").count(), 2, "{}", ran.stdout);
    assert!(ran.stdout.ends_with("end of input\n"), "{}", ran.stdout);
    assert!(before.elapsed() >= Duration::from_millis(260));
}

fn files(
    operation: &str,
    path: &str,
    input: &[u8],
    directory: &Path,
    writable: bool,
) -> (u32, String) {
    let ran = run(
        &fixture("files"),
        &with_arguments(&[operation, path]),
        input,
        &[(directory, writable)],
    )
    .unwrap();
    match ran.exited.end {
        ProgramEnd::Exit(status) => (status, ran.stdout),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_writable_directory_can_be_used_and_not_left() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(outer.path().join("outside"), "secret").unwrap();
    let files =
        |operation: &str, path: &str, input: &[u8]| files(operation, path, input, &inner, true);
    assert_eq!(files("write", "a", b"text").0, 0);
    assert_eq!(fs::read_to_string(inner.join("a")).unwrap(), "text");
    assert_eq!(files("read", "a", b""), (0, "text".to_owned()));
    assert_eq!(files("mkdir", "d", b"").0, 0);
    let (status, names) = files("list", ".", b"");
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!((status, names), (0, vec![".", "..", "a", "d"]));
    assert_eq!(files("symlink", "link", b"").0, 0);
    // 63 is `perm`, 76 `notcapable`, 44 `noent`.
    for path in ["link", "../outside", "d/../../outside"] {
        let (status, text) = files("read", path, b"");
        assert!(
            matches!(status, 63 | 76) && text.is_empty(),
            "{path}: {status} {text}"
        );
    }
    assert_ne!(
        files("read", outer.path().join("outside").to_str().unwrap(), b"").0,
        0
    );
    assert_eq!(files("unlink", "a", b"").0, 0);
    assert_eq!(files("read", "a", b"").0, 44);
}

#[test]
fn a_read_only_directory_can_only_be_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a"), "text").unwrap();
    let files =
        |operation: &str, path: &str| files(operation, path, b"new", directory.path(), false);
    assert_eq!(files("read", "a"), (0, "text".to_owned()));
    assert_eq!(files("list", ".").0, 0);
    for (operation, path) in [
        ("write", "a"),
        ("write", "b"),
        ("unlink", "a"),
        ("mkdir", "d"),
        ("symlink", "l"),
    ] {
        let (status, _) = files(operation, path);
        assert!(matches!(status, 63 | 69 | 76), "{operation}: {status}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(
        fs::read_to_string(directory.path().join("a")).unwrap(),
        "text"
    );
}

#[test]
fn without_a_grant_there_is_no_directory() {
    let ran = run(&fixture("files"), &with_arguments(&["read", "a"]), b"", &[]).unwrap();
    assert_eq!(ran.exited.end, ProgramEnd::Exit(8));
}
