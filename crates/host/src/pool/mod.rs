//! The pool of workers: blank ones that wait for a tenant, and idle ones that
//! wait for a call.
//!
//! How many blanks there are follows what was wanted lately ([`demand`]); which
//! idle workers leave, and when, is decided by [`eviction`]. One thread, the
//! keeper, makes blanks and has workers leave; it starts with the first tenant's
//! worker and sleeps while there is nothing to do. No call passes through it.

mod counts;
mod demand;
mod eviction;
mod files;
mod keeper;
mod options;
mod residents;
mod seat;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lazaret_image::open_descriptors;
use lazaret_wall::launcher::{Launcher, lowers_limits};
use lazaret_wire::message::WorkerKind;
use rustix::event::EventfdFlags;

use crate::builder::Options;
use crate::launchers::Launchers;
use crate::registry::Registry;
use crate::supervisor::Supervisor;
use crate::tenant::{self, worker_limits};
use crate::worker::{Birth, Duty, Newborn, WorkerError};
use counts::Counts;
use demand::Demand;
use residents::Residents;
use seat::Seats;

pub use counts::PoolState;
pub use eviction::Priority;
pub use options::PoolOptions;
pub(crate) use residents::{Reason, coarse_now};
pub use seat::AllBusy;
pub(crate) use seat::Seat;

/// How often a worker is started that is killed before it is set up.
const ATTEMPTS: u32 = 4;

/// The pool of a host.
#[derive(Debug)]
pub(crate) struct Pool {
    common: Arc<Common>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the pool and its keeper have in common.
#[derive(Debug)]
struct Common {
    options: Arc<Options>,
    launchers: Arc<Launchers>,
    supervisor: Arc<Supervisor>,
    /// How many blank workers there are at most.
    most: usize,
    begin: Instant,
    state: Mutex<State>,
    seats: Arc<Seats>,
    residents: Residents,
    registry: Arc<Registry>,
    /// How many descriptors of images may be open.
    most_files: usize,
    counts: Counts,
    /// One at a time has workers leave for a place of theirs.
    leaving: Mutex<()>,
    /// Wakes the keeper.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    demand: Demand,
    /// The one that has waited longest first.
    blanks: VecDeque<Newborn>,
    /// When to look whose worker has been idle for long enough, if anybody has one.
    sweep: Option<Duration>,
    /// Files of images are to be closed.
    close_files: bool,
    /// There is a keeper.
    keeper: bool,
    /// When the keeper is going to look by itself, if it is asleep.
    alarm: Option<Duration>,
    ending: bool,
}

impl Pool {
    pub(crate) fn new(
        options: Arc<Options>,
        launchers: Arc<Launchers>,
        supervisor: Arc<Supervisor>,
        registry: Arc<Registry>,
    ) -> std::io::Result<Self> {
        // How many descriptors a worker needs is known when it is assigned.
        let most = match lowers_limits(options.off) {
            true => options.pool.blanks,
            false => 0,
        };
        Ok(Self {
            common: Arc::new(Common {
                options,
                launchers,
                supervisor,
                most,
                begin: Instant::now(),
                state: Mutex::default(),
                seats: Arc::default(),
                residents: Residents::default(),
                registry,
                most_files: files::most(),
                counts: Counts::default(),
                leaving: Mutex::default(),
                wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            }),
            keeper: Mutex::default(),
        })
    }

    /// Has a tenant's worker started, of a blank one if there is any. One that is
    /// killed before it is set up had no time to do anything, so another is started.
    pub(crate) fn start<T>(
        &self,
        duty: Duty,
        start: impl Fn(Option<Newborn>, &Arc<Launcher>) -> Result<T, WorkerError>,
    ) -> Result<T, WorkerError> {
        let mut blank = match duty {
            Duty::Serve => self.take(),
            Duty::Replay => None,
        };
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let launcher = match &blank {
                Some(blank) => blank.launcher().clone(),
                None => self.common.launchers.next()?,
            };
            let was_blank = blank.is_some();
            match start(blank.take(), &launcher) {
                Err(error) if error.was_killed() && left > 0 => {
                    tracing::debug!(%error, "a worker is started again");
                }
                Ok(started) => {
                    let counts = &self.common.counts;
                    counts.started.fetch_add(1, Relaxed);
                    counts.from_blanks.fetch_add(u64::from(was_blank), Relaxed);
                    return Ok(started);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A blank worker for a tenant, if one waits. That it is wanted counts, be
    /// there one or not.
    fn take(&self) -> Option<Newborn> {
        let common = &self.common;
        if common.most == 0 {
            return None;
        }
        let mut state = common.lock();
        let now = common.now();
        state.demand.note(now);
        let mut found = None;
        while found.is_none()
            && let Some(blank) = state.blanks.pop_front()
        {
            found = blank.is_alive().then_some(blank);
        }
        let calls = keeper::calls(&mut state, now, common.most);
        drop(state);
        if calls {
            self.call_keeper();
        }
        found
    }

    /// What it has done so far, and what it has.
    pub(crate) fn state(&self) -> PoolState {
        let common = &self.common;
        let blanks = common.lock().blanks.len();
        PoolState {
            blanks,
            workers: common.seats.taken(),
            ..common.counts.read()
        }
    }

    /// A place for a tenant's worker. If there is none, an idle worker leaves; if
    /// none is idle, waits for `time` at most.
    pub(crate) fn seat(&self, time: Duration) -> Result<Seat, AllBusy> {
        let common = &self.common;
        let most = common.options.pool.workers.map_or(usize::MAX, usize::from);
        common.seats.take(most, time, || {
            let _one = common
                .leaving
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // Somebody else may have been here while this one waited.
            match eviction::surplus(common.seats.taken(), most) {
                0 => true,
                needed => common.sweep(Reason::Count, |_| needed).left > 0,
            }
        })
    }

    /// A tenant has a worker, and had none: it stays open as long as it has.
    pub(crate) fn enter(&self, tenant: Arc<tenant::Shared>) {
        let common = &self.common;
        common.residents.enter(tenant);
        let mut state = common.lock();
        let now = common.now();
        if let Some(idle) = common.options.pool.idle {
            state.sweep.get_or_insert(now + idle);
        }
        // Though there may be nothing to do, it is to hear when memory is short.
        let calls = keeper::calls(&mut state, now, common.most) || !state.keeper;
        drop(state);
        if calls {
            self.call_keeper();
        }
    }

    /// Files of a tenant's image may have been opened: if there are too many by now,
    /// some of others are closed.
    pub(crate) fn opened_files(&self) {
        let common = &self.common;
        if open_descriptors() <= common.most_files {
            return;
        }
        let mut state = common.lock();
        let calls = !std::mem::replace(&mut state.close_files, true);
        drop(state);
        if calls {
            self.call_keeper();
        }
    }

    /// A tenant is removed: the pool doesn't keep it open.
    pub(crate) fn forget(&self, tenant: &tenant::Shared) {
        self.common.residents.forget(tenant);
    }

    fn call_keeper(&self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.is_some() {
            return self.common.wake();
        }
        let common = self.common.clone();
        common.lock().keeper = true;
        let started = std::thread::Builder::new()
            .name("lazaret-pool".into())
            .spawn(move || keeper::run(&common));
        match started {
            Ok(thread) => *keeper = Some(thread),
            // Workers are then started when they are needed, and stay.
            Err(error) => {
                tracing::warn!(%error, "no thread for the pool of workers");
                // Whoever comes next may have more luck.
                let mut state = self.common.lock();
                (state.alarm, state.close_files, state.keeper) = (None, false, false);
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.common.lock().ending = true;
        self.common.wake();
        let keeper = self
            .keeper
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = keeper.take() {
            let _ = thread.join();
        }
        self.common.residents.clear();
    }
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Has workers leave: those that have been idle for too long, and of the others
    /// as many as are needed.
    fn sweep(&self, reason: Reason, needed: impl FnOnce(usize) -> usize) -> residents::Swept {
        self.residents
            .sweep(self.options.pool.idle, reason, needed, &self.counts)
    }

    /// A new blank worker.
    fn make(&self) -> Result<Newborn, WorkerError> {
        let launcher = self.launchers.next()?;
        Newborn::blank(Birth {
            launcher: &launcher,
            limits: worker_limits(&self.options.limits, 0),
            kind: WorkerKind::Tenant,
            accepted: &self.options.accept_missing,
            measures_off: self.options.measures.off_for_tenants(),
            supervisor: &self.supervisor,
        })
    }
}
