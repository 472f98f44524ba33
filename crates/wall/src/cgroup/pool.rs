//! The groups of a host: made ahead, given to workers, used again, removed.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::CgroupError;
use super::controller::Controller;
use super::evidence::{self, Evidence};
use super::group::{Group, Lease};
use super::hierarchy::{Version, hierarchies};
use super::limits::{CgroupOptions, Mode, settings};
use super::name::Owner;
use super::parent::{Branch, MOUNT, Reason, Tree, branch_v1, places_v2, sweep};
use super::probe::{Availability, Probed, degraded};
use super::surroundings::Surroundings;
use crate::launcher::HostIds;

/// Empty groups that are kept to be used again.
const MOST_FREE: usize = 32;

/// What a host may do with control groups, and its groups.
#[derive(Debug)]
pub struct Cgroups {
    options: CgroupOptions,
    found: Vec<Probed>,
    /// Where groups of version 1 are made.
    flat: Vec<Branch>,
    /// Where those of version 2 are.
    tree: Option<Arc<Tree>>,
    owner: Option<Owner>,
    /// Controllers that work and are left alone.
    unused: Vec<(Controller, String)>,
    /// The user that launchers are on the host, if it isn't this process's.
    launchers: Option<u32>,
    surroundings: Surroundings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Group>,
    /// Those that a task may still be in.
    leaving: Vec<Group>,
    /// How often a group was taken, and the last limit.
    taken: u64,
    memory: u64,
}

/// The tree of this process: the groups that it is in are the process's, however
/// many hosts it has.
static TREE: Mutex<Weak<Tree>> = Mutex::new(Weak::new());

impl Cgroups {
    /// Looks what there is, removes what hosts that were killed have left, and
    /// makes a first group, so that what is said to work was tried.
    ///
    /// # Errors
    /// If limits contradict each other, or something is missing that is required
    /// or was asked for. Else what is missing is told by [`Cgroups::probe`] and
    /// [`Cgroups::degraded`].
    pub fn open(options: CgroupOptions) -> Result<Arc<Self>, CgroupError> {
        options.check()?;
        match options.mode {
            Mode::Off => Ok(Arc::new(Self::off(options)?)),
            _ => Self::open_in(options, Surroundings::here()?, Some(&TREE)),
        }
    }

    fn off(options: CgroupOptions) -> Result<Self, CgroupError> {
        let found = Controller::ALL.map(|controller| Probed {
            controller,
            availability: Availability::Missing {
                why: "turned off (--cgroup off)".into(),
                remedy: "leave --cgroup off out",
            },
        });
        Ok(Self {
            options,
            found: found.into(),
            flat: Vec::new(),
            tree: None,
            owner: None,
            unused: Vec::new(),
            launchers: None,
            surroundings: Surroundings::here()?,
            state: Mutex::default(),
        })
    }

    pub(super) fn open_in(
        options: CgroupOptions,
        surroundings: Surroundings,
        trees: Option<&Mutex<Weak<Tree>>>,
    ) -> Result<Arc<Self>, CgroupError> {
        options.check()?;
        let mut this = Self {
            options,
            found: Vec::new(),
            flat: Vec::new(),
            tree: None,
            owner: Owner::here(&surroundings.proc),
            unused: Vec::new(),
            launchers: launchers(),
            surroundings,
            state: Mutex::default(),
        };
        let mut reasons = this.place(trees);
        this.try_out(&mut reasons);
        this.found = Controller::ALL
            .into_iter()
            .map(|controller| Probed {
                controller,
                availability: this.availability(controller, &reasons),
            })
            .collect();
        this.complete()?;
        Ok(Arc::new(this))
    }

    /// Finds out where groups can be made; what can't be used, and why.
    fn place(&mut self, trees: Option<&Mutex<Weak<Tree>>>) -> Vec<(Controller, Reason)> {
        let mut reasons = Vec::new();
        let Some(owner) = self.owner else {
            let why = "/proc doesn't say when this process started".to_owned();
            let reason = (why, "mount /proc");
            let all = Controller::ALL.into_iter();
            return all.map(|controller| (controller, reason.clone())).collect();
        };
        let surroundings = &self.surroundings;
        let found = hierarchies(&surroundings.mountinfo, &surroundings.cgroup);
        for hierarchy in &found {
            match hierarchy.version {
                Version::V1 => match branch_v1(hierarchy, surroundings) {
                    Ok(branch) => {
                        sweep(&branch.directory, surroundings);
                        // One task in a group of its own has the share that it has
                        // without, and to enter the group costs it its turn.
                        let needless = branch.controllers == [Controller::Cpu]
                            && !self.options.shares_processors();
                        match needless {
                            true => self.unused.push((
                                Controller::Cpu,
                                format!(
                                    "version 1, below {}, where a weight or a ceiling is asked for; else a worker has the share of one process",
                                    branch.directory.display()
                                ),
                            )),
                            false => self.flat.push(branch),
                        }
                    }
                    Err(reason) => reasons.extend(
                        hierarchy
                            .controllers
                            .iter()
                            .map(|controller| (*controller, reason.clone())),
                    ),
                },
                Version::V2 => {
                    let slot =
                        trees.map(|trees| trees.lock().unwrap_or_else(PoisonError::into_inner));
                    if let Some(tree) = slot.as_ref().and_then(|slot| slot.upgrade()) {
                        self.tree = Some(tree);
                        continue;
                    }
                    for place in places_v2(hierarchy) {
                        sweep(place, surroundings);
                    }
                    match Tree::make(hierarchy, &owner, self.launchers, surroundings) {
                        Ok(tree) => {
                            let tree = Arc::new(tree);
                            if let Some(mut slot) = slot {
                                *slot = Arc::downgrade(&tree);
                            }
                            self.tree = Some(tree);
                        }
                        Err(reason) => reasons.extend(
                            Controller::ALL
                                .into_iter()
                                .map(|controller| (controller, reason.clone())),
                        ),
                    }
                }
            }
        }
        reasons.extend(self.tree.iter().flat_map(|tree| tree.withheld.clone()));
        reasons
    }

    /// Makes a first group, and leaves out what can't be used.
    fn try_out(&mut self, reasons: &mut Vec<(Controller, Reason)>) {
        let Some(owner) = self.owner else { return };
        let first = loop {
            if self.branches().next().is_none() {
                return;
            }
            let made = Group::make(
                owner.next(),
                self.branches(),
                self.launchers,
                &self.surroundings,
            );
            match made {
                Ok(group) => break group,
                Err(error) => {
                    let at = match &error {
                        CgroupError::File { path, .. } => path.clone(),
                        _ => Default::default(),
                    };
                    let remedy = "look for a security module (SELinux, AppArmor) that refuses it";
                    let reason = (error.to_string(), remedy);
                    let failed = self
                        .flat
                        .iter()
                        .position(|branch| at.starts_with(&branch.directory));
                    let controllers = match failed {
                        Some(index) => self.flat.remove(index).controllers,
                        None => match self.tree.take() {
                            Some(tree) => tree.branch.controllers.clone(),
                            None => std::mem::take(&mut self.flat)
                                .into_iter()
                                .flat_map(|branch| branch.controllers)
                                .collect(),
                        },
                    };
                    reasons.extend(
                        controllers
                            .into_iter()
                            .map(|controller| (controller, reason.clone())),
                    );
                }
            }
        };
        self.lock().free.push(first);
    }

    /// The limit's own file must be there: the share of the disks isn't where
    /// their scheduler has no shares.
    fn availability(
        &self,
        controller: Controller,
        reasons: &[(Controller, Reason)],
    ) -> Availability {
        let branch = self
            .branches()
            .find(|branch| branch.controllers.contains(&controller));
        if let Some((_, detail)) = self.unused.iter().find(|(unused, _)| *unused == controller) {
            return Availability::Works {
                detail: detail.clone(),
            };
        }
        let Some(branch) = branch else {
            let reason = reasons.iter().find(|(missing, _)| *missing == controller);
            let (why, remedy) = match reason {
                Some((_, reason)) => reason.clone(),
                None => (
                    "no hierarchy with it is mounted where this process's group can be seen".into(),
                    MOUNT,
                ),
            };
            return Availability::Missing { why, remedy };
        };
        let state = self.lock();
        let part = state.free.first().and_then(|group| {
            let has = |part: &&super::group::Part| part.controllers.contains(&controller);
            group.parts.iter().find(has)
        });
        let file = settings(&self.options, controller, branch.version, 0)
            .into_iter()
            .next()
            .map_or("", |setting| setting.file);
        match part.is_some_and(|part| part.directory.join(file).exists()) {
            true => Availability::Works {
                detail: match branch.version {
                    Version::V1 => format!("version 1, below {}", branch.directory.display()),
                    Version::V2 if controller == Controller::Io => format!(
                        "version 2, below {}; shares count on disks with bfq or io.cost",
                        branch.directory.display()
                    ),
                    Version::V2 => format!("version 2, below {}", branch.directory.display()),
                },
            },
            false => Availability::Missing {
                why: format!("groups have no {file}"),
                remedy: match controller {
                    Controller::Io => {
                        "use a disk scheduler with shares: bfq (/sys/block/*/queue/scheduler), or io.cost with version 2"
                    }
                    _ => {
                        "boot a kernel whose controllers keep this limit (CONFIG_CFS_BANDWIDTH, CONFIG_FAIR_GROUP_SCHED)"
                    }
                },
            },
        }
    }

    /// Nothing is missing that must be there.
    fn complete(&self) -> Result<(), CgroupError> {
        let missing = |controller: Controller| {
            let found = self.found.iter();
            found
                .filter(|probed| probed.controller == controller)
                .find_map(Probed::missing)
        };
        for (option, controller) in self.options.asked() {
            if let Some((why, remedy)) = missing(controller) {
                return Err(CgroupError::Asked {
                    option,
                    controller: controller.name(),
                    why: why.to_owned(),
                    remedy,
                });
            }
        }
        match self.degraded() {
            Some((missing, remedy)) if self.options.mode == Mode::Require => {
                Err(CgroupError::Required { missing, remedy })
            }
            _ => Ok(()),
        }
    }

    fn branches(&self) -> impl Iterator<Item = &Branch> {
        let tree = self.tree.iter().map(|tree| &tree.branch);
        self.flat.iter().chain(tree)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the operator wants.
    pub fn options(&self) -> &CgroupOptions {
        &self.options
    }

    /// What was found, for each controller.
    pub fn probe(&self) -> &[Probed] {
        &self.found
    }

    /// What is missing of a whole set of limits (memory, cpu, pids) and what to
    /// do about it; nothing if nothing is, or groups are turned off.
    pub fn degraded(&self) -> Option<(String, &'static str)> {
        degraded(self.options.mode, &self.found)
    }

    /// Whether workers have groups.
    pub fn is_used(&self) -> bool {
        self.branches().next().is_some()
    }

    /// The group that launchers are cloned into, if there must be one.
    pub fn launcher(&self) -> Option<BorrowedFd<'_>> {
        self.tree.as_ref().map(|tree| tree.launcher())
    }

    /// A group for a worker that may have `memory` bytes; nothing if there are no
    /// groups here.
    pub fn take(self: &Arc<Self>, memory: u64) -> Result<Option<Lease>, CgroupError> {
        if !self.is_used() {
            return Ok(None);
        }
        let free = {
            let mut state = self.lock();
            state.taken += 1;
            state.memory = memory;
            let same = state.free.iter().position(|group| group.memory == memory);
            let index = same.or(state.free.len().checked_sub(1));
            index.map(|index| state.free.swap_remove(index))
        };
        if let Some(mut group) = free {
            match group.limit(&self.options, memory) {
                Ok(()) => return Ok(Some(Lease::new(self.clone(), group))),
                // Something is still charged to it, or somebody has removed it.
                Err(_) => self.retire(group),
            }
        }
        let group = self.new_group(memory)?;
        Ok(Some(Lease::new(self.clone(), group)))
    }

    fn new_group(&self, memory: u64) -> Result<Group, CgroupError> {
        let name = self.owner.map(|owner| owner.next()).unwrap_or_default();
        let mut group = Group::make(name, self.branches(), self.launchers, &self.surroundings)?;
        if let Err(error) = group.limit(&self.options, memory) {
            group.remove(&self.surroundings);
            return Err(error);
        }
        Ok(group)
    }

    /// Makes a group ahead if none is free: for a host that starts worker after
    /// worker, while one of them starts. A failure shows at the next
    /// [`Cgroups::take`].
    pub fn refill(&self) {
        let memory = {
            let state = self.lock();
            if state.taken < 2 || !state.free.is_empty() || !self.is_used() {
                return;
            }
            state.memory
        };
        if let Ok(group) = self.new_group(memory) {
            self.lock().free.push(group);
        }
    }

    pub(super) fn verify(&self, group: &Group, pid: i32) -> Result<Evidence, CgroupError> {
        evidence::verify(
            &self.surroundings.proc,
            self.branches(),
            group,
            &self.options,
            pid,
        )
    }

    pub(super) fn give_back(&self, group: Group, spent: bool) {
        if spent {
            return self.retire(group);
        }
        let mut state = self.lock();
        match state.free.len() < MOST_FREE {
            true => state.free.push(group),
            false => {
                drop(state);
                self.retire(group);
            }
        }
    }

    /// Removes a group now, or once its tasks are gone.
    fn retire(&self, group: Group) {
        let mut leaving = std::mem::take(&mut self.lock().leaving);
        leaving.push(group);
        leaving.retain(|group| !group.remove(&self.surroundings));
        self.lock().leaving.append(&mut leaving);
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut groups = std::mem::take(&mut state.free);
        groups.append(&mut state.leaving);
        // Tasks that were killed leave their group a moment later.
        for pause in [0, 1, 2, 5, 10, 20, 50] {
            std::thread::sleep(Duration::from_millis(pause));
            groups.retain(|group| !group.remove(&self.surroundings));
            if groups.is_empty() {
                break;
            }
        }
    }
}

/// Who launchers are on the host, if not this process's own user.
fn launchers() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let ids = HostIds::choose(None).ok()?;
    Some(ids.host_uid(0)).filter(|uid| *uid != 0 && *uid != u32::MAX)
}

#[cfg(test)]
mod tests;
