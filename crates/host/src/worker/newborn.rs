//! A worker before it knows what it is for: born, closed in, and asleep.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use lazaret_wall::cgroup::{CgroupError, Lease};
use lazaret_wall::launcher::{Launcher, Limits, Spawned};
use lazaret_wall::layers::namespaces::Own;
use lazaret_wall::receipt::{Early, Grouping, Receipt, Unverified};
use lazaret_wall::{Layer, Measure};
use lazaret_wire::codec::Message;
use lazaret_wire::message::{Assignment, FromWorker, Hello, ToWorker, WorkerKind};
use lazaret_wire::socket::Channel;
use lazaret_wire::{Shared, Spin, bell, layout};

use super::{Worker, WorkerError};
use crate::ending::Death;
use crate::incident::Noted;
use crate::supervisor::Supervisor;
use crate::watch::{About, Watch};

/// What a worker is born with, whatever it is going to be told.
pub(crate) struct Birth<'a> {
    pub(crate) launcher: &'a Arc<Launcher>,
    pub(crate) limits: Limits,
    pub(crate) kind: WorkerKind,
    pub(crate) accepted: &'a [Layer],
    /// Measures that are left out, and why.
    pub(crate) measures_off: Vec<(Measure, &'static str)>,
    pub(crate) supervisor: &'a Supervisor,
}

/// A worker that isn't born yet: what the host and it are going to share.
#[derive(Debug)]
pub(super) struct Cradle {
    worker: Worker,
    setup: Channel,
    launcher: Arc<Launcher>,
    limits: Limits,
    measures_off: Vec<(Measure, &'static str)>,
    /// The worker's end of the set-up socket.
    theirs: Channel,
}

/// A worker that was born and isn't set up yet. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(super) worker: Worker,
    pub(super) setup: Channel,
    pub(super) launcher: Arc<Launcher>,
    pub(super) measures_off: Vec<(Measure, &'static str)>,
    pub(super) host_uid: u32,
    /// How it stands with control groups.
    pub(super) grouping: Result<Option<Grouping>, CgroupError>,
    /// The host's namespaces.
    pub(super) own: Own,
    /// What was seen of it, if it said that it is closed in.
    pub(super) early: Option<Early>,
}

impl Cradle {
    /// Makes it, with the first word to the worker in it.
    pub(super) fn new(birth: Birth<'_>, blank: bool) -> Result<Self, WorkerError> {
        let file = lazaret_wire::shared::create()?;
        let shared = Arc::new(Shared::map(file.as_fd())?);
        let death = Arc::new(Death::default());
        let (setup, theirs) = Channel::pair()?;
        let off = birth.launcher.off();
        let hello = Hello {
            kind: birth.kind,
            blank,
            measures_off: birth
                .measures_off
                .iter()
                .map(|(measure, _)| measure.name().to_owned())
                .collect(),
            accept_missing: birth
                .accepted
                .iter()
                .map(|layer| layer.name().to_owned())
                .collect(),
            off: off.names(),
            // Root may look at anybody, and whoever has made its user namespace.
            dumpable: off.has(Layer::UserNamespace) && !rustix::process::geteuid().is_root(),
        };
        let mut buffer = Vec::new();
        hello.to_bytes(&mut buffer)?;
        setup.send(&buffer, &[file.as_fd()])?;
        let recorder = birth.supervisor.recorder().clone();
        let watch = Watch::new(recorder, shared.clone(), death.clone());
        Ok(Self {
            worker: Worker {
                watch: Arc::new(watch),
                shared,
                death,
                pid: 0,
                requests: 0,
                answers: 0,
                buffer,
                receipt: Receipt::none(0, 0),
                spin: Spin::NONE,
                woken: false,
                cold: false,
                vain: false,
                more: false,
            },
            setup,
            launcher: birth.launcher.clone(),
            limits: birth.limits,
            measures_off: birth.measures_off,
            theirs,
        })
    }

    /// Tells it what it is for, so that it won't wait for that.
    pub(super) fn tell(&mut self, told: Told<'_>) -> Result<(), WorkerError> {
        told.to(&mut self.worker, &self.setup)
    }

    /// Has it born, and does something `meanwhile`.
    pub(super) fn bear(self, meanwhile: &mut dyn FnMut()) -> Result<Newborn, WorkerError> {
        let Self { mut worker, .. } = self;
        let ordered = {
            let (shared, watch) = (worker.shared.clone(), worker.watch.clone());
            let ended = move |event| {
                watch.ended(event);
                bell::wake(shared.u32(layout::ANSWER_BELL));
            };
            self.launcher.order(self.limits, self.theirs, ended)?
        };
        meanwhile();
        let spawned = ordered.wait()?;
        let Spawned {
            pid,
            pidfd,
            host_uid,
            group,
        } = spawned;
        worker.watch.set_process(pid, pidfd);
        worker.pid = pid;
        worker.receipt = Receipt::none(pid, host_uid);
        // It is busy for a while.
        let grouping = grouping(&self.launcher, group.as_deref(), pid);
        drop(group);
        let own = Own::look().map_err(|found| Unverified {
            layer: Layer::UserNamespace,
            found,
        })?;
        Ok(Newborn {
            worker,
            setup: self.setup,
            launcher: self.launcher,
            measures_off: self.measures_off,
            host_uid,
            grouping,
            own,
            early: None,
        })
    }
}

impl Newborn {
    /// A blank worker: it isn't told what for, is closed in, and waits. What can't
    /// change of it from then on was seen.
    pub(crate) fn blank(birth: Birth<'_>) -> Result<Self, WorkerError> {
        let mut blank = Cradle::new(birth, true)?.bear(&mut || {})?;
        match blank.worker.wait_for_setup()? {
            FromWorker::Waiting => {}
            FromWorker::Failed(failed) => return Err(failed.into()),
            _ => {
                let ending = blank.worker.malformed("not waiting, and no failure either");
                return Err(WorkerError::Ended(ending));
            }
        }
        blank.early = Some(Early::look(blank.worker.pid)?);
        Ok(blank)
    }

    /// The launcher that it came from.
    pub(crate) fn launcher(&self) -> &Arc<Launcher> {
        &self.launcher
    }

    /// Whether it still lives, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        self.worker.is_alive()
    }

    /// Tells it what it is for.
    pub(super) fn tell(&mut self, told: Told<'_>) -> Result<(), WorkerError> {
        told.to(&mut self.worker, &self.setup)
    }
}

/// What a worker is told when it is known what it is for.
pub(super) struct Told<'a> {
    pub(super) assignment: &'a Assignment,
    pub(super) descriptors: &'a [BorrowedFd<'a>],
    pub(super) about: About,
}

impl Told<'_> {
    fn to(self, worker: &mut Worker, setup: &Channel) -> Result<(), WorkerError> {
        worker.watch.set_about(self.about);
        setup.send_descriptors(self.descriptors)?;
        ToWorker::assign_to_bytes(self.assignment, &mut worker.buffer)?;
        worker.put(Noted::Other)
    }
}

/// Looks at a worker's control group from outside, and has the next one made
/// ahead. Nothing if the host has none to do with groups.
fn grouping(
    launcher: &Launcher,
    group: Option<&Lease>,
    pid: i32,
) -> Result<Option<Grouping>, CgroupError> {
    let Some(cgroups) = launcher.cgroups() else {
        return Ok(None);
    };
    let seen = group.map(|group| group.verify(pid)).transpose()?;
    cgroups.refill();
    Ok(Some(Grouping::new(cgroups, seen)))
}
