//! Where a host makes groups.
//!
//! With version 1: in the group that the host is in, in every hierarchy.
//!
//! With version 2 a group that hands controllers down has no processes of its
//! own (cgroup-v2.rst, "No Internal Process Constraint"; the root is exempt), and
//! who starts a process in another group must be able to write to the group that
//! is above both ("Delegation Containment"). So the host makes a tree:
//!
//! ```text
//! PARENT/lazaret-…/            hands controllers down
//! PARENT/lazaret-…/host        the host itself, if it was in PARENT alone
//! PARENT/lazaret-…/launcher    its launchers, which start workers
//! PARENT/lazaret-…/lazaret-…   one worker
//! ```
//!
//! `PARENT` is the host's own group if the host is alone in it (a service of
//! systemd's with `Delegate=yes`) or if it is the root, which already hands
//! controllers down; else the group above, if the host may make groups there and
//! it hands controllers down. Nothing is changed in groups that the host isn't in
//! or hasn't made; the root's `cgroup.subtree_control` is the operator's.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use super::CgroupError;
use super::controller::Controller;
use super::hierarchy::{Hierarchy, Version};
use super::name::Owner;
use super::surroundings::{Surroundings, read, write};

/// Where groups are made in one hierarchy.
#[derive(Debug)]
pub(super) struct Branch {
    pub version: Version,
    /// What is limited there.
    pub controllers: Vec<Controller>,
    /// The directory in which groups are made.
    pub directory: PathBuf,
    /// The same as `/proc/PID/cgroup` says it.
    pub path: String,
}

/// Why there is no branch, and what to do about it.
pub(super) type Reason = (String, &'static str);

/// What to do with version 1.
const V1: &str = "run as root with /sys/fs/cgroup writable, or have the controllers' groups that this process is in given to this user (chown)";
/// With version 2.
const DELEGATE: &str = "delegate a group to Lazaret: in a systemd service Delegate=yes, for one command `systemd-run --scope -p Delegate=yes` (with --user for an ordinary user); in a container a private cgroup namespace (--cgroupns=private) with a writable /sys/fs/cgroup";
/// At the root of version 2.
const ROOT: &str = "let the root hand the controllers down: echo '+memory +cpu +pids +io' > /sys/fs/cgroup/cgroup.subtree_control";
/// Nothing is mounted.
pub(super) const MOUNT: &str =
    "mount cgroup version 2 at /sys/fs/cgroup (in a container: mount it writable)";

/// The branch of a hierarchy of version 1.
pub(super) fn branch_v1(
    hierarchy: &Hierarchy,
    surroundings: &Surroundings,
) -> Result<Branch, Reason> {
    let directory = &hierarchy.own;
    // A group is not worth a worker's time where it changes nothing.
    if hierarchy.controllers == [Controller::Io] && !surroundings.disks_have_shares() {
        return Err((
            "no disk has a scheduler with shares".into(),
            "use bfq (/sys/block/*/queue/scheduler), or version 2 with io.cost",
        ));
    }
    if hierarchy.read_only {
        return Err((
            format!("{} is mounted read-only", directory.display()),
            "mount it writable (in a container: -v /sys/fs/cgroup:/sys/fs/cgroup:rw)",
        ));
    }
    may_write(directory).map_err(|why| (why, V1))?;
    Ok(Branch {
        version: Version::V1,
        controllers: hierarchy.controllers.clone(),
        directory: directory.clone(),
        path: hierarchy.path.clone(),
    })
}

fn may_write(directory: &Path) -> Result<(), String> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, directory, access, AtFlags::EACCESS)
        .map_err(|errno| format!("{} can't be written: {errno}", directory.display()))
}

/// The host's tree in a hierarchy of version 2. It goes when this is dropped,
/// and the host is where it was before.
#[derive(Debug)]
pub(super) struct Tree {
    pub branch: Branch,
    /// Controllers that are there but can't be used.
    pub withheld: Vec<(Controller, Reason)>,
    launcher: OwnedFd,
    /// The group that the host was in, if it was moved.
    left: Option<PathBuf>,
    /// What the host's group hands down since.
    enabled: Vec<Controller>,
    remove: fn(&Path) -> std::io::Result<()>,
}

const HOST: &str = "host";
const LAUNCHER: &str = "launcher";

impl Tree {
    /// Makes it. `launchers` is the user that launchers are, if not this one.
    pub(super) fn make(
        hierarchy: &Hierarchy,
        owner: &Owner,
        launchers: Option<u32>,
        surroundings: &Surroundings,
    ) -> Result<Self, Reason> {
        let own = &hierarchy.own;
        let there = controllers(&own.join("cgroup.controllers"));
        if there.is_empty() {
            return Err((
                "version 2 has none of the controllers here".into(),
                DELEGATE,
            ));
        }
        if hierarchy.read_only {
            return Err((format!("{} is mounted read-only", own.display()), DELEGATE));
        }
        // The root has no type (cgroup-v2.rst, "cgroup.type").
        let root = !own.join("cgroup.type").exists();
        let others = match root {
            true => false,
            false => has_others(own).map_err(|error| (error.to_string(), DELEGATE))?,
        };
        let (base, path, handed) = match (root, others) {
            (false, false) => (own.clone(), hierarchy.path.clone(), there.clone()),
            (true, _) => (own.clone(), hierarchy.path.clone(), handed_down(own)),
            (false, true) => {
                let above = own.parent().zip(parent_path(&hierarchy.path));
                let Some((above, path)) =
                    above.filter(|(above, _)| above.join("cgroup.procs").exists())
                else {
                    let why = format!(
                        "{} has other processes, and nothing above it is to be seen",
                        own.display()
                    );
                    return Err((why, DELEGATE));
                };
                (above.to_owned(), path, handed_down(above))
            }
        };
        let remedy = if root { ROOT } else { DELEGATE };
        if handed.is_empty() {
            let why = format!("{} hands no controllers down", base.display());
            return Err((why, remedy));
        }
        may_write(&base).map_err(|why| (why, DELEGATE))?;
        let withheld = there
            .iter()
            .filter(|controller| !handed.contains(controller));
        let withheld = withheld.map(|controller| {
            let why = format!("{} doesn't hand {controller} down", base.display());
            (*controller, (why, remedy))
        });
        let withheld = withheld.collect();
        let name = owner.next();
        let directory = base.join(&name);
        let refused = |error: CgroupError| (error.to_string(), DELEGATE);
        (surroundings.make)(&directory)
            .map_err(CgroupError::file(&directory, "mkdir"))
            .map_err(refused)?;
        let mut made = Unfinished {
            directory: Some(directory.clone()),
            left: None,
            enabled: Vec::new(),
            remove: surroundings.remove,
        };
        let controllers = made
            .grow(own, !root && !others, &handed, launchers, surroundings)
            .map_err(refused)?;
        let launcher = directory.join(LAUNCHER);
        let launcher = rustix::fs::openat(
            CWD,
            &launcher,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| refused(CgroupError::file(&launcher, "open")(errno.into())))?;
        let _done = made.directory.take();
        Ok(Self {
            branch: Branch {
                version: Version::V2,
                controllers,
                directory,
                path: joined(&path, &name),
            },
            withheld,
            launcher,
            left: made.left.take(),
            enabled: std::mem::take(&mut made.enabled),
            remove: surroundings.remove,
        })
    }

    /// The group of launchers.
    pub(super) fn launcher(&self) -> BorrowedFd<'_> {
        self.launcher.as_fd()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        undo(
            &self.branch.directory,
            self.left.as_deref(),
            &self.enabled,
            self.remove,
        );
    }
}

/// A tree that isn't whole yet.
struct Unfinished {
    directory: Option<PathBuf>,
    left: Option<PathBuf>,
    enabled: Vec<Controller>,
    remove: fn(&Path) -> std::io::Result<()>,
}

impl Unfinished {
    /// Makes what belongs in it: the controllers that its groups have.
    fn grow(
        &mut self,
        own: &Path,
        alone: bool,
        handed: &[Controller],
        launchers: Option<u32>,
        surroundings: &Surroundings,
    ) -> Result<Vec<Controller>, CgroupError> {
        let Some(directory) = self.directory.clone() else {
            return Ok(Vec::new());
        };
        let make = |name: &str| {
            let path = directory.join(name);
            (surroundings.make)(&path).map_err(CgroupError::file(&path, "mkdir"))?;
            Ok::<_, CgroupError>(path)
        };
        let host = if alone { Some(make(HOST)?) } else { None };
        if let Some(host) = &host {
            let pid = std::process::id().to_string();
            write(&host.join("cgroup.procs"), &pid)?;
            self.left = Some(own.to_owned());
            let already = handed_down(own);
            let more = handed.iter().filter(|one| !already.contains(one)).copied();
            let more: Vec<Controller> = more.collect();
            hand_down(own, '+', &more)?;
            self.enabled = more;
        }
        hand_down(&directory, '+', handed)?;
        let launcher = make(LAUNCHER)?;
        // Neither is a worker's equal: what serves all isn't starved by some.
        for path in [Some(&launcher), host.as_ref()].into_iter().flatten() {
            if handed.contains(&Controller::Cpu) {
                let _ = write(&path.join("cpu.weight"), "10000");
            }
        }
        for path in [&directory, &launcher] {
            give(path, launchers)?;
        }
        Ok(handed.to_vec())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            undo(directory, self.left.as_deref(), &self.enabled, self.remove);
        }
    }
}

/// Has a group hand controllers down, or no longer.
fn hand_down(directory: &Path, sign: char, which: &[Controller]) -> Result<(), CgroupError> {
    if which.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = which.iter().map(|one| format!("{sign}{one}")).collect();
    write(&directory.join("cgroup.subtree_control"), &words.join(" "))
}

/// Lets launchers start tasks in a group that this host made.
pub(super) fn give(directory: &Path, launchers: Option<u32>) -> Result<(), CgroupError> {
    let Some(uid) = launchers else { return Ok(()) };
    let path = directory.join("cgroup.procs");
    std::os::unix::fs::chown(&path, Some(uid), None).map_err(CgroupError::file(&path, "chown"))
}

/// Removes a tree, and has the host where it was. What can't be done (tasks that
/// somebody else put there) stays for the next host to try.
fn undo(
    directory: &Path,
    left: Option<&Path>,
    enabled: &[Controller],
    remove: fn(&Path) -> std::io::Result<()>,
) {
    for entry in subdirectories(directory) {
        if entry.file_name().is_none_or(|name| name != HOST) {
            let _ = remove(&entry);
        }
    }
    if let Some(own) = left {
        // No process can come back to a group that hands controllers down.
        let _ = hand_down(own, '-', enabled);
        let pid = std::process::id().to_string();
        let _ = write(&own.join("cgroup.procs"), &pid);
        let _ = remove(&directory.join(HOST));
    }
    let _ = remove(directory);
}

/// Removes what hosts that have ended left in a directory.
pub(super) fn sweep(directory: &Path, surroundings: &Surroundings) {
    for path in subdirectories(directory) {
        let owner = path.file_name().and_then(|name| Owner::of(name.to_str()?));
        if owner.is_some_and(|owner| owner.has_ended(&surroundings.proc)) {
            // A group with tasks in it stays: rmdir(2) is EBUSY.
            for below in subdirectories(&path) {
                let _ = (surroundings.remove)(&below);
            }
            let _ = (surroundings.remove)(&path);
        }
    }
}

/// Where leftovers of other hosts may be for a hierarchy of version 2.
pub(super) fn places_v2(hierarchy: &Hierarchy) -> impl Iterator<Item = &Path> {
    [Some(hierarchy.own.as_path()), hierarchy.own.parent()]
        .into_iter()
        .flatten()
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The controllers that a file lists, of those that are used here.
fn controllers(path: &Path) -> Vec<Controller> {
    let text = read(path).unwrap_or_default();
    let named = |controller: &Controller| text.split(' ').any(|name| name == controller.name());
    Controller::ALL.into_iter().filter(named).collect()
}

fn handed_down(directory: &Path) -> Vec<Controller> {
    controllers(&directory.join("cgroup.subtree_control"))
}

/// Whether another process is in the group of this one. One of an outer PID
/// namespace shows as 0.
fn has_others(own: &Path) -> Result<bool, CgroupError> {
    let text = read(&own.join("cgroup.procs"))?;
    let pid = std::process::id().to_string();
    Ok(text.lines().any(|line| line.trim() != pid))
}

/// The path of the group above.
fn parent_path(path: &str) -> Option<String> {
    let (above, name) = path.rsplit_once('/')?;
    match (above, name) {
        (_, "") => None,
        ("", _) => Some("/".into()),
        (above, _) => Some(above.to_owned()),
    }
}

/// A path of `/proc/PID/cgroup` and a name below it.
pub(super) fn joined(path: &str, name: &str) -> String {
    format!("{}/{name}", path.trim_end_matches('/'))
}
