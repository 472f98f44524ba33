//! No thread is ever started, not even for a moment: counted in a process of
//! its own, as the tests of this one have threads.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use lazaret_guest::program::Program;
use lazaret_wire::message::{Preopen, ProgramEnd, ProgramSetup};

use super::harness::{compile, engine, exchange, fixture, setup};

/// What the child is to run: a module, a directory, and arguments.
const MODULE: &str = "LAZARET_TEST_MODULE";
const DIRECTORY: &str = "LAZARET_TEST_DIRECTORY";
const READ_ONLY: &str = "LAZARET_TEST_READ_ONLY";
const ARGUMENTS: &str = "LAZARET_TEST_ARGUMENTS";
const READY: &str = "LAZARET_TEST_READY";

/// The child's part. It does nothing when run as a test among the others.
#[test]
fn child() {
    let Ok(module) = std::env::var(MODULE) else {
        return;
    };
    let artefact = compile(&fs::read(module).unwrap());
    let preopens: Vec<OwnedFd> = std::env::var(DIRECTORY)
        .iter()
        .map(|path| File::open(path).unwrap().into())
        .collect();
    let setup = ProgramSetup {
        arguments: std::env::var(ARGUMENTS)
            .unwrap_or_default()
            .split('\x1f')
            .map(str::to_owned)
            .collect(),
        preopens: preopens
            .iter()
            .map(|_| Preopen {
                guest: "/".to_owned(),
                writable: std::env::var(READ_ONLY).is_err(),
            })
            .collect(),
        memory_limit: 1 << 30,
        ..setup()
    };
    let streams = [0, 1, 2].map(|number| {
        // SAFETY: the standard streams are open for as long as the process is.
        let stream = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        stream.try_clone_to_owned().unwrap()
    });
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let program = Program::load(engine(), &artefact, &setup, streams, None, preopens).unwrap();
    let mut exchange = exchange();
    if let Some(ready) = std::env::var_os(READY) {
        fs::write(ready, "").unwrap();
    }
    // Nothing else calls it: they bound the run in a trace of system calls.
    let _ = rustix::process::getppid();
    let exited = program.run(&mut exchange);
    let _ = rustix::process::getppid();
    assert_eq!(exited.end, ProgramEnd::Exit(0));
    // A pool keeps an idle thread for seconds.
    assert_eq!(threads(), before);
}

/// Runs `module` in a child whose input stays silent for 200 ms, from when it runs.
fn run_in_child(module: &[u8], input: &[u8], directory: &Path) -> String {
    use std::io::Write;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("module");
    fs::write(&path, module).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "threads::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(MODULE, &path)
        .env(DIRECTORY, directory)
        .env(READY, scratch.path().join("ready"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    while !scratch.path().join("ready").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    stdin.write_all(input).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn waiting_for_input_and_a_clock_starts_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let text = run_in_child(&fixture("poll"), b"word\n", directory.path());
    assert!(
        text.contains("tick\n") && text.contains("word\n") && text.contains("end of input\n"),
        "{text}"
    );
}

/// The engine's own `poll_oneoff` hands this one to a pool of threads.
#[test]
fn waiting_for_a_regular_file_starts_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "text").unwrap();
    let module = r#"(module
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "file")
        (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
        (func (export "_start")
            (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4)
                (i32.const 0) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 8)))
            ;; Reading and writing the file, and standard input, which stays silent for a while.
            (i64.store (i32.const 64) (i64.const 7))
            (i32.store8 (i32.const 72) (i32.const 1))
            (i32.store (i32.const 80) (i32.load (i32.const 8)))
            (i32.store8 (i32.const 120) (i32.const 2))
            (i32.store (i32.const 128) (i32.load (i32.const 8)))
            (i32.store8 (i32.const 168) (i32.const 1))
            (call $check (call $poll (i32.const 64) (i32.const 256) (i32.const 3) (i32.const 12)))
            ;; Two events, the first with its user data, without an error, of type 1.
            (if (i32.ne (i32.load (i32.const 12)) (i32.const 2)) (then (call $exit (i32.const 201))))
            (if (i64.ne (i64.load (i32.const 256)) (i64.const 7)) (then (call $exit (i32.const 202))))
            (if (i32.ne (i32.load (i32.const 264)) (i32.const 0x10000)) (then (call $exit (i32.const 203))))
            (if (i32.ne (i32.load (i32.const 296)) (i32.const 0x20000)) (then (call $exit (i32.const 204))))))"#;
    run_in_child(module.as_bytes(), b"", directory.path());
}
