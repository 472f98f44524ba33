//! What all handles of a tenant share, and what they do with its workers.

use std::path::PathBuf;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::time::Duration;

use lazaret_image::{OpenFiles, Reader, Version};
use lazaret_wire::message::{Done, Entry, HostCall, Sizes};

use super::back_off::BackOff;
use super::checkpoint::Checkpoints;
use super::disk::Disk;
use super::error::CallError;
use super::lane::Lane;
use super::live::Live;
use super::log;
use super::module::Module;
use super::resident::Census;
use super::start::Beginning;
use super::state_hash::Hashing;
use super::workers::Workers;
use crate::budget::{Account, NodeMemory, Reservation, total};
use crate::functions::Throttle;
use crate::host::Inner;
use crate::pool::Priority;
use crate::scheduler::CallQueue;
use crate::tracker::Written;
use crate::worker::{Deadline, Duty};

/// What all handles of a tenant share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) name: String,
    pub(super) principal: Vec<u8>,
    pub(super) lane: Mutex<Lane>,
    /// The newest committed version, for who isn't in the lane.
    pub(super) reader: Reader,
    /// What of its image is open.
    pub(super) open_files: OpenFiles,
    pub(super) checkpoints: Checkpoints,
    /// What runs. Written while an upgrade commits, so that whoever reads it
    /// sees a version of this module.
    pub(super) module: RwLock<Arc<Module>>,
    pub(super) workers: Workers,
    pub(super) census: Census,
    pub(super) disk: Disk,
    /// What its state is charged, if the node has a memory budget.
    pub(super) account: Option<Arc<Account>>,
    /// Lines of two calls don't mix.
    pub(super) log: Mutex<PathBuf>,
    /// How often its code has called the embedder's functions.
    pub(super) throttle: Throttle,
    pub(super) priority: Mutex<Priority>,
    pub(super) back_off: BackOff,
    pub(super) queue: CallQueue,
    /// Locked before the lane, if both are.
    pub(super) hashing: Mutex<Hashing>,
}

impl Shared {
    pub(crate) fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane, unless an update is in it.
    pub(super) fn idle_lane(&self) -> Option<MutexGuard<'_, Lane>> {
        match self.lane.try_lock() {
            Ok(lane) => Some(lane),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn module(&self) -> RwLockReadGuard<'_, Arc<Module>> {
        self.module.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn module_mut(&self) -> RwLockWriteGuard<'_, Arc<Module>> {
        self.module.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// An idle worker, at the newest version.
    pub(super) fn idle_worker(&self) -> Option<Box<Live>> {
        // No upgrade commits meanwhile.
        let _module = self.module();
        let newest = self.reader.version();
        self.at_newest(self.workers.take(newest)?, newest)
    }

    /// This worker or another idle one, brought to the newest version. The
    /// module must be locked.
    pub(super) fn at_newest(&self, mut live: Box<Live>, newest: Version) -> Option<Box<Live>> {
        loop {
            if live.version() == newest {
                return Some(live);
            }
            match live.bring_to_newest(&self.reader, Written::new()) {
                Ok(true) => return Some(live),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(tenant = self.name, %error, "a worker is replaced");
                }
            }
            live = self.workers.take(newest)?;
        }
    }

    /// A new worker, at the newest version. If the host may have no more, waits for
    /// `time` at most.
    pub(super) fn start_worker(
        self: &Arc<Self>,
        host: &Inner,
        time: Duration,
    ) -> Result<Box<Live>, CallError> {
        if host.options.hold_back {
            self.back_off.check()?;
        }
        let (module, view, generation) = {
            let module = self.module();
            (
                module.clone(),
                self.reader.view(),
                self.workers.generation(),
            )
        };
        let beginning = Beginning {
            host,
            name: &self.name,
            module: &module,
            duty: Duty::Serve,
            time,
        };
        let mut live = Live::start(&beginning, &view)?;
        host.pool.opened_files();
        live.generation = generation;
        self.born(host, &live);
        Ok(Box::new(live))
    }

    /// A worker of its was started: the pool knows of it from now on.
    pub(super) fn born(self: &Arc<Self>, host: &Inner, live: &Live) {
        self.census.enter(live.worker());
        if self.census.list() {
            host.pool.enter(self.clone());
        }
    }

    /// Tells of each idle worker its number, since when it is idle, and how long its
    /// start took.
    pub(crate) fn idle_workers(&self, tell: impl FnMut(i32, Duration, Duration)) {
        self.workers.idle(tell);
    }

    /// Takes this worker away if it has been idle since then.
    pub(crate) fn evict(&self, pid: i32, idle_since: Duration) -> Option<Box<Live>> {
        self.workers.evict(pid, idle_since)
    }

    /// Whether it has no worker any more: then the pool forgets it, until it has one.
    pub(crate) fn has_left(&self) -> bool {
        self.census.unlist()
    }

    /// How many workers it has, idle or busy.
    pub(crate) fn living_workers(&self) -> usize {
        self.census.count()
    }

    /// Closes the files of its image, until they are needed again.
    pub(crate) fn close_files(&self) {
        self.open_files.close();
    }

    /// Who of those that were idle for as long stays longer.
    pub(crate) fn priority(&self) -> Priority {
        *self.priority.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave for a call that may make the next version, beginning with memories
    /// of these sizes.
    pub(super) fn reserve(&self, sizes: Sizes) -> Result<Reservation<'_>, NodeMemory> {
        match &self.account {
            Some(account) => account.reserve(total(sizes)),
            None => Ok(Reservation::default()),
        }
    }

    /// Runs the call that a worker was asked for. If it fails the worker is lost, and what the
    /// call did with it.
    pub(super) fn run(
        &self,
        host: &Inner,
        live: &mut Live,
        growth: &mut Reservation<'_>,
        time: Duration,
    ) -> Result<Done, CallError> {
        self.check_quarantine(host)?;
        // What changes nothing may be refused by the clock.
        let waits = live.request.entry != Entry::Query;
        let mut answer = |call: &HostCall, deadline: &mut Deadline| {
            host.functions.answer(&self.throttle, call, waits, deadline)
        };
        let result = live.run(&mut answer, &host.options.limits, growth, time);
        match &result {
            Ok(_) => self.back_off.answered(),
            Err(CallError::WorkerEnded(_)) => self.back_off.crashed(),
            // Its time was over, or the host's.
            Err(_) => {}
        }
        let (lines, lost) = live.take_log();
        if !lines.is_empty() || lost > 0 {
            let directory = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            // Logging must not fail a call that went well.
            if let Err(error) = log::append(&directory, live.version.0, lines, lost) {
                tracing::warn!(tenant = self.name, %error, "log lines were lost");
            }
        }
        result
    }

    /// An error if none of its code may run.
    pub(super) fn check_quarantine(&self, host: &Inner) -> Result<(), CallError> {
        match host.quarantine.of(&self.name) {
            None => Ok(()),
            Some(why) => Err(CallError::Quarantined(Box::new(why))),
        }
    }

    /// Puts back what a query or a trapped update wrote. False if a new worker
    /// is cheaper than that, or needed as this one has ended: the call is over.
    pub(super) fn put_back(&self, live: &mut Live, done: &Done) -> Result<bool, CallError> {
        let written = live.written(done.sizes);
        let put_back = written.and_then(|written| {
            if written.is_empty() {
                return Ok(true);
            }
            let _module = self.module();
            live.bring_to_newest(&self.reader, written)
        });
        match put_back {
            Err(CallError::WorkerEnded(_)) => Ok(false),
            other => other,
        }
    }
}
