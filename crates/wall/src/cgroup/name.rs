//! Names of groups: who made them.
//!
//! `lazaret-NAMESPACE-PID-START-N`: the inode of the host's PID namespace, its
//! number there, the time of its start in clock ticks since boot
//! (proc_pid_stat(5), field 22), and a count. Numbers of processes are used
//! again, starts with the same number are not. A host of another PID namespace
//! can't be looked up, so its groups are left alone.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Who makes groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// Inode of its PID namespace.
    namespace: u64,
    /// Its number in it.
    pid: u32,
    /// When it started.
    start: u64,
}

const PREFIX: &str = "lazaret";

/// All groups of this process have numbers of their own, whichever of its hosts
/// made them.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Owner {
    /// This process, if `/proc` says when it started.
    pub(super) fn here(proc: &Path) -> Option<Self> {
        let pid = std::process::id();
        Some(Self {
            namespace: namespace(proc)?,
            pid,
            start: start_of(proc, pid)?,
        })
    }

    /// A name that none of its groups has.
    pub(super) fn next(&self) -> String {
        let Self {
            namespace,
            pid,
            start,
        } = self;
        let number = NEXT.fetch_add(1, Relaxed);
        format!("{PREFIX}-{namespace}-{pid}-{start}-{number}")
    }

    /// Who made the group of this name, if it was a host.
    pub(super) fn of(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        if parts.next()? != PREFIX {
            return None;
        }
        let owner = Self {
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
        };
        let _number: u64 = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(owner)
    }

    /// Whether it is known that it has ended.
    pub(super) fn has_ended(&self, proc: &Path) -> bool {
        namespace(proc) == Some(self.namespace) && start_of(proc, self.pid) != Some(self.start)
    }
}

fn namespace(proc: &Path) -> Option<u64> {
    let stat = rustix::fs::stat(proc.join("self/ns/pid")).ok()?;
    Some(stat.st_ino)
}

/// When a process started. Nothing if there is none, or it waits to be reaped.
fn start_of(proc: &Path, pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The second field is the name, in which anything may be.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let proc = Path::new("/proc");
        let own = Owner::here(proc).unwrap();
        let (first, second) = (own.next(), own.next());
        assert_ne!(first, second);
        assert_eq!(Owner::of(&first), Some(own));
        assert!(!own.has_ended(proc));
        for name in [
            "lazaret",
            "lazaret-1-2-3",
            "lazaret-1-2-x-4",
            "lazaret-1-2-3-4-5",
            "other-1-2-3-4",
            "lazaret-1--3-4",
            "",
        ] {
            assert_eq!(Owner::of(name), None, "{name}");
        }
    }

    #[test]
    fn only_a_process_of_this_namespace_is_known_to_have_ended() {
        let proc = Path::new("/proc");
        let own = Owner::here(proc).unwrap();
        // The number is used again by another process.
        let before = Owner {
            start: own.start - 1,
            ..own
        };
        assert!(before.has_ended(proc));
        let elsewhere = Owner {
            namespace: own.namespace + 1,
            ..before
        };
        assert!(!elsewhere.has_ended(proc));
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id();
        let gone = loop {
            // A zombie has ended, though /proc shows it.
            match start_of(proc, pid) {
                Some(start) => {
                    let one = Owner { pid, start, ..own };
                    if one.has_ended(proc) {
                        break one;
                    }
                }
                None => {
                    break Owner {
                        pid,
                        start: 1,
                        ..own
                    };
                }
            }
        };
        assert!(gone.has_ended(proc));
        child.wait().unwrap();
        assert!(gone.has_ended(proc));
    }
}
