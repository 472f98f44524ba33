//! How many workers a host can hold at once here, from the limits of its process and of
//! the machine.
//!
//! What a worker takes is known (`Cost`); what may be taken is read (`Facts`); the
//! rest is division. The smallest number counts, and each comes with what raises it.

use std::path::{Path, PathBuf};

use rustix::process::{Resource as Limited, getrlimit};
use serde::Serialize;

use crate::cgroup::{Controller, Version, hierarchies};
use crate::shortage::Resource;

/// What a limit is of, and what an idle worker takes of it in a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    resource: Resource,
    what: &'static str,
    each: u64,
    raise: &'static str,
}

/// In the host: its pidfd, its filter's listener, and its tenant's directory.
const DESCRIPTORS: Cost = Cost {
    resource: Resource::Descriptors,
    what: "descriptors",
    each: 3,
    raise: "raise the limit of open files (ulimit -n, LimitNOFILE= of systemd, fs.nr_open)",
};
/// The wire, in the host.
const MAPPINGS: Cost = Cost {
    resource: Resource::Mappings,
    what: "mappings",
    each: 1,
    raise: "raise vm.max_map_count",
};
const PROCESSES: Cost = Cost {
    resource: Resource::Processes,
    what: "processes",
    each: 1,
    raise: "raise kernel.pid_max and kernel.threads-max",
};
const GROUP_PROCESSES: Cost = Cost {
    what: "processes of its control group",
    raise: "raise pids.max of the group (TasksMax= of systemd, --pids-limit of containers)",
    ..PROCESSES
};
const USER_PROCESSES: Cost = Cost {
    what: "processes of its user",
    raise: "raise the limit of processes (ulimit -u, LimitNPROC= of systemd)",
    ..PROCESSES
};
/// Six of them, one of each kind: as many as of the one that there may be fewest of.
const NAMESPACES: Cost = Cost {
    resource: Resource::Namespaces,
    what: "namespaces",
    each: 1,
    raise: "raise user.max_user_namespaces and its like for mnt, pid, ipc, uts and cgroup",
};
/// What the machine lacks for each idle worker of a small module, page tables, kernel
/// objects and what its tenant takes in the host included (`lazaret bench --suite scale`
/// measured 0.46 and 0.53 MiB beside 5,000). What a tenant writes comes on top.
const MEMORY: Cost = Cost {
    resource: Resource::Memory,
    what: "memory",
    each: 544 << 10,
    raise: "more memory, or a larger limit of its control group",
};
const GROUPS: Cost = Cost {
    resource: Resource::ControlGroups,
    what: "memory control groups",
    each: 1,
    raise: "there are at most 65,535 on a machine (kernel: MEM_CGROUP_ID_MAX); --cgroup off makes none",
};

/// The part of a limit of descriptors that files of images may take.
const IMAGES: u64 = 8;

/// What is free of something, in its own unit, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    free: Vec<(Cost, u64, String)>,
}

/// How many workers one limit allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Bound {
    /// What there is too little of if it is reached.
    #[serde(skip)]
    pub resource: Resource,
    /// What it is of.
    pub what: &'static str,
    /// How much is free of that, in bytes or as a number.
    pub free: u64,
    /// What an idle worker takes of it.
    pub each: u64,
    /// How many workers there can be for that.
    pub workers: u64,
    /// Where that was read.
    pub source: String,
    /// What raises it.
    pub raise: &'static str,
}

/// How many idle workers a host of this process could hold now: by each limit, the
/// tightest first.
pub fn bounds() -> Vec<Bound> {
    of(Facts::read(Path::new("/")))
}

fn of(facts: Facts) -> Vec<Bound> {
    let bound = |(cost, free, source): (Cost, u64, String)| Bound {
        resource: cost.resource,
        what: cost.what,
        free,
        each: cost.each,
        workers: free / cost.each,
        source,
        raise: cost.raise,
    };
    let mut bounds: Vec<Bound> = facts.free.into_iter().map(bound).collect();
    bounds.sort_by_key(|bound| bound.workers);
    bounds
}

/// Whether this process has about as many mappings as it may have.
pub(crate) fn mappings_are_used_up() -> bool {
    let left = bounds()
        .into_iter()
        .find(|bound| bound.what == MAPPINGS.what);
    left.is_some_and(|bound| bound.free < 64)
}

/// Whether no namespace of some kind may be made here, whatever others have.
pub(crate) fn namespaces_are_forbidden() -> bool {
    let bound = bounds()
        .into_iter()
        .find(|bound| bound.what == NAMESPACES.what);
    bound.is_some_and(|bound| bound.free == 0)
}

/// The number in a file; nothing if there is none, or it says `max`.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Facts {
    /// Those below this root directory, and the limits of this process.
    fn read(root: &Path) -> Self {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        let text = |path: &str| std::fs::read_to_string(at(path)).unwrap_or_default();
        let mut facts = Self::default();
        let mut add = |cost: Cost, limit: u64, used: u64, source: String| {
            facts.free.push((cost, limit.saturating_sub(used), source));
        };
        let files = getrlimit(Limited::Nofile).current;
        if let Some(limit) = files {
            let open = std::fs::read_dir(at("/proc/self/fd")).map_or(0, Iterator::count) as u64;
            add(
                DESCRIPTORS,
                limit - limit / IMAGES,
                open,
                format!("RLIMIT_NOFILE {limit}, an eighth of it for files of images"),
            );
        }
        if let Some(limit) = number(&at("/proc/sys/vm/max_map_count")) {
            let used = text("/proc/self/maps").lines().count() as u64;
            add(MAPPINGS, limit, used, format!("vm.max_map_count {limit}"));
        }
        let tasks = tasks(&text("/proc/loadavg")).unwrap_or(0);
        for name in ["pid_max", "threads-max"] {
            if let Some(limit) = number(&at(&format!("/proc/sys/kernel/{name}"))) {
                add(PROCESSES, limit, tasks, format!("kernel.{name} {limit}"));
            }
        }
        if !rustix::process::geteuid().is_root()
            && let Some(limit) = getrlimit(Limited::Nproc).current
        {
            add(USER_PROCESSES, limit, 0, format!("RLIMIT_NPROC {limit}"));
        }
        let kinds = ["user", "mnt", "pid", "ipc", "uts", "cgroup"];
        let fewest = kinds
            .into_iter()
            .filter_map(|kind| {
                let limit = number(&at(&format!("/proc/sys/user/max_{kind}_namespaces")))?;
                Some((limit, kind))
            })
            .min();
        if let Some((limit, kind)) = fewest {
            add(
                NAMESPACES,
                limit,
                0,
                format!("user.max_{kind}_namespaces {limit}"),
            );
        }
        if let Some(bytes) = available(&text("/proc/meminfo")) {
            add(MEMORY, bytes, 0, format!("{} MiB available", bytes >> 20));
        }
        for hierarchy in hierarchies(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup")) {
            let own = |name: &str| number(&hierarchy.own.join(name));
            let controls = |controller| {
                hierarchy.version == Version::V2 || hierarchy.controllers.contains(&controller)
            };
            if controls(Controller::Pids)
                && let (Some(limit), Some(used)) = (own("pids.max"), own("pids.current"))
            {
                let path: PathBuf = hierarchy.own.join("pids.max");
                add(
                    GROUP_PROCESSES,
                    limit,
                    used,
                    format!("{} {limit}", path.display()),
                );
            }
            let [limit, used] = match hierarchy.version {
                Version::V2 => ["memory.max", "memory.current"],
                Version::V1 => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            };
            if controls(Controller::Memory)
                && let (Some(bytes), Some(used)) = (own(limit), own(used))
            {
                let path: PathBuf = hierarchy.own.join(limit);
                add(MEMORY, bytes, used, format!("{} {bytes}", path.display()));
            }
        }
        let groups = text("/proc/cgroups");
        if let Some(used) = memory_groups(&groups) {
            add(
                GROUPS,
                65_535,
                used,
                format!("{used} of 65535 on this machine"),
            );
        }
        facts
    }
}

/// All tasks of the machine (proc_loadavg(5)): the number after the slash.
fn tasks(loadavg: &str) -> Option<u64> {
    let field = loadavg.split_whitespace().nth(3)?;
    field.split_once('/')?.1.parse().ok()
}

/// `MemAvailable`, in bytes (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

/// How many memory groups there are (proc_cgroups(5)): the third column.
fn memory_groups(cgroups: &str) -> Option<u64> {
    let line = cgroups.lines().find(|line| line.starts_with("memory\t"))?;
    line.split('\t').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_comes_first() {
        let facts = Facts {
            free: vec![
                (MAPPINGS, 65_000, "a".into()),
                (DESCRIPTORS, 899, "b".into()),
                (MEMORY, 1 << 30, "c".into()),
                (PROCESSES, 0, "d".into()),
            ],
        };
        let found: Vec<(&str, u64)> = of(facts)
            .iter()
            .map(|bound| (bound.what, bound.workers))
            .collect();
        assert_eq!(
            found,
            [
                ("processes", 0),
                ("descriptors", 299),
                ("memory", 1927),
                ("mappings", 65_000)
            ]
        );
    }

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(tasks("0.87 2.25 2.52 2/180 4711\n"), Some(180));
        assert_eq!(tasks("nothing"), None);
        assert_eq!(
            available("MemFree: 1 kB\nMemAvailable:   12 kB\n"),
            Some(12 << 10)
        );
        assert_eq!(available("MemFree: 1 kB\n"), None);
        let groups =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t3\t1\nmemory\t4\t17\t1\n";
        assert_eq!(memory_groups(groups), Some(17));
        assert_eq!(memory_groups(""), None);
    }

    #[test]
    fn where_nothing_can_be_read_nothing_is_said() {
        let empty = tempfile::tempdir().unwrap();
        let facts = Facts::read(empty.path());
        // Of this process itself, and nothing more.
        assert!(facts.free.len() <= 2, "{facts:?}");
        assert!(!bounds().is_empty());
    }
}
