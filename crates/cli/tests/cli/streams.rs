//! A program's streams are the command's own, and no verb panics when the other
//! end is gone.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use crate::support::{Data, Run, done_with, lazaret, wat};

#[test]
fn standard_input_is_the_program_s() {
    let text = b"one\ntwo\0three\xff".repeat(20_000);
    let output = {
        let mut child = lazaret()
            .arg("run")
            .arg(wat("cat"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = text.clone();
        let feed =
            std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input).unwrap());
        let output = child.wait_with_output().unwrap();
        feed.join().unwrap();
        output
    };
    assert!(output.status.success());
    assert!(
        output.stdout == text,
        "{} of {} bytes came back",
        output.stdout.len(),
        text.len()
    );
}

#[test]
fn standard_input_can_be_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input");
    std::fs::write(&input, "from a file\n").unwrap();
    lazaret()
        .args(["run", "--stdin"])
        .arg(&input)
        .arg(wat("cat"))
        .run()
        .exits(0)
        .prints("from a file\n");
    lazaret()
        .arg("run")
        .arg(wat("cat"))
        .stdin(File::open(&input).unwrap())
        .run()
        .exits(0)
        .prints("from a file\n");
    lazaret()
        .args(["run", "--stdin", "/no/such/file"])
        .arg(wat("cat"))
        .run()
        .fails(2, &["--stdin /no/such/file", "No such file"]);
}

#[test]
fn a_directory_or_a_device_is_no_standard_input() {
    lazaret()
        .arg("run")
        .arg(wat("cat"))
        .stdin(File::open("/").unwrap())
        .run()
        .fails(2, &["standard input is a directory"]);
    lazaret()
        .args(["run", "--stdin", "/"])
        .arg(wat("cat"))
        .run()
        .fails(2, &["standard input is a directory"]);
    lazaret()
        .args(["run", "--stdin", "/dev/zero"])
        .arg(wat("cat"))
        .run()
        .fails(2, &["character device"]);
}

#[test]
fn a_module_from_standard_input_has_none_itself() {
    let module = wat::parse_file(wat("cat")).unwrap();
    done_with(lazaret().args(["run", "-"]), &module)
        .exits(0)
        .prints("");
    done_with(lazaret().args(["run", "-"]), b"(module")
        .exits(2)
        .says(&["does not parse"]);
    let environment = std::fs::read(wat("environment")).unwrap();
    done_with(lazaret().args(["run", "-", "a", "--time"]), &environment)
        .exits(0)
        .prints("arg program\narg a\narg --time\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_program_without_a_panic() {
    let mut child = lazaret()
        .arg("run")
        .arg(wat("flood"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(first, [b'y'; 100]);
    // It sees EPIPE (64 in WASI) as it would without us.
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(64),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A program that prints for ever into a pipe that is full and that nobody
/// reads. The reader's end stays open all the while.
fn unread(standard: &str, arguments: &[&str]) -> (std::process::Child, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = lazaret();
    command.arg("run").args(arguments).arg(wat("flood"));
    let other = Stdio::null();
    match standard {
        "output" => command.stdout(writer).stderr(other),
        "both" => command.stdout(writer.try_clone().unwrap()).stderr(writer),
        other => panic!("{other}"),
    };
    (command.spawn().unwrap(), reader)
}

#[test]
fn a_reader_that_never_reads_does_not_hold_a_program_past_its_time() {
    for standard in ["output", "both"] {
        let (mut child, reader) = unread(standard, &["--time", "1s"]);
        assert_eq!(child.wait().unwrap().code(), Some(124), "{standard}");
        drop(reader);
    }
}

#[test]
fn output_that_is_not_read_in_time_is_a_time_limit() {
    let directory = tempfile::tempdir().unwrap();
    // 96 KiB, more than a pipe holds, and then a good end.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 3)
        (data (i32.const 0) "\00\01\00\00\00\80\01\00")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    let path = crate::support::module(directory.path(), "much.wat", text);
    let report = directory.path().join("report.json");
    let run = || {
        let mut command = lazaret();
        command.args(["run", "--time", "1s", "--report"]);
        command.arg(&report).arg(&path);
        command
    };
    let (reader, writer) = std::io::pipe().unwrap();
    run()
        .stdout(writer)
        .run()
        .exits(124)
        .says(&["its output was not read", "1s"]);
    drop(reader);
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(told["verdict"], "time_limit");
    assert_eq!(run().run().exits(0).stdout.len(), 96 << 10);
}

#[test]
fn a_signal_ends_a_command_whose_output_nobody_reads() {
    for (signal, number) in [("TERM", 15), ("INT", 2)] {
        let (mut child, reader) = unread("both", &[]);
        // Until the pipe is full (pipe(7): 16 pages unless changed).
        let full = || rustix::io::ioctl_fionread(&reader).unwrap() >= 64 << 10;
        while !full() {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(number)
        );
    }
}

#[test]
fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
    let data = Data::with(&["counter"]);
    let verbs: [&[&str]; 6] = [
        &["ps"],
        &["audit"],
        &["doctor"],
        &["man"],
        &["completions", "bash"],
        &["call", "counter", "get"],
    ];
    for verb in verbs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = data.verb(verb[0]).args(&verb[1..]).stdout(writer).run();
        assert!(
            done.code == Some(0) && done.stderr.is_empty(),
            "{verb:?}: {done:?}"
        );
        let full = File::options().write(true).open("/dev/full").unwrap();
        let done = data
            .verb(verb[0])
            .args(&verb[1..])
            .stdout(full)
            .run()
            .exits(1)
            .says(&["error: standard output: No space left"]);
        assert!(!done.stderr.contains("panicked"), "{done:?}");
    }
}

#[test]
fn closed_descriptors_are_survived() {
    for (redirection, code) in [(">&-", 0), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 0)] {
        let script = format!("exec \"$0\" run \"$1\" {redirection}");
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &script, env!("CARGO_BIN_EXE_lazaret")])
            .arg(wat("cat"))
            .env("XDG_CACHE_HOME", crate::support::cache());
        shell.stdin(Stdio::null()).run().exits(code);
    }
    let mut shell = std::process::Command::new("sh");
    shell
        .args([
            "-c",
            "exec \"$0\" run /no/such/module 2>&-",
            env!("CARGO_BIN_EXE_lazaret"),
        ])
        .run()
        .exits(2);
}

#[test]
fn logs_are_on_standard_error_and_results_on_standard_output() {
    let data = Data::with(&["counter"]);
    let done = data
        .verb("call")
        .args(["--log", "info", "--log-format", "json", "counter", "inc"])
        .run()
        .exits(0)
        .prints("(1 : nat)\n");
    let replied = done
        .stderr
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert!(
        replied
            .into_iter()
            .any(|line| line["level"] == "INFO" && line["fields"]["message"] == "replied"),
        "{done:?}"
    );
    data.verb("call")
        .args(["--log", "info", "counter", "get"])
        .run()
        .exits(0)
        .says(&["INFO", "replied"]);
    assert_eq!(
        data.verb("call")
            .args(["counter", "get"])
            .run()
            .exits(0)
            .stderr,
        ""
    );
}
