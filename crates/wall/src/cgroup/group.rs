//! One group: a directory in each hierarchy that is used.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rustix::fs::{CWD, Mode, OFlags};

use super::CgroupError;
use super::controller::Controller;
use super::evidence::Evidence;
use super::hierarchy::Version;
use super::limits::{CgroupOptions, DEFAULTS, Setting, settings};
use super::parent::{Branch, give};
use super::pool::Cgroups;
use super::surroundings::{Surroundings, write};
use super::usage::{self, GroupUsage, MemoryKill};

/// A group in one hierarchy.
#[derive(Debug)]
pub(super) struct Part {
    pub version: Version,
    pub controllers: Vec<Controller>,
    pub directory: PathBuf,
}

/// What a task enters a worker's groups by, opened for its birth: a host holds no
/// descriptor of a group while its worker lives.
#[derive(Debug, Default)]
pub struct Entrance {
    /// Where it is to be cloned into, if there is a group of version 2.
    pub directory: Option<OwnedFd>,
    /// Files of version 1 that the worker writes `0` to: it moves itself, and
    /// itself only. That asks the kernel for no lock against all that fork and
    /// exit on the machine, for which anybody else's move waits milliseconds
    /// (kernel: `cgroup_procs_write_start`, kernel/cgroup/cgroup.c).
    pub tasks: Vec<OwnedFd>,
}

/// A group for a worker.
#[derive(Debug)]
pub(super) struct Group {
    pub name: String,
    pub parts: Vec<Part>,
    /// Bytes that it may have; 0 as long as it has no limit.
    pub memory: u64,
    /// What was written to its files.
    written: Vec<(&'static str, String)>,
    /// Files that the kernel doesn't have.
    absent: Vec<&'static str>,
    /// Kills for memory that were seen.
    kills: u64,
}

impl Group {
    /// Makes one in every branch, without limits yet.
    pub(super) fn make<'a>(
        name: String,
        branches: impl Iterator<Item = &'a Branch>,
        launchers: Option<u32>,
        surroundings: &Surroundings,
    ) -> Result<Self, CgroupError> {
        let mut group = Self {
            name,
            parts: Vec::new(),
            memory: 0,
            written: Vec::new(),
            absent: Vec::new(),
            kills: 0,
        };
        for branch in branches {
            let made = Part::make(&group.name, branch, launchers, surroundings);
            match made {
                Ok(part) => group.parts.push(part),
                Err(error) => {
                    group.remove(surroundings);
                    return Err(error);
                }
            }
        }
        Ok(group)
    }

    /// Removes it. False if a task is still in it.
    pub(super) fn remove(&self, surroundings: &Surroundings) -> bool {
        let mut gone = true;
        for part in &self.parts {
            gone &= match (surroundings.remove)(&part.directory) {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            };
        }
        gone
    }

    /// Puts the limits on that it doesn't have yet.
    pub(super) fn limit(
        &mut self,
        options: &CgroupOptions,
        memory: u64,
    ) -> Result<(), CgroupError> {
        let (written, absent) = (&mut self.written, &mut self.absent);
        for part in &self.parts {
            for controller in &part.controllers {
                let wanted = settings(options, *controller, part.version, memory);
                // Memory with swap stands in the way of a higher limit for memory.
                if let [limit, both] = wanted.as_slice()
                    && both.file == "memory.memsw.limit_in_bytes"
                    && self.memory != 0
                    && self.memory < memory
                    && !absent.contains(&both.file)
                {
                    put(part, &[both, limit], written, absent)?;
                    continue;
                }
                put(part, &wanted.iter().collect::<Vec<_>>(), written, absent)?;
            }
        }
        self.memory = memory;
        Ok(())
    }

    /// The settings that were written, for comparison.
    pub(super) fn settings(&self, options: &CgroupOptions) -> Vec<(&Part, Setting)> {
        let mut all = Vec::new();
        for part in &self.parts {
            for controller in &part.controllers {
                let wanted = settings(options, *controller, part.version, self.memory);
                let there = wanted
                    .into_iter()
                    .filter(|setting| !self.absent.contains(&setting.file));
                all.extend(there.map(|setting| (part, setting)));
            }
        }
        all
    }

    /// The part that counts memory.
    pub(super) fn memory_part(&self) -> Option<&Part> {
        let counts = |part: &&Part| part.controllers.contains(&Controller::Memory);
        self.parts.iter().find(counts)
    }
}

/// Writes settings of one part that it doesn't have.
fn put(
    part: &Part,
    wanted: &[&Setting],
    written: &mut Vec<(&'static str, String)>,
    absent: &mut Vec<&'static str>,
) -> Result<(), CgroupError> {
    for setting in wanted {
        let known = written.iter().position(|(file, _)| *file == setting.file);
        let has = match known {
            Some(at) => written[at].1 == setting.value,
            None => DEFAULTS.contains(&(setting.file, setting.value.as_str())),
        };
        if has || absent.contains(&setting.file) {
            continue;
        }
        match write(&part.directory.join(setting.file), &setting.value) {
            Ok(()) => match known {
                Some(at) => written[at].1.clone_from(&setting.value),
                None => written.push((setting.file, setting.value.clone())),
            },
            Err(_) if !setting.essential => absent.push(setting.file),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Part {
    fn make(
        name: &str,
        branch: &Branch,
        launchers: Option<u32>,
        surroundings: &Surroundings,
    ) -> Result<Self, CgroupError> {
        let directory = branch.directory.join(name);
        (surroundings.make)(&directory).map_err(CgroupError::file(&directory, "mkdir"))?;
        let part = Self {
            version: branch.version,
            controllers: branch.controllers.clone(),
            directory,
        };
        let given = match part.version {
            Version::V1 => Ok(()),
            Version::V2 => give(&part.directory, launchers),
        };
        // One that can't be entered is none.
        match given.and_then(|()| part.open()) {
            Ok(_) => Ok(part),
            Err(error) => {
                let _ = (surroundings.remove)(&part.directory);
                Err(error)
            }
        }
    }

    /// What a task enters it by: `tasks` to write with version 1, the directory
    /// with version 2.
    fn open(&self) -> Result<OwnedFd, CgroupError> {
        let (path, flags) = match self.version {
            Version::V1 => (self.directory.join("tasks"), OFlags::WRONLY),
            Version::V2 => (self.directory.clone(), OFlags::PATH | OFlags::DIRECTORY),
        };
        rustix::fs::openat(CWD, &path, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| CgroupError::file(&path, "open")(errno.into()))
    }
}

/// A group that one worker has. It goes back when the last handle of it is
/// dropped, which must not be before the worker is gone.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Cgroups>,
    group: Option<Group>,
    /// Times that the group was full before this worker.
    full_before: AtomicU64,
    /// Kills for memory that were counted with this worker's.
    kills: AtomicU64,
    /// Whether nobody else may have it: something that was charged to it may stay,
    /// or its worker.
    spent: AtomicBool,
}

impl Lease {
    pub(super) fn new(pool: Arc<Cgroups>, group: Group) -> Self {
        Self {
            full_before: AtomicU64::new(0),
            kills: AtomicU64::new(group.kills),
            spent: AtomicBool::new(false),
            pool,
            group: Some(group),
        }
    }

    fn parts(&self) -> &[Part] {
        self.group.as_ref().map_or(&[], |group| &group.parts)
    }

    /// Opens what the worker enters its groups by.
    ///
    /// # Errors
    /// If somebody has removed a group, or there are no descriptors left.
    pub fn entrance(&self) -> Result<Entrance, CgroupError> {
        let mut entrance = Entrance::default();
        for part in self.parts() {
            let opened = part.open()?;
            match part.version {
                Version::V1 => entrance.tasks.push(opened),
                Version::V2 => entrance.directory = Some(opened),
            }
        }
        Ok(entrance)
    }

    /// Moves a worker that could not go itself.
    pub fn enter(&self, pid: i32) -> Result<(), CgroupError> {
        for part in self.parts() {
            write(&part.directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Looks from outside whether the worker is in its group, and what the
    /// group's limits are.
    pub fn verify(&self, pid: i32) -> Result<Evidence, CgroupError> {
        let Some(group) = &self.group else {
            return Ok(Evidence::default());
        };
        if let Some(part) = group.memory_part() {
            let full = usage::watch(&part.directory, part.version);
            self.full_before.store(full, Relaxed);
        }
        self.pool.verify(group, pid)
    }

    /// What the group has used, with the workers that had it before.
    pub fn usage(&self) -> GroupUsage {
        let mut usage = GroupUsage::default();
        for part in self.parts() {
            usage::add(&part.directory, part.version, &mut usage);
        }
        usage
    }

    /// Whether the kernel killed the worker for memory: asked when a SIGKILL has
    /// ended it.
    pub fn memory_kill(&self) -> MemoryKill {
        let Some(group) = &self.group else {
            return MemoryKill::Unknown;
        };
        let Some((part, kills)) = group
            .memory_part()
            .and_then(|part| Some((part, usage::kills(&part.directory, part.version)?)))
        else {
            return MemoryKill::Unknown;
        };
        match self.kills.swap(kills, Relaxed) < kills {
            false => MemoryKill::No,
            true => MemoryKill::Yes {
                limit: group.memory,
                at_limit: usage::was_full(
                    &part.directory,
                    part.version,
                    group.memory,
                    self.full_before.load(Relaxed),
                ),
            },
        }
    }

    /// Has the group removed, not used again.
    pub fn spend(&self) {
        self.spent.store(true, Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut group) = self.group.take() {
            group.kills = self.kills.load(Relaxed);
            self.pool.give_back(group, self.spent.load(Relaxed));
        }
    }
}
