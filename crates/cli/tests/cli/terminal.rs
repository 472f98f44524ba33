//! On a terminal: progress and colour, and nothing that a program prints is
//! obeyed.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::support::{Run, fetched, lazaret, module};

/// The command on a terminal of its own, by script(1): all that appears there
/// is on standard output.
fn on_terminal(arguments: &str) -> Command {
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("{} {arguments}", env!("CARGO_BIN_EXE_lazaret")),
        "/dev/null",
    ]);
    script
        .stdin(Stdio::null())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    script
}

#[test]
fn a_long_compilation_shows_progress_and_a_pipe_sees_none() {
    // Takes many times half a second to compile, and nobody waits for it.
    let program = fetched("php.wasm");
    let mut piped = lazaret()
        .args(["run", "--no-cache"])
        .arg(&program)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = on_terminal(&format!("run --no-cache {}", program.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    let mut screen = terminal.stdout.take().unwrap();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&shown).contains("compiling a module of 12.5 MiB") {
        let read = screen.read(&mut buffer).unwrap();
        assert!(read > 0, "no progress: {}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&buffer[..read]);
    }
    // The other began before this one.
    piped.kill().unwrap();
    let quiet = piped.wait_with_output().unwrap();
    assert!(
        quiet.stdout.is_empty() && quiet.stderr.is_empty(),
        "{quiet:?}"
    );
    terminal.kill().unwrap();
    terminal.wait().unwrap();
}

#[test]
fn colour_is_for_terminals() {
    let shown = on_terminal("ps --data /no/such/directory").run();
    assert!(shown.stdout.contains("\u{1b}[1mNAME"), "{shown:?}");
    let piped = lazaret().args(["ps", "--data", "/no/such/directory"]).run();
    assert!(!piped.stdout.contains('\u{1b}'), "{piped:?}");
    let error = lazaret().run();
    assert!(error.stderr.starts_with("error: "), "{error:?}");
}

#[test]
fn a_program_can_t_drive_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\08\00\00\00")
        (data (i32.const 16) "a\1b[2Jb\07\n")
        (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    let rude = module(directory.path(), "rude.wat", text);
    let shown = on_terminal(&format!("run --no-cache {}", rude.display())).run();
    assert!(shown.stdout.contains("a␛[2Jb␇"), "{shown:?}");
    // A pipe gets the bytes as they are.
    lazaret()
        .arg("run")
        .arg(&rude)
        .run()
        .exits(0)
        .prints("a\u{1b}[2Jb\u{7}\n");
}
