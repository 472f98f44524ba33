//! Ctrl-C and SIGTERM end the command at once, by the signal, and everything
//! that was started for it.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{lazaret, module};

/// A process: its number and when it was started, as numbers are used again.
pub type Process = (u32, String);

/// Every process with its parent (proc_pid_stat(5): fields 4 and 22, counted
/// from behind the name, which may hold anything).
fn processes() -> HashMap<u32, (u32, Process)> {
    let read = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some((
            pid,
            (
                fields.get(1)?.parse().ok()?,
                (pid, (*fields.get(19)?).to_owned()),
            ),
        ))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

pub fn descendants(of: u32) -> Vec<Process> {
    let all = processes();
    let mut found = Vec::new();
    let mut open = vec![of];
    while let Some(parent) = open.pop() {
        for (pid, (_, process)) in all.iter().filter(|(_, (of, _))| *of == parent) {
            open.push(*pid);
            found.push(process.clone());
        }
    }
    found
}

fn ends_by(signal: &str, number: i32) {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\08\00\00\00")
        (data (i32.const 16) "running\n")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (loop $forever (br $forever))))"#;
    let endless = module(directory.path(), "endless.wat", text);
    let mut child = lazaret()
        .arg("run")
        .arg(endless)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 8];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    assert_eq!(&said, b"running\n");
    let started = descendants(child.id());
    assert!(started.len() >= 2, "a launcher and a worker: {started:?}");

    assert!(
        Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().signal(), Some(number));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let now = processes();
        let left: Vec<&Process> = started
            .iter()
            .filter(|process| {
                now.get(&process.0)
                    .is_some_and(|(_, other)| other == *process)
            })
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "still there: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sigterm_ends_everything() {
    ends_by("TERM", 15);
}

#[test]
fn ctrl_c_ends_everything() {
    ends_by("INT", 2);
}

#[test]
fn sigkill_ends_everything() {
    ends_by("KILL", 9);
}
