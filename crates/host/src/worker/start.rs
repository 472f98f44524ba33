//! The start of a worker: birth, set-up, lock, and a look from outside.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use lazaret_wall::launcher::{Launcher, LauncherError, Limits};
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wall::layers::rlimits;
use lazaret_wall::layers::seccomp::Denied;
use lazaret_wall::policy::{Kind, ProgramRights, Uses, policy};
use lazaret_wall::receipt::{self, Early, Expected, Receipt};
use lazaret_wall::supervisor::{Listener, stopped_in};
use lazaret_wall::{Grade, Layer};
use lazaret_wire::Rung;
use lazaret_wire::message::setup::LISTENER;
use lazaret_wire::message::{Assignment, FromWorker, ProgramSetup, Ready};
use lazaret_wire::socket::Channel;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::newborn::{Birth, Cradle, Newborn, Told};
use super::{Deadline, Duty, LAST_STEPS, Worker, WorkerError};
use crate::compile::Artefact;
use crate::ending::Ending;
use crate::incident::Subject;
use crate::measures::MeasureOptions;
use crate::program::Lessons;
use crate::supervisor::Supervisor;
use crate::watch::About;
use lazaret_wall::process::is_exiting;

/// How long a worker may take to be set up and locked.
const SETUP_TIME: Duration = Duration::from_secs(60);

/// How often a worker that is being set up is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What a worker is started with.
pub(crate) struct Start<'a> {
    pub launcher: &'a Arc<Launcher>,
    /// One that is born already, with the same limits and for the same kind of
    /// assignment.
    pub blank: Option<Newborn>,
    pub limits: Limits,
    pub assignment: &'a Assignment,
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Descriptors that must be open in it once it is locked.
    pub open: Open<'a>,
    pub accepted: &'a [Layer],
    /// The grade below which nothing runs.
    pub required: Option<Grade>,
    /// Measures that are left out, and that must hold.
    pub measures: &'a MeasureOptions,
    /// The tenant whose it is, if it is one's.
    pub tenant: Option<&'a str>,
    /// The hash of the module that it is for.
    pub module: &'a [u8; 32],
    /// That module's code, which it is going to run.
    pub code: Option<&'a Arc<Artefact>>,
    pub supervisor: &'a Supervisor,
    pub duty: Duty,
    /// Where its calls are counted and decided on, if it is learned from.
    pub lessons: Option<&'a Arc<Lessons>>,
    /// Whether it hands over a userfaultfd.
    pub tracked: bool,
    /// What the host has to do in any case, and does while the worker gets ready.
    pub meanwhile: &'a mut dyn FnMut(),
}

impl Worker {
    /// Starts a worker, waits for its lock, and looks at it from outside.
    /// Returns what it said and its userfaultfd, if it was to hand one over.
    pub(crate) fn start(start: Start<'_>) -> Result<(Self, Ready, Option<OwnedFd>), WorkerError> {
        let (name, kind) = match start.assignment {
            Assignment::Program(setup) => ("program", Kind::Program(rights(setup))),
            Assignment::Tenant(_) => ("tenant", Kind::Tenant),
            Assignment::Compiler => ("compiler", Kind::Compiler),
        };
        let birth = Birth {
            launcher: start.launcher,
            limits: start.limits,
            kind: start.assignment.kind(),
            accepted: start.accepted,
            measures_off: start.measures.off_for(start.assignment),
            supervisor: start.supervisor,
        };
        let told = Told {
            assignment: start.assignment,
            descriptors: start.descriptors,
            about: About {
                subject: Subject {
                    tenant: start.tenant.map(str::to_owned),
                    worker: name.to_owned(),
                    module: Some(blake3::Hash::from_bytes(*start.module).to_string()),
                },
                duty: start.duty,
                lessons: start.lessons.cloned(),
                code: start.code.cloned(),
                cpu_seconds: start.limits.cpu_seconds,
            },
        };
        let mut meanwhile = || {
            start.supervisor.prepare();
            (start.meanwhile)();
        };
        let Newborn {
            mut worker,
            setup,
            launcher,
            measures_off,
            host_uid,
            grouping,
            own,
            early,
        } = match start.blank {
            Some(mut blank) => {
                blank.tell(told)?;
                meanwhile();
                blank
            }
            // All that it will be told lies ready before it is born, so that it
            // never waits for this side, which is told of it later.
            None => {
                let mut cradle = Cradle::new(birth, false)?;
                cradle.tell(told)?;
                cradle.bear(&mut meanwhile)?
            }
        };
        let (pid, off) = (worker.pid, launcher.off());
        let ready = match worker.wait_for_setup()? {
            FromWorker::Ready(ready) => ready,
            FromWorker::Failed(failed) => return Err(failed.into()),
            _ => return Err(worker.malformed("not ready, and no failure either").into()),
        };
        let tracked = match start.tracked {
            false => None,
            true => match setup.poll(Duration::ZERO)? {
                true => setup.receive()?.descriptors.into_iter().next(),
                false => None,
            },
        };
        let denied = worker.take_listener(&setup)?;
        if launcher.lowers_limits() {
            rlimits::lower_descriptors(pid, start.limits.descriptors)
                .map_err(|error| worker.or_its_end(error))?;
        }
        let missing: Vec<Layer> = ready
            .missing
            .iter()
            .filter_map(|name| name.parse().ok())
            .chain(launcher.missing().iter().copied())
            .collect();
        let may_open = matches!(kind, Kind::Program(rights) if rights.directories);
        let early = match early {
            Some(early) => early,
            None => Early::look(pid).map_err(|error| worker.or_its_end(error))?,
        };
        let status = receipt::status(pid).map_err(|error| worker.or_its_end(error))?;
        let (receipt, posture) = Receipt::verify(&Expected {
            pid,
            status: &status,
            early: &early,
            host_uid,
            own: &own,
            descriptors: start.open,
            missing: &missing,
            accepted: start.accepted,
            off,
            kind,
            denied,
            learning: start.lessons.is_some(),
        })
        .map_err(|error| worker.or_its_end(error))?;
        let grouping = grouping.map_err(|error| worker.or_its_end(LauncherError::from(error)))?;
        worker.receipt = receipt;
        worker.receipt.cgroup = grouping;
        worker.receipt.measures = start
            .measures
            .verify(pid, &status, &early, &ready.missing, &measures_off)
            .map_err(|error| worker.or_its_end(error))?;
        worker
            .watch
            .set_receipt(worker.receipt.clone(), posture, may_open);
        start
            .supervisor
            .watch(&worker.watch)
            .map_err(WorkerError::Supervisor)?;
        if let Some(required) = start.required
            && worker.receipt.grade > required
        {
            worker.kill();
            return Err(WorkerError::Grade {
                grade: worker.receipt.grade,
                required,
                missing: worker.receipt.shortcomings(),
            });
        }
        Ok((worker, ready, tracked))
    }

    /// Takes the listener of its filter, if it could have one. The worker sends it before it says that it is ready.
    fn take_listener(&self, setup: &Channel) -> Result<Denied, WorkerError> {
        let told = match setup.poll(Duration::ZERO)? {
            true => setup.receive()?,
            false => {
                return Err(WorkerError::Ended(
                    self.malformed("ready, but no word of its filter"),
                ));
            }
        };
        if told.bytes != LISTENER {
            return Err(WorkerError::Ended(
                self.malformed("another word than of its filter"),
            ));
        }
        let denied = match told.descriptors.into_iter().next() {
            None => Denied::Kill,
            Some(descriptor) => match Listener::from_descriptor(descriptor) {
                Ok(listener) => {
                    self.watch.set_listener(listener);
                    Denied::Notify
                }
                Err(error) => {
                    return Err(WorkerError::Ended(self.malformed(&error.to_string())));
                }
            },
        };
        Ok(denied)
    }

    /// This error, or how it ended, if that is why.
    fn or_its_end(&self, error: impl Into<WorkerError>) -> WorkerError {
        match self.ended_by_itself() {
            Some(ending) => WorkerError::Ended(ending),
            None => error.into(),
        }
    }

    /// How it ended, if it has, though nobody here ended it: of one that is
    /// gone nothing can be seen, which says nothing about its lock.
    fn ended_by_itself(&self) -> Option<Ending> {
        let mut end = [PollFd::new(self.watch.pidfd()?, PollFlags::IN)];
        // One on its way out has no memory any more, but isn't reported yet.
        let patience = match is_exiting(self.pid) {
            true => LAST_STEPS,
            false => Duration::ZERO,
        };
        // A pidfd can be read once its process has ended (pidfd_open(2)).
        match rustix::event::poll(&mut end, Timespec::try_from(patience).ok().as_ref()) {
            Ok(1..) => {
                self.death.wait(LAST_STEPS);
                self.death.ending()
            }
            _ => None,
        }
    }

    /// Waits until the worker is set up. One that tries a forbidden call
    /// meanwhile stands still without a word, so it is looked at now and then.
    pub(super) fn wait_for_setup(&mut self) -> Result<FromWorker, Ending> {
        let mut deadline = Deadline::after(SETUP_TIME);
        loop {
            let left = deadline.left();
            let rung = self.sleep_for(left.min(LOOK));
            if rung != Rung::Timeout {
                return self.take(rung, SETUP_TIME);
            }
            if let Some(call) = stopped_in(self.pid, &policy(Kind::Launch)) {
                self.watch.forbidden(call);
                self.death.wait(LAST_STEPS);
                return Err(self.death.ending().unwrap_or(Ending::LauncherEnded));
            }
            if left <= LOOK {
                return Err(self.ended_for(Ending::Deadline(SETUP_TIME)));
            }
        }
    }
}

/// What a program is going to be locked for.
fn rights(setup: &ProgramSetup) -> ProgramRights {
    ProgramRights {
        directories: !setup.preopens.is_empty(),
        writable: setup.preopens.iter().any(|preopen| preopen.writable),
        uses: match setup.learn {
            true => Uses::NONE,
            false => Uses::from_bits(setup.uses),
        },
    }
}
