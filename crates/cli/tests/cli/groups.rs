//! Control groups on the command line: what is said where they can't be had, and
//! what becomes of them when a command is killed.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Run, lazaret, wat};

fn run(options: &[&str]) -> Command {
    let mut command = lazaret();
    command.arg("run").args(options).arg(wat("hello"));
    command
}

#[test]
fn limits_that_can_not_be_are_bad_usage() {
    for (options, words) in [
        (["--cpu-limit", "2"].as_slice(), "a worker has one thread"),
        (
            &["--cpu-limit", "half"],
            "`half` is not a number of processors",
        ),
        (&["--cpu-weight", "0"], "a weight is between 1 and 10000"),
        (&["--io-weight", "10001"], "a weight is between 1 and 10000"),
        (&["--worker-memory", "1MiB"], "a worker needs"),
        (
            &["--cgroup", "off", "--cpu-limit", "0.5"],
            "--cpu-limit is kept by control groups, and --cgroup off turns them off",
        ),
        (
            &["--cgroup", "perhaps"],
            "possible values: auto, off, require",
        ),
    ] {
        let done = run(options).run().exits(2);
        assert!(done.stderr.contains(words), "{options:?}: {}", done.stderr);
        assert_eq!(done.stdout, "", "nothing ran");
    }
}

/// What `lazaret doctor` says of a controller.
fn works(controller: &str) -> bool {
    let text = lazaret().args(["doctor", "--json"]).run().stdout;
    let doctor: serde_json::Value = serde_json::from_str(&text).unwrap();
    let findings = doctor["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|finding| finding["name"] == controller);
    finding.unwrap()["probe"]["state"] == "works"
}

#[test]
fn what_is_required_runs_in_a_group_or_not_at_all() {
    let done = run(&["--cgroup", "require"]).run();
    let all = ["cgroup-memory", "cgroup-cpu", "cgroup-pids"];
    if all.into_iter().all(works) {
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (Some(0), "hello, lazaret\n")
        );
    } else {
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
        let words = "control groups are required (--cgroup require), but no ";
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
}

fn is_root() -> bool {
    // SAFETY: asks for a number.
    unsafe { libc::geteuid() == 0 }
}

/// A user who owns nothing has no groups: with them required nothing runs, and
/// without that the receipt says what is missing.
#[test]
fn nobody_is_told_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(directory.path(), mode(0o777)).unwrap();
    let report = directory.path().join("report.json");
    // Where only this user may read what was built, and where modules are.
    let executable = directory.path().join("lazaret");
    std::fs::copy(env!("CARGO_BIN_EXE_lazaret"), &executable).unwrap();
    std::fs::copy(wat("hello"), directory.path().join("hello.wat")).unwrap();
    let nobody = |options: &[&str]| {
        let mut command = Command::new(&executable);
        command
            .current_dir(directory.path())
            .args(["run", "--no-cache"])
            .args(options)
            .arg("hello.wat");
        if is_root() {
            command.uid(65_534).gid(65_534);
        }
        command
    };
    let done = nobody(&["--cgroup", "require"]).run();
    if done.code == Some(0) {
        // This user has a delegated group.
        assert!(!is_root());
        return;
    }
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(
        done.stderr
            .contains("control groups are required (--cgroup require), but no memory"),
        "{}",
        done.stderr
    );
    let done = nobody(&["--cpu-limit", "0.5"]).run().exits(1);
    let words = "--cpu-limit needs the cpu controller, but ";
    assert!(done.stderr.contains(words), "{}", done.stderr);

    let done = nobody(&["--report", "report.json"]).run().exits(0);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("hello, lazaret\n", "")
    );
    let text = std::fs::read_to_string(&report).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let group = &report["receipt"]["cgroup"];
    assert_eq!(group["state"], "missing");
    let evidence = group["evidence"].as_str().unwrap();
    assert!(
        evidence.starts_with("limits underneath only: no memory"),
        "{evidence}"
    );

    // Once, to whoever wants to know.
    let done = nobody(&["--log", "info"]).run().exits(0);
    let words = "workers have no control groups";
    assert_eq!(done.stderr.matches(words).count(), 1, "{}", done.stderr);
    assert!(done.stderr.contains("remedy="), "{}", done.stderr);
}

/// Groups of hosts with this process id, wherever groups are mounted.
fn groups_of(pid: u32) -> Vec<PathBuf> {
    fn look(directory: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if !path.is_dir() || path.is_symlink() {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with("lazaret-")
                && entry.file_name().to_string_lossy().contains(name)
            {
                found.push(path.clone());
            }
            if depth > 0 {
                look(&path, name, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    look(
        Path::new("/sys/fs/cgroup"),
        &format!("-{pid}-"),
        7,
        &mut found,
    );
    found
}

#[test]
fn what_a_killed_host_leaves_is_removed_by_the_next() {
    let mut command = lazaret();
    command.arg("run").arg(wat("loop"));
    let mut host = command.spawn().unwrap();
    if !works("cgroup-memory") && !works("cgroup-pids") {
        host.kill().unwrap();
        host.wait().unwrap();
        return;
    }
    while !groups_of(host.id()).iter().any(|group| {
        let tasks = std::fs::read_to_string(group.join("cgroup.procs"));
        tasks.is_ok_and(|tasks| !tasks.is_empty())
    }) {
        assert_eq!(host.try_wait().unwrap(), None, "it ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(!groups_of(host.id()).is_empty());
    // Its worker ends a moment after it.
    for _ in 0..50 {
        run(&[]).run().exits(0);
        if groups_of(host.id()).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{:?}", groups_of(host.id()));
}

#[test]
fn audit_says_what_groups_limit() {
    let text = lazaret().arg("audit").run().exits(0).stdout;
    for words in ["A worker's control group", "1 task", "64 MiB; no swap"] {
        assert!(text.contains(words), "{words}");
    }
    let text = lazaret().args(["audit", "--json"]).run().exits(0).stdout;
    let audit: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = audit["cgroups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["memory", "cpu", "pids", "io"]);
}
