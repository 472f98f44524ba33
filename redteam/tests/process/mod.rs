//! Processes of a test: itself again, as each user; what it started; their
//! ends.
// Every test binary uses a part of this.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// Says to a child that it is one.
const CHILD: &str = "LAZARET_REDTEAM_CHILD";
/// The hostile worker's executable, for children.
pub const WORKER_EXE: &str = "LAZARET_REDTEAM_WORKER_EXE";
/// `nobody`: an ordinary user that every Linux has.
const ORDINARY: u32 = 65_534;
/// How long a child may take, on an emulated processor too. One that hangs fails its
/// test.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long its output may outlive it: a launcher that is left behind holds
/// its standard error, and the test must fail, not hang.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Whether this is a child.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// The users that this process can be: itself, and an ordinary one if it is
/// root.
pub fn users() -> Vec<u32> {
    match rustix::process::geteuid().as_raw() {
        0 => vec![0, ORDINARY],
        user => vec![user],
    }
}

/// Runs `body` in a child for each user: `name` is the test's, which calls
/// this first of all.
pub fn as_each_user(name: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    for user in users() {
        let done = Child::start(name, user).finish();
        assert!(done.0, "as uid {user}:\n{}", done.1);
    }
}

/// A child of this test, and the directory that it has for itself.
pub struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
    seen: String,
    _home: tempfile::TempDir,
}

impl Child {
    /// Runs the test `name` of this binary as `user`.
    pub fn start(name: &str, user: u32) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        // Copies that the user can read, wherever this was built.
        let test = copy(
            &std::env::current_exe().expect("this test"),
            home.path(),
            "test",
        );
        let worker = copy(
            Path::new(env!("CARGO_BIN_EXE_lazaret-redteam")),
            home.path(),
            "worker",
        );
        let own = home.path().join("own");
        std::fs::create_dir(&own).expect("a directory");
        chown(&own, Some(user), Some(user)).expect("its owner");
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
        let (output, write) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(test);
        command
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(CHILD, "1")
            .env(WORKER_EXE, worker)
            .env("TMPDIR", &own)
            .current_dir(&own)
            .stdin(Stdio::piped())
            .stdout(write.try_clone().expect("the pipe"))
            .stderr(write);
        if user != rustix::process::geteuid().as_raw() {
            command.uid(user).gid(user);
        }
        let process = command.spawn().expect("a child");
        // The pipe's writing end stays in the command otherwise.
        drop(command);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            process,
            lines,
            seen: String::new(),
            _home: home,
        }
    }

    /// The rest of its first line that holds `mark`.
    pub fn line(&mut self, mark: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("the child said nothing, or ended:\n{}", self.seen)
            };
            self.seen.push_str(&line);
            self.seen.push('\n');
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.to_owned();
            }
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(mut self) {
        self.process.kill().expect("a kill");
        self.process.wait().expect("its end");
    }

    /// Waits for its end: whether it went well, and what it printed.
    fn finish(mut self) -> (bool, String) {
        drop(self.process.stdin.take());
        let mut well = end_of(&pidfd(self.process.id() as i32), PATIENCE);
        if !well {
            self.seen
                .push_str(&format!("not done within {} s\n", PATIENCE.as_secs()));
            self.process.kill().expect("a kill");
        }
        let status = self.process.wait().expect("its end");
        while let Ok(line) = self.lines.recv_timeout(AFTERWARDS) {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        // A name that matches no test would go well, too.
        well &= status.success() && self.seen.contains("1 passed");
        (well, format!("{status}\n{}", self.seen))
    }
}

fn copy(from: &Path, to: &Path, name: &str) -> PathBuf {
    let to = to.join(name);
    std::fs::copy(from, &to).expect("a copy");
    std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).expect("its mode");
    to
}

/// A process's parent, if it lives.
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    (rest.next()? != "Z").then_some(())?;
    rest.next()?.parse().ok()
}

/// Living descendants of this process, to the second degree, whose first
/// argument begins so.
pub fn found(name: &str) -> Vec<i32> {
    let me = std::process::id() as i32;
    let mut all: Vec<i32> = std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent(*pid).is_some_and(|over| over == me || parent(over) == Some(me)))
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(name.as_bytes()))
        })
        .collect();
    all.sort_unstable();
    all
}

fn pid(number: i32) -> Pid {
    Pid::from_raw(number).expect("a process")
}

/// A descriptor of a process.
pub fn pidfd(number: i32) -> OwnedFd {
    rustix::process::pidfd_open(pid(number), PidfdFlags::empty())
        .unwrap_or_else(|errno| panic!("process {number}: {errno}"))
}

/// SIGKILL.
pub fn kill(number: i32) {
    rustix::process::kill_process(pid(number), Signal::KILL)
        .unwrap_or_else(|errno| panic!("kill {number}: {errno}"));
}

/// Waits for the end of a process: whether it came within `limit`.
pub fn end_of(pidfd: &OwnedFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// Looks again and again until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within 120 s");
        std::thread::yield_now();
    }
}
