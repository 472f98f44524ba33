//! What a program really did, of all that its worker might: which system calls
//! it made, with which arguments, on which files.
//!
//! A worker that is learned from is locked as one whose module imports
//! nothing. Every call that it makes beyond that stops it, and the host lets
//! those go on that are on the list of its real imports and grants: the same
//! list, and never more. A call was decided on by its registers, of which the
//! kernel made a copy, so nothing that the worker does meanwhile can change it
//! (seccomp_unotify(2) warns of memory that is pointed to, on which nothing is
//! decided here).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use lazaret_wall::policy::{Kind, Policy, ProgramRights, Uses, policy};
use lazaret_wall::supervisor::ForbiddenCall;
use serde::Serialize;

use super::grants::Directory;

/// Of one argument so many values are told apart.
const VALUES: usize = 8;
/// Of one directory so many paths.
const PATHS: usize = 1000;
/// The longest path that is read (PATH_MAX).
const PATH: usize = 4096;

/// What was learned from one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Learned {
    /// Calls that were made, by name.
    pub used: Vec<UsedCall>,
    /// Calls that could have been made and weren't, with what they are there
    /// for: what the smallest policy for such a run leaves out of the computed
    /// one.
    pub unused: Vec<UnusedCall>,
    /// Calls that every worker has, made or not: waiting, memory, its end.
    pub base: Vec<&'static str>,
    /// What became of each granted directory.
    pub directories: Vec<UsedDirectory>,
}

/// A system call that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsedCall {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub number: i64,
    /// How often.
    pub count: u64,
    /// The values of each of its six arguments; null for one that had more
    /// than eight, as pointers do.
    pub arguments: [Option<Vec<u64>>; 6],
    /// What a worker needs it for.
    pub why: &'static str,
}

/// A system call that wasn't made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnusedCall {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub number: i64,
    /// What a worker needs it for.
    pub why: &'static str,
}

/// A directory that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsedDirectory {
    /// Its path for the guest.
    pub guest: String,
    /// Whether it was granted for writing.
    pub writable: bool,
    /// Whether anything was changed below it, or opened for that.
    pub written: bool,
    /// What was looked up below it, by path, with how often. At most 1,000.
    pub paths: BTreeMap<String, u64>,
}

impl UsedDirectory {
    /// What would have done for such a run: nothing, `ro`, or what was granted.
    pub fn enough(&self) -> &'static str {
        match (self.paths.is_empty() && !self.written, self.written) {
            (true, _) => "no grant",
            (false, false) => "read only",
            (false, true) => "writable",
        }
    }
}

/// One call, as it is counted.
#[derive(Debug, Default)]
struct Count {
    count: u64,
    arguments: [BTreeSet<u64>; 6],
}

#[derive(Debug, Default)]
struct Counts {
    calls: BTreeMap<u32, Count>,
    directories: Vec<UsedDirectory>,
}

/// Where one worker's calls are counted, and decided on.
#[derive(Debug)]
pub(crate) struct Lessons {
    /// What is on the list of its imports and grants.
    policy: Policy,
    /// What it may do without being asked.
    base: Policy,
    /// Device and inode of each granted directory.
    identities: Vec<Option<(u64, u64)>>,
    counts: Mutex<Counts>,
}

/// The call's descriptor and its path, as arguments; whether it changes
/// something there.
fn lookups(name: &str, arguments: &[u64; 6]) -> Vec<(u64, u64, bool)> {
    const CHANGES: u64 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u64;
    let [a, b, c, d, ..] = *arguments;
    match name {
        "openat" => vec![(a, b, c & CHANGES != 0)],
        "openat2" | "newfstatat" | "statx" | "readlinkat" | "faccessat" | "faccessat2" => {
            vec![(a, b, false)]
        }
        "mkdirat" | "unlinkat" | "utimensat" => vec![(a, b, true)],
        "symlinkat" => vec![(b, c, true)],
        "renameat" | "linkat" => vec![(a, b, true), (c, d, true)],
        _ => Vec::new(),
    }
}

impl Lessons {
    pub(super) fn new(rights: ProgramRights, directories: &[Directory]) -> Self {
        let nothing = ProgramRights {
            uses: Uses::NONE,
            ..rights
        };
        Self {
            policy: policy(Kind::Program(rights)),
            base: policy(Kind::Program(nothing)),
            identities: directories
                .iter()
                .map(|directory| identity(&directory.host))
                .collect(),
            counts: Mutex::new(Counts {
                directories: directories
                    .iter()
                    .map(|directory| UsedDirectory {
                        guest: directory.guest.clone(),
                        writable: directory.writable,
                        written: false,
                        paths: BTreeMap::new(),
                    })
                    .collect(),
                ..Counts::default()
            }),
        }
    }

    /// Whether a call of the worker `pid`, which it is stopped in, may go on;
    /// if so it is counted.
    pub(crate) fn note(&self, pid: i32, call: &ForbiddenCall) -> bool {
        let permitted = self
            .policy
            .permits(call.audit_architecture, call.number, &call.arguments);
        if !permitted {
            return false;
        }
        let found: Vec<(Option<usize>, Option<String>, bool)> = call
            .name
            .as_deref()
            .map(|name| lookups(name, &call.arguments))
            .unwrap_or_default()
            .into_iter()
            .map(|(directory, path, changes)| {
                let changes =
                    changes || call.name.as_deref() == Some("openat2") && opens(pid, call);
                (self.directory(pid, directory), text(pid, path), changes)
            })
            .collect();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.calls.entry(call.number).or_default();
        count.count = count.count.saturating_add(1);
        for (values, value) in count.arguments.iter_mut().zip(call.arguments) {
            if values.len() <= VALUES {
                values.insert(value);
            }
        }
        for (directory, path, changes) in found {
            let Some(directory) = directory.and_then(|at| counts.directories.get_mut(at)) else {
                continue;
            };
            directory.written |= changes;
            let path = path.unwrap_or_else(|| "(unreadable)".to_owned());
            if directory.paths.len() < PATHS || directory.paths.contains_key(&path) {
                *directory.paths.entry(path).or_default() += 1;
            }
        }
        true
    }

    /// Which of the granted directories a descriptor of the worker's is.
    fn directory(&self, pid: i32, descriptor: u64) -> Option<usize> {
        let here = identity(format!("/proc/{pid}/fd/{}", descriptor as u32 as i32).as_ref())?;
        self.identities.iter().position(|one| *one == Some(here))
    }

    /// What was learned by now.
    pub(super) fn learned(&self) -> Learned {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for allowed in &self.policy.allowed {
            let (name, number, why) = (allowed.name, allowed.number, allowed.why);
            let made = u32::try_from(number)
                .ok()
                .and_then(|number| counts.calls.get(&number));
            match made {
                Some(count) => used.push(UsedCall {
                    name,
                    number,
                    count: count.count,
                    arguments: count.arguments.each_ref().map(|values| {
                        (values.len() <= VALUES).then(|| values.iter().copied().collect())
                    }),
                    why,
                }),
                None if self.base.find(number).is_some() => {}
                None => unused.push(UnusedCall { name, number, why }),
            }
        }
        Learned {
            used,
            unused,
            base: self
                .base
                .allowed
                .iter()
                .map(|allowed| allowed.name)
                .collect(),
            directories: counts.directories.clone(),
        }
    }
}

/// Device and inode of what a path leads to.
fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(path).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Whether openat2's `how` opens for writing: its first word are the flags
/// (openat2(2)).
fn opens(pid: i32, call: &ForbiddenCall) -> bool {
    const CHANGES: u64 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u64;
    let mut flags = [0; 8];
    match read_memory(pid, call.arguments[2], &mut flags) {
        8 => u64::from_ne_bytes(flags) & CHANGES != 0,
        _ => true,
    }
}

/// A path in a worker's memory.
fn text(pid: i32, at: u64) -> Option<String> {
    let mut bytes = vec![0; PATH];
    let mut length = 0;
    while length < PATH {
        let from = at.checked_add(length as u64)?;
        // No further than the page: the next may not be there.
        let room = (PATH - length).min(4096 - (from as usize & 4095));
        let part = bytes.get_mut(length..length + room)?;
        let read = read_memory(pid, from, part);
        if let Some(end) = part.get(..read)?.iter().position(|byte| *byte == 0) {
            bytes.truncate(length + end);
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        if read < room {
            return None;
        }
        length += read;
    }
    None
}

/// How many bytes could be read.
fn read_memory(pid: i32, at: u64, to: &mut [u8]) -> usize {
    lazaret_wall::supervisor::read_memory(pid, at, to).unwrap_or(0)
}
