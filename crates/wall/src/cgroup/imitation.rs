//! A directory that looks like a hierarchy of version 2, for tests: a group that
//! is made in it has the files of the controllers that the group above hands
//! down. What the kernel would refuse is refused by hand where a test needs it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::surroundings::Surroundings;

/// Files of every group but the root.
const OF_ALL: [&str; 4] = [
    "cgroup.procs",
    "cgroup.subtree_control",
    "cgroup.events",
    "cgroup.type",
];

/// A hierarchy in a temporary directory.
pub(super) struct Imitation {
    pub directory: tempfile::TempDir,
}

impl Imitation {
    /// One whose root hands `controllers` down.
    pub(super) fn new(controllers: &str) -> Self {
        let this = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let root = this.directory.path();
        put(root, "cgroup.controllers", "cpu io memory pids");
        put(root, "cgroup.subtree_control", controllers);
        put(root, "cgroup.procs", "1\n");
        this
    }

    /// A group with these processes in it, and a host that is in it.
    pub(super) fn group(&self, path: &str, processes: &str) -> Surroundings {
        let mut at = self.directory.path().to_owned();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at.push(name);
            if !at.exists() {
                make(&at).unwrap();
            }
        }
        put(&at, "cgroup.procs", processes);
        Surroundings {
            mountinfo: format!(
                "25 30 0:23 / {} rw - cgroup2 cgroup2 rw,nsdelegate\n",
                self.directory.path().display()
            ),
            cgroup: format!("0::{path}\n"),
            proc: "/proc".into(),
            disks: "/nowhere".into(),
            make,
            remove,
        }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// The groups in a group.
    pub(super) fn groups(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(path))
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn put(directory: &Path, file: &str, text: &str) {
    fs::write(directory.join(file), text).unwrap();
}

fn make(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    let above = fs::read_to_string(path.parent().unwrap().join("cgroup.subtree_control"))?;
    let given: Vec<&str> = above
        .split([' ', '\n'])
        .map(|name| name.trim_start_matches('+'))
        .collect();
    for file in OF_ALL {
        put(path, file, "");
    }
    put(path, "cgroup.controllers", &given.join(" "));
    for (controller, files) in [
        (
            "memory",
            ["memory.max", "memory.swap.max", "memory.oom.group"].as_slice(),
        ),
        ("cpu", &["cpu.weight", "cpu.max"]),
        ("pids", &["pids.max"]),
    ] {
        if given.contains(&controller) {
            files.iter().for_each(|file| put(path, file, ""));
        }
    }
    if given.contains(&"memory") {
        put(path, "memory.events", "oom 0\noom_kill 0\n");
    }
    Ok(())
}

/// The kernel removes a group without looking at its files, but not one with
/// groups below it.
fn remove(path: &Path) -> io::Result<()> {
    let below = fs::read_dir(path)?
        .flatten()
        .any(|entry| entry.path().is_dir());
    match below {
        true => Err(io::ErrorKind::ResourceBusy.into()),
        false => fs::remove_dir_all(path),
    }
}
