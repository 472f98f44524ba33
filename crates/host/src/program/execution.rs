//! One run of a program in a worker of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazaret_guest::engine;
use lazaret_wall::Receipt;
use lazaret_wall::launcher::{Launcher, Limits, Usage};
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wall::policy::{ProgramRights, Uses};
use lazaret_wire::message::{
    Assignment, Beginning, Clock, Exited, FromWorker, HostReturn, Preopen, ProgramSetup, ToWorker,
};

use super::error::RunError;
use super::grants::{Directory, Granting, refused};
use super::learned::{Learned, Lessons};
use super::report::{Report, Verdict};
use super::streams::{Counted, Input, Output, Relays, StreamError, connect};
use super::verdict::verdict;
use crate::compile::Artefact;
use crate::ending::Ending;
use crate::functions::{Functions, Throttled};
use crate::host::Inner;
use crate::incident::Incident;
use crate::worker::{Duty, Start, Worker};

/// How long, after a program's time is over, the rest of its output may take to
/// be read.
const DELIVERY: Duration = Duration::from_millis(500);

/// Room for the worker's own data beside the program's memories, in bytes.
const OWN_DATA: u64 = 512 << 20;
/// Address space beside the memories' own bytes: reservations of 4 GiB each,
/// code, stacks.
const OWN_ADDRESSES: u64 = 32 << 30;

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunLimits {
    /// Bytes of all memories and tables.
    pub(super) memory: u64,
    /// Wall-clock time.
    pub(super) time: Option<Duration>,
    /// Processor time.
    pub(super) cpu_time: Option<Duration>,
    /// Fuel.
    pub(super) fuel: Option<u64>,
    /// Bytes of output.
    pub(super) output: Option<u64>,
}

/// What is run, and with what.
pub(super) struct Plan<'a> {
    pub(super) host: &'a Inner,
    pub(super) artefact: &'a Arc<Artefact>,
    pub(super) limits: RunLimits,
    /// The launcher of its worker.
    pub(super) granting: Granting,
    pub(super) directories: &'a [Directory],
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<String>,
    /// What its imports can need system calls for.
    pub(super) uses: Uses,
    /// Whether it is learned from.
    pub(super) learn: bool,
    /// What it is told of time.
    pub(super) clock: Clock,
    pub(super) beginning: Beginning,
    /// The pages of the snapshot that it begins from.
    pub(super) pages: Option<&'a OwnedFd>,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) error: Output,
}

/// A run that is under way.
pub(super) struct Execution {
    worker: Worker,
    /// The worker ends with it: one for directories is this run's own.
    _launcher: Arc<Launcher>,
    lessons: Option<Arc<Lessons>>,
    relays: Relays,
    limits: RunLimits,
    spawn_time: Duration,
    began: Instant,
}

/// A run that is over.
pub(super) struct Ended {
    end: Result<Exited, Ending>,
    output: Counted,
    usage: Option<Usage>,
    receipt: Receipt,
    incident: Option<Box<Incident>>,
    learned: Option<Box<Learned>>,
    fuel: Option<u64>,
    wall_time: Duration,
    spawn_time: Duration,
    unread_after: Option<Duration>,
}

impl Execution {
    /// Starts a locked, verified worker and lets it go.
    pub(super) fn start(plan: Plan<'_>) -> Result<Self, RunError> {
        let started = Instant::now();
        let Plan { host, limits, .. } = plan;
        let (launcher, directories) = plan.granting.finish(host)?;
        let (streams, mut drains) = connect(plan.input, plan.output, plan.error, limits.output)?;
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![plan.artefact.file.as_fd()];
        descriptors.extend(streams.worker_ends().map(|end| end.as_fd()));
        descriptors.extend(plan.pages.map(AsFd::as_fd));
        descriptors.extend(directories.iter().map(AsFd::as_fd));
        let cpu_seconds = limits
            .cpu_time
            .map(|limit| limit.as_secs() + u64::from(limit.subsec_nanos() > 0));
        let lessons = plan.learn.then(|| {
            let rights = ProgramRights {
                directories: !plan.directories.is_empty(),
                writable: plan.directories.iter().any(|directory| directory.writable),
                uses: plan.uses,
            };
            Arc::new(Lessons::new(rights, plan.directories))
        });
        let mut relays = Err(io::ErrorKind::NotConnected.into());
        let (mut worker, _, _) = Worker::start(Start {
            blank: None,
            launcher: &launcher,
            supervisor: &host.supervisor,
            duty: Duty::Serve,
            lessons: lessons.as_ref(),
            required: host.options.require_grade,
            measures: &host.options.measures,
            tenant: None,
            module: &plan.artefact.module,
            code: Some(plan.artefact),
            limits: Limits {
                address_space: limits.memory.saturating_add(OWN_ADDRESSES),
                data: limits.memory.saturating_add(OWN_DATA),
                descriptors: 256,
                file: if plan.directories.iter().any(|directory| directory.writable) {
                    u64::MAX
                } else {
                    0
                },
                cpu_seconds,
                stack: engine::NATIVE_STACK,
                compiler: false,
            },
            assignment: &Assignment::Program(ProgramSetup {
                arguments: plan.arguments,
                environment: plan.environment,
                preopens: plan
                    .directories
                    .iter()
                    .map(|directory| Preopen {
                        guest: directory.guest.clone(),
                        writable: directory.writable,
                    })
                    .collect(),
                memory_limit: limits.memory,
                fuel: limits.fuel,
                host_functions: host.functions.provided(),
                uses: plan.uses.bits(),
                learn: plan.learn,
                clock: plan.clock,
                beginning: plan.beginning,
            }),
            descriptors: &descriptors,
            open: Open {
                fixed: &[0, 1, 2],
                directories: plan.directories.len(),
            },
            accepted: &host.options.accept_missing,
            tracked: false,
            meanwhile: &mut || relays = drains.carry(),
        })
        .map_err(|error| refused(error, plan.directories, launcher.first_host_uid()))?;
        drop(descriptors);
        let spawn_time = started.elapsed();
        let relays = relays.map_err(StreamError::from)?;
        streams.feed();
        let began = Instant::now();
        worker.send(&ToWorker::Start)?;
        Ok(Self {
            worker,
            _launcher: launcher,
            lessons,
            relays,
            limits,
            spawn_time,
            began,
        })
    }

    /// Waits for its end, and answers host calls meanwhile. The worker still
    /// lives if it said that it has ended.
    pub(super) fn wait(&mut self, functions: &Functions) -> Result<Exited, Ending> {
        let limit = self.limits.time.unwrap_or(Duration::MAX);
        let throttle = functions.throttle();
        loop {
            let left = limit.saturating_sub(self.began.elapsed());
            match self.worker.wait(left) {
                Ok(FromWorker::Exited(exited)) => return Ok(exited),
                Ok(FromWorker::HostCall(call)) => {
                    let result = match functions.admit(&throttle, call.function, false) {
                        Ok(()) => functions.call(call.function, &call.argument),
                        Err(Throttled::Refused(words)) => Err(words),
                        // Only what changes a tenant's state waits.
                        Err(Throttled::Wait(_)) => Err("called too often".to_owned()),
                    };
                    if let Err(error) = self
                        .worker
                        .send(&ToWorker::HostReturn(HostReturn { result }))
                    {
                        return Err(self.worker.malformed(&error.to_string()));
                    }
                }
                Ok(_) => return Err(self.worker.malformed("neither an end nor a host call")),
                Err(Ending::Deadline(_)) => return Err(Ending::Deadline(limit)),
                Err(ending) => return Err(ending),
            }
        }
    }

    /// The worker.
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Ends the worker, and delivers what it printed.
    pub(super) fn end(self, end: Result<Exited, Ending>) -> Ended {
        let wall_time = self.began.elapsed();
        let usage = self.worker.end();
        let RunLimits { time, cpu_time, .. } = self.limits;
        // The kernel ends who is over its processor time by SIGXCPU, which pid 1
        // of a namespace ignores, and a second later by SIGKILL.
        let end = match (end, cpu_time, usage) {
            (Err(Ending::Killed | Ending::Signal(libc::SIGKILL)), Some(limit), Some(usage))
                if Duration::from_micros(usage.user_us + usage.system_us) >= limit =>
            {
                Err(Ending::CpuTime)
            }
            (end, ..) => end,
        };
        // Whoever reads the output can't hold a program past its time.
        let now = Instant::now();
        let until = match (&end, time) {
            (Err(Ending::Deadline(_) | Ending::CpuTime), _) => now.checked_add(DELIVERY),
            (_, Some(limit)) => self
                .began
                .checked_add(limit)
                .and_then(|end| end.max(now).checked_add(DELIVERY)),
            (_, None) => None,
        };
        let output = self.relays.finish(until);
        Ended {
            unread_after: match end {
                Ok(_) if output.unread => Some(time.unwrap_or(Duration::MAX)),
                _ => None,
            },
            end,
            output,
            usage,
            receipt: self.worker.receipt().clone(),
            incident: self.worker.incident().map(|of| Box::new((*of).clone())),
            learned: self.lessons.map(|lessons| Box::new(lessons.learned())),
            fuel: self.limits.fuel,
            wall_time,
            spawn_time: self.spawn_time,
        }
    }
}

impl Ended {
    /// What there is to report. How its module and its snapshot were made is for
    /// the caller to add.
    pub(super) fn report(self) -> Report {
        let (verdict, exit_code, detail) = match self.unread_after {
            Some(limit) => (
                Verdict::TimeLimit,
                124,
                Some(format!(
                    "it ended, but its output was not read within its limit of {limit:?}"
                )),
            ),
            None => verdict(&self.end, self.output.limit_hit),
        };
        let exited = self.end.ok();
        Report {
            verdict,
            exit_code,
            detail,
            wall_ms: millis(self.wall_time),
            cpu_ms: self.usage.map_or(0.0, |usage| {
                (usage.user_us + usage.system_us) as f64 / 1000.0
            }),
            peak_memory_bytes: exited.as_ref().map_or(0, |exited| exited.peak_memory),
            peak_resident_bytes: self.usage.map_or(0, |usage| usage.peak_resident),
            memory_limit_hit: exited
                .as_ref()
                .is_some_and(|exited| exited.memory_limit_hit),
            fuel_used: exited
                .as_ref()
                .and_then(|exited| Some(self.fuel? - exited.fuel_left?.min(self.fuel?))),
            compile_ms: None,
            spawn_ms: millis(self.spawn_time),
            output_bytes: self.output.bytes,
            output_limit_hit: self.output.limit_hit,
            snapshot: None,
            snapshot_ms: None,
            snapshot_bytes: None,
            tier: "process",
            receipt: Some(self.receipt),
            incident: self.incident,
            learned: self.learned,
        }
    }
}

/// A time in milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
