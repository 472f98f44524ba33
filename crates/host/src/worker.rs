//! One worker, from the host's side: start, lock, verify, ask, kill.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lazaret_wall::cgroup::{CgroupError, Lease};
use lazaret_wall::launcher::{Launcher, LauncherError, Limits};
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wall::layers::namespaces::Own;
use lazaret_wall::layers::seccomp::Denied;
use lazaret_wall::policy::{Kind, ProgramRights, Uses};
use lazaret_wall::receipt::{Expected, Grouping, Pages, Receipt, Unverified};
use lazaret_wall::supervisor::Listener;
use lazaret_wall::{Grade, Layer, LayerError};
use lazaret_wire::codec::Message;
use lazaret_wire::message::setup::LISTENER;
use lazaret_wire::message::{
    Assign, Assignment, Call, FromWorker, Hello, ProgramSetup, Ready, ToWorker,
};
use lazaret_wire::socket::{Channel, ChannelError};
use lazaret_wire::{EncodeError, Rung, Shared, SharedError, Spin, bell, layout};
use rustix::event::{PollFd, PollFlags, Timespec};
use thiserror::Error;

use crate::ending::{Death, Ending};
use crate::incident::{Incident, Subject};
use crate::page_copy::Copier;
use crate::supervisor::Supervisor;
use crate::watch::Watch;

/// How long a worker may take to be set up and locked.
const SETUP_TIME: Duration = Duration::from_secs(60);

/// How long a process that is ending may take until that is reported.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// Why a worker could not be started, or didn't answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The launcher could not start it.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// A layer of its wall could not be put on.
    #[error("{message}{}", layer.without())]
    Layer {
        /// The layer.
        layer: Layer,
        /// What failed and what to do.
        message: String,
    },
    /// It could not be set up for another reason: usually the module's.
    #[error("{0}")]
    Setup(String),
    /// What was seen of it from outside is not what it should be.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// It ended.
    #[error("the worker ended: {0}")]
    Ended(Ending),
    /// A request is too large.
    #[error("the request is too large: {0}")]
    TooLarge(#[from] EncodeError),
    /// Shared memory.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The set-up socket.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Its wall is not as good as the operator demands.
    #[error("the wall has grade {grade} here ({}), and {required} is required (--require-grade): {missing}", grade.meaning())]
    Grade {
        /// Its grade.
        grade: Grade,
        /// The least that is accepted.
        required: Grade,
        /// What it lacks.
        missing: String,
    },
    /// There is no thread or descriptor left to look after it.
    #[error("the supervisor of workers: {0}; raise the limit of descriptors or threads")]
    Supervisor(#[source] std::io::Error),
}

impl From<LayerError> for WorkerError {
    fn from(error: LayerError) -> Self {
        Self::Layer {
            layer: error.layer,
            message: error.to_string(),
        }
    }
}

/// What a worker is started with.
pub(crate) struct Start<'a> {
    pub launcher: &'a Launcher,
    pub limits: Limits,
    pub assignment: Assignment,
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Descriptors that must be open in it once it is locked.
    pub open: Open<'a>,
    pub accepted: &'a [Layer],
    /// The grade below which nothing runs.
    pub required: Option<Grade>,
    /// The tenant whose it is, if it is one's.
    pub tenant: Option<&'a str>,
    /// The hash of the module that it is for.
    pub module: &'a [u8; 32],
    pub supervisor: &'a Supervisor,
    /// Whether it hands over a userfaultfd.
    pub tracked: bool,
}

/// A time limit over several waits. Its clock starts when it is first looked at.
#[derive(Debug)]
pub(crate) struct Deadline {
    limit: Duration,
    begin: Option<Instant>,
}

impl Deadline {
    /// At this time after the clock's start.
    pub(crate) fn after(limit: Duration) -> Self {
        Self { limit, begin: None }
    }

    /// Whether nothing is left. A clock that doesn't run yet isn't started.
    fn is_over(&self) -> bool {
        let gone = self.begin.map_or(Duration::ZERO, |begin| begin.elapsed());
        gone >= self.limit
    }

    /// What is left, from now on if the clock doesn't run yet.
    pub(crate) fn left(&mut self) -> Duration {
        match self.begin {
            None => {
                self.begin = Some(Instant::now());
                self.limit
            }
            Some(begin) => self.limit.saturating_sub(begin.elapsed()),
        }
    }
}

/// A locked, verified worker.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    death: Arc<Death>,
    watch: Arc<Watch>,
    pid: i32,
    requests: u32,
    answers: u32,
    buffer: Vec<u8>,
    receipt: Receipt,
    spin: Spin,
}

impl Worker {
    /// Starts a worker, waits for its lock, and looks at it from outside.
    /// Returns what it said and its userfaultfd, if it was to hand one over.
    pub(crate) fn start(start: Start<'_>) -> Result<(Self, Ready, Option<OwnedFd>), WorkerError> {
        let file = lazaret_wire::shared::create()?;
        let shared = Arc::new(Shared::map(file.as_fd())?);
        let death = Arc::new(Death::default());
        // All that it will be told lies ready before it is born, so that it
        // never waits for this side, which is told of it later.
        let (setup, theirs) = Channel::pair()?;
        let hello = Hello {
            accept_missing: start
                .accepted
                .iter()
                .map(|layer| layer.name().to_owned())
                .collect(),
        };
        let mut buffer = Vec::new();
        hello.to_bytes(&mut buffer)?;
        setup.send(&buffer, &[file.as_fd()])?;
        setup.send_descriptors(start.descriptors)?;
        drop(file);
        let mut requests = 0;
        let (name, kind) = match &start.assignment {
            Assignment::Program(setup) => ("program", Kind::Program(rights(setup))),
            Assignment::Tenant(_) => ("tenant", Kind::Tenant),
            Assignment::Compiler => ("compiler", Kind::Compiler),
        };
        let assign = ToWorker::Assign(Assign {
            assignment: start.assignment,
        });
        assign.to_bytes(&mut buffer)?;
        let subject = Subject {
            tenant: start.tenant.map(str::to_owned),
            worker: name.to_owned(),
            module: Some(blake3::Hash::from_bytes(*start.module).to_string()),
        };
        let recorder = start.supervisor.recorder().clone();
        let watch = Arc::new(Watch::new(
            subject,
            recorder,
            shared.clone(),
            death.clone(),
            start.limits.cpu_seconds,
        ));
        put(&shared, &watch, &buffer, &mut requests)?;
        let spawned = {
            let (shared, watch) = (shared.clone(), watch.clone());
            start.launcher.spawn(start.limits, theirs, move |event| {
                watch.ended(event);
                bell::wake(shared.u32(layout::ANSWER_BELL));
            })?
        };
        watch.set_process(spawned.pid, spawned.pidfd);
        let mut worker = Self {
            shared,
            death,
            watch,
            pid: spawned.pid,
            requests,
            answers: 0,
            buffer,
            receipt: Receipt::none(spawned.pid, spawned.host_uid),
            spin: Spin::NONE,
        };
        // It is busy for a while.
        let grouping = grouping(start.launcher, spawned.group.as_deref(), spawned.pid);
        drop(spawned.group);
        let own = Own::look().map_err(|found| Unverified {
            layer: Layer::UserNamespace,
            found,
        })?;
        let ready = match worker.wait(SETUP_TIME) {
            Ok(FromWorker::Ready(ready)) => ready,
            Ok(FromWorker::Failed(failed)) => {
                worker.kill();
                return Err(match failed.layer.and_then(|name| name.parse().ok()) {
                    Some(layer) => WorkerError::Layer {
                        layer,
                        message: failed.message,
                    },
                    None => WorkerError::Setup(failed.message),
                });
            }
            Ok(_) => {
                return Err(WorkerError::Ended(
                    worker.malformed("not ready, and no failure either"),
                ));
            }
            Err(ending) => return Err(WorkerError::Ended(ending)),
        };
        let tracked = match start.tracked {
            false => None,
            true => match setup.poll(Duration::ZERO)? {
                true => setup.receive()?.descriptors.into_iter().next(),
                false => None,
            },
        };
        let denied = worker.take_listener(&setup, start.supervisor)?;
        let missing: Vec<Layer> = ready
            .missing
            .iter()
            .filter_map(|name| name.parse().ok())
            .chain(start.launcher.missing().iter().copied())
            .collect();
        let verified = Receipt::verify(&Expected {
            pid: spawned.pid,
            host_uid: spawned.host_uid,
            own: &own,
            descriptors: start.open,
            missing: &missing,
            accepted: start.accepted,
            kind,
            denied,
        });
        let grouping = match grouping {
            Ok(grouping) => grouping,
            Err(error) => {
                return Err(match worker.ended_by_itself() {
                    Some(ending) => WorkerError::Ended(ending),
                    None => LauncherError::from(error).into(),
                });
            }
        };
        worker.receipt = verified.map_err(|unverified| match worker.ended_by_itself() {
            Some(ending) => WorkerError::Ended(ending),
            None => unverified.into(),
        })?;
        worker.receipt.cgroup = grouping;
        worker.watch.set_receipt(worker.receipt.clone());
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

    /// Takes the listener of its filter, if it could have one, and has it
    /// watched. The worker sends it before it says that it is ready.
    fn take_listener(
        &self,
        setup: &Channel,
        supervisor: &Supervisor,
    ) -> Result<Denied, WorkerError> {
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
        supervisor
            .watch(&self.watch)
            .map_err(WorkerError::Supervisor)?;
        Ok(denied)
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

    /// Puts on its receipt how its pages are followed.
    pub(crate) fn note_pages(&mut self, tracker: &'static str, copier: Copier) {
        self.receipt.pages = Some(Pages {
            tracker,
            copied_by: copier.name(),
        });
    }

    /// What was verified about it.
    pub(crate) fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// What it ended for, if that is an incident.
    pub(crate) fn incident(&self) -> Option<Arc<Incident>> {
        self.watch.incident()
    }

    /// Its number on the host.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// What becomes known of its end.
    pub(crate) fn death(&self) -> Weak<Death> {
        Arc::downgrade(&self.death)
    }

    /// Its shared memory.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether it still runs, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        !self.death.has_come()
    }

    /// Spin before sleeping while waiting for this worker.
    pub(crate) fn set_spin(&mut self, spin: Spin) {
        self.spin = spin;
    }

    /// Puts a request on the wire and rings.
    pub(crate) fn send(&mut self, request: &ToWorker) -> Result<(), WorkerError> {
        request.to_bytes(&mut self.buffer)?;
        put(&self.shared, &self.watch, &self.buffer, &mut self.requests)
    }

    /// The same for a call that the caller keeps.
    pub(crate) fn send_call(&mut self, call: &Call) -> Result<(), WorkerError> {
        ToWorker::call_to_bytes(call, &mut self.buffer)?;
        put(&self.shared, &self.watch, &self.buffer, &mut self.requests)
    }

    /// Waits for the next answer as [`Worker::wait`] does, until a time that
    /// several waits have in common. Its clock starts only if the answer
    /// doesn't come at once.
    pub(crate) fn wait_until(&mut self, deadline: &mut Deadline) -> Result<FromWorker, Ending> {
        // A worker that is always quick to make another host call would else
        // never meet its deadline: who answers one starts the clock.
        if deadline.is_over() {
            return Err(self.ended_for(Ending::Deadline(deadline.limit)));
        }
        let bell = self.shared.u32(layout::ANSWER_BELL);
        match bell::spin(bell, self.answers, &mut self.spin) {
            Some(rung) => self.take(rung, deadline.limit),
            None => self.sleep(deadline.left()),
        }
    }

    /// Waits for the next answer, copies it out once and decodes the copy.
    /// Whatever is wrong with it, the worker is dead afterwards.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<FromWorker, Ending> {
        self.wait_until(&mut Deadline::after(limit))
    }

    fn sleep(&mut self, limit: Duration) -> Result<FromWorker, Ending> {
        let rung = bell::wait(
            self.shared.u32(layout::ANSWER_BELL),
            self.shared.u32(layout::HOST_SLEEPS),
            self.answers,
            &mut { Spin::NONE },
            Some(limit),
            &|| self.death.has_come(),
        );
        self.take(rung, limit)
    }

    /// The answer that was rung for.
    fn take(&mut self, rung: Rung, limit: Duration) -> Result<FromWorker, Ending> {
        match rung {
            Rung::Next => self.answers = self.answers.wrapping_add(1),
            Rung::Timeout => return Err(self.ended_for(Ending::Deadline(limit))),
            Rung::Stopped => {
                return Err(self.death.ending().unwrap_or(Ending::LauncherEnded));
            }
            Rung::Wild(value) => {
                return Err(self.malformed(&format!(
                    "answer bell {value}, expected {}",
                    self.answers.wrapping_add(1)
                )));
            }
        }
        if let Err(error) = self.shared.take_answer(&mut self.buffer) {
            return Err(self.malformed(&error.to_string()));
        }
        match FromWorker::from_bytes(&self.buffer) {
            Ok(message) => Ok(message),
            Err(error) => Err(self.malformed(&error.to_string())),
        }
    }

    /// Kills the worker for what it wrote.
    pub(crate) fn malformed(&self, what: &str) -> Ending {
        self.ended_for(Ending::Malformed(what.to_owned()))
    }

    /// Kills the worker for this, which goes on record.
    fn ended_for(&self, ending: Ending) -> Ending {
        self.watch.report(&ending);
        self.kill();
        ending
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        self.watch.kill();
    }

    /// Ends it and waits until it is gone; what it used, if the kernel said.
    pub(crate) fn end(&self) -> Option<lazaret_wall::launcher::Usage> {
        self.kill();
        self.death.wait(LAST_STEPS);
        self.death.usage()
    }
}

/// What a program is going to be locked for.
fn rights(setup: &ProgramSetup) -> ProgramRights {
    ProgramRights {
        directories: !setup.preopens.is_empty(),
        writable: setup.preopens.iter().any(|preopen| preopen.writable),
        uses: Uses::from_bits(setup.uses),
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

/// Puts a request on the wire and rings; `requests` counts them.
fn put(
    shared: &Shared,
    watch: &Watch,
    request: &[u8],
    requests: &mut u32,
) -> Result<(), WorkerError> {
    shared.put_request(request)?;
    *requests = requests.wrapping_add(1);
    watch.note_request(*requests, request);
    bell::ring(
        shared.u32(layout::REQUEST_BELL),
        shared.u32(layout::WORKER_SLEEPS),
        *requests,
    );
    Ok(())
}

/// Whether a process is ending, or has ended: `PF_EXITING` among the flags in
/// `/proc/PID/stat`, the seventh field after the name (kernel:
/// include/linux/sched.h; proc_pid_stat(5)).
fn is_exiting(pid: i32) -> bool {
    const PF_EXITING: u32 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The name may hold anything, but ends with the last parenthesis.
    let flags = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(6)?.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_told_from_what_runs() {
        assert!(!is_exiting(std::process::id() as i32));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::PidfdFlags::empty(),
        )
        .unwrap();
        // Ended, but nobody has waited for it.
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert!(is_exiting(pid));
        child.wait().unwrap();
        assert!(is_exiting(pid), "it is gone");
    }
}
