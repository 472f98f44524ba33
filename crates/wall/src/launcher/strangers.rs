//! Processes that nobody started on purpose, where no PID namespace ends them
//! with their worker.
//!
//! A launcher with a PID namespace is its pid 1: the kernel ends everybody in it
//! with the launcher, and all that a worker has started with the worker, which is
//! pid 1 of its own. Without one, the launcher is the *subreaper* of all that its
//! workers leave behind (prctl(2), `PR_SET_CHILD_SUBREAPER`): what is its child
//! and no worker is a stranger, and is killed as soon as that is seen. A worker
//! has the kernel kill it when its launcher ends (`PR_SET_PDEATHSIG`), so that a
//! launcher that is killed has no worker left behind either.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};

/// How often the children are looked at: a stranger that forks as fast as it can
/// loses in a few rounds, as none of its children outlives the next.
const ROUNDS: usize = 1000;

/// Makes this process the parent of whatever its descendants leave behind.
///
/// # Errors
/// The kernel's.
pub(super) fn adopt() -> rustix::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
}

/// Kills and reaps every child but `workers`, and what these leave behind.
/// `proc` is the directory of the PID namespace that this process is in.
pub(super) fn kill(proc: &OwnedFd, workers: &HashSet<i32>) {
    for _ in 0..ROUNDS {
        let strangers: Vec<Pid> = children(proc)
            .into_iter()
            .filter(|pid| !workers.contains(pid))
            .filter_map(Pid::from_raw)
            .collect();
        if strangers.is_empty() {
            return;
        }
        for pid in strangers {
            // A child's number is its own until it is reaped, which nobody else
            // does.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

/// The numbers of this process's children.
fn children(proc: &OwnedFd) -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero();
    // Of a process with one thread its first thread has all children; the file is
    // there with CONFIG_PROC_CHILDREN (proc_pid_task(5)).
    if let Some(text) = read(proc, &format!("self/task/{own}/children")) {
        return text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
    }
    let Ok(directory) = Dir::read_from(proc) else {
        return Vec::new();
    };
    directory
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().ok()?.parse::<i32>().ok())
        .filter(|pid| parent(proc, *pid) == Some(own.get()))
        .collect()
}

/// The parent of a process: the second field after its name (proc_pid_stat(5)).
fn parent(proc: &OwnedFd, pid: i32) -> Option<i32> {
    let stat = read(proc, &format!("{pid}/stat"))?;
    // The name may hold anything, but ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

fn read(proc: &OwnedFd, path: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, path, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(4096);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Some(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
