//! Tenants: a module, its state, its limits, under one name.
//!
//! Updates go one after another through the tenant's [`lane`]; each makes a
//! version. Queries run beside them, on the newest version that is committed.
//! Both take a worker of the tenant's [`workers`], bring it to that version, and
//! give it back.

pub(crate) mod archive;
mod back_off;
mod call;
mod checkpoint;
mod disk;
mod error;
mod fold;
mod info;
mod lane;
mod lifecycle;
mod limits;
mod live;
pub(crate) mod log;
pub(crate) mod meta;
mod module;
mod query;
pub(crate) mod replay;
mod resident;
mod retry;
pub(crate) mod snapshot;
mod start;
mod state_hash;
mod upgrade;
mod workers;

use std::fmt;
use std::path::PathBuf;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
    Weak,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use back_off::BackOff;
pub use back_off::HeldBack;
use call::Incoming;
pub use call::{ANONYMOUS, CallOptions, Commit, Reply};
use checkpoint::Checkpoints;
pub use checkpoint::{Checkpoint, CheckpointError};
use disk::Disk;
pub use disk::DiskQuota;
pub use error::{CallError, TenantError};
pub use info::TenantInfo;
use lane::Lane;
use lazaret_image::{Image, OpenFiles, Reader, Version};
use lazaret_wall::Receipt;
use lazaret_wire::message::{Done, Entry, HostCall, Sizes};
pub use lifecycle::check_name;
pub(crate) use lifecycle::{charge_all, install, open, remove};
pub use limits::TenantLimits;
use live::Live;
pub use log::LogLine;
use module::Module;
pub(crate) use module::Modules;
pub use replay::{Replay, ReplayError, Replayed};
use resident::Census;
pub use resident::Resident;
pub use snapshot::{DamagedSnapshot, SnapshotInfo, check_tag};
use start::Beginning;
pub(crate) use start::worker_limits;
use state_hash::Hashing;
pub use state_hash::StateHash;
pub(crate) use upgrade::upgrade;
use workers::Workers;

use crate::budget::{Account, NodeMemory, Reservation, total};
use crate::functions::Throttle;
use crate::host::Inner;
use crate::pool::Priority;
use crate::scheduler::{CallQueue, QueuedCall};
use crate::tracker::Written;
use crate::worker::{Deadline, Duty};

/// What all handles of a tenant share.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    principal: Vec<u8>,
    lane: Mutex<Lane>,
    /// The newest committed version, for who isn't in the lane.
    reader: Reader,
    /// What of its image is open.
    open_files: OpenFiles,
    checkpoints: Checkpoints,
    /// What runs. Written while an upgrade commits, so that whoever reads it
    /// sees a version of this module.
    module: RwLock<Arc<Module>>,
    workers: Workers,
    census: Census,
    disk: Disk,
    /// What its state is charged, if the node has a memory budget.
    account: Option<Arc<Account>>,
    /// Lines of two calls don't mix.
    log: Mutex<PathBuf>,
    /// How often its code has called the embedder's functions.
    throttle: Throttle,
    priority: Mutex<Priority>,
    back_off: BackOff,
    queue: CallQueue,
    /// Locked before the lane, if both are.
    hashing: Mutex<Hashing>,
}

/// A tenant. Clones are the same tenant.
#[derive(Clone)]
pub struct Tenant {
    /// First, as the host holds the lock of the directory that it is in.
    shared: Arc<Shared>,
    host: Arc<Inner>,
}

pub(crate) type WeakTenant = Weak<Shared>;

/// A tenant, as long as somebody else holds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeakHandle {
    shared: WeakTenant,
    host: Weak<Inner>,
}

impl WeakHandle {
    pub(crate) fn upgrade(&self) -> Option<Tenant> {
        Some(Tenant {
            shared: self.shared.upgrade()?,
            host: self.host.upgrade()?,
        })
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").finish_non_exhaustive()
    }
}

impl Tenant {
    pub(crate) fn new(host: Arc<Inner>, shared: Arc<Shared>) -> Self {
        Self { host, shared }
    }

    pub(crate) fn weak(&self) -> WeakTenant {
        Arc::downgrade(&self.shared)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs an update method and commits what it wrote. When this returns, the
    /// commit is on disk (unless the host was built with relaxed durability).
    pub fn update(&self, method: &str, argument: &[u8]) -> Result<Reply, CallError> {
        self.update_with(method, argument, &CallOptions::default())
    }

    /// The same with options.
    pub fn update_with(
        &self,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
    ) -> Result<Reply, CallError> {
        self.update_before(method, argument, options, false)
    }

    /// The same; `more` says whether another update is to follow at once.
    pub(crate) fn update_before(
        &self,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
        more: bool,
    ) -> Result<Reply, CallError> {
        let shared = &self.shared;
        let mut lane = shared.lane();
        call::check(&shared.module(), Entry::Update, method, argument)?;
        let call = Incoming {
            method,
            argument,
            options,
            more,
        };
        lane.update(&self.host, shared, &call)
            .map_err(CallError::or_shortage)
    }

    /// Runs a query method on the last committed version; what it writes is
    /// put back.
    pub fn query(&self, method: &str, argument: &[u8]) -> Result<Reply, CallError> {
        self.query_with(method, argument, &CallOptions::default())
    }

    /// The same with options. As many queries run at once as
    /// [`TenantLimits::queries`] says; further ones wait, for as long as a call
    /// may take.
    pub fn query_with(
        &self,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
    ) -> Result<Reply, CallError> {
        self.query_before(method, argument, options, false)
    }

    /// The same; `more` says whether another query is to follow at once.
    pub(crate) fn query_before(
        &self,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
        more: bool,
    ) -> Result<Reply, CallError> {
        let call = Incoming {
            method,
            argument,
            options,
            more,
        };
        self.shared
            .query(&self.host, &call)
            .map_err(CallError::or_shortage)
    }

    /// Has a call made when the tenant's turn comes, on one of the host's few threads for
    /// that ([`Builder::scheduler`](crate::Builder::scheduler)), which tells `answered`
    /// what came of it. It should not take long: other calls wait for that thread.
    ///
    /// Updates of a tenant are made in the order in which they were submitted, queries
    /// beside them. Calls that wait keep the host open until they are answered.
    ///
    /// ```no_run
    /// # fn calls(tenant: &lazaret::Tenant) -> Result<(), lazaret::CallError> {
    /// use lazaret::QueuedCall;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// for _ in 0..100 {
    ///     let tell = tell.clone();
    ///     tenant.submit(QueuedCall::update("increment", []), move |reply| {
    ///         let _ = tell.send(reply);
    ///     })?;
    /// }
    /// drop(tell);
    /// assert_eq!(told.iter().filter(Result::is_ok).count(), 100);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError::QueueFull`] if as many of the tenant's calls wait as may, and if there is
    /// no thread for it and none can be had; then `answered` isn't told anything.
    pub fn submit(
        &self,
        call: QueuedCall,
        answered: impl FnOnce(Result<Reply, CallError>) + Send + 'static,
    ) -> Result<(), CallError> {
        self.host.scheduler.submit(self, call, answered)
    }

    pub(crate) fn queue(&self) -> &CallQueue {
        &self.shared.queue
    }

    /// How many of its queries run at once.
    pub(crate) fn most_queries(&self) -> usize {
        self.host.options.limits.queries
    }

    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle {
            shared: self.weak(),
            host: Arc::downgrade(&self.host),
        }
    }

    /// Starts a worker for the tenant if none lives, and returns what was
    /// verified about it.
    pub fn receipt(&self) -> Result<Receipt, CallError> {
        let shared = &self.shared;
        let mut lane = shared.lane();
        lane.check_removed(&shared.name)?;
        let time = self.host.options.limits.time;
        let live = lane
            .worker(&self.host, shared, time)
            .map_err(CallError::or_shortage)?;
        let receipt = live.worker().receipt().clone();
        shared.workers.give(live);
        Ok(receipt)
    }

    /// Ends the tenant's workers, those that run a call when it ends. The next
    /// call starts another, at the same version.
    pub fn sleep(&self) {
        self.shared.workers.retire();
    }

    /// Compacts its memory now: all of it goes into base files, in the order of
    /// addresses. It goes on beside the calls by itself when that pays.
    ///
    /// # Errors
    /// If it is just being compacted, a page is damaged, or the disk is full;
    /// then nothing has changed.
    pub fn compact(&self) -> Result<(), CallError> {
        let mut lane = self.shared.lane();
        lane.check_removed(&self.shared.name)?;
        lane.fold(&self.shared.disk)
            .map_err(|error| CallError::from(error).or_shortage())
    }

    /// Says how much its workers are wanted, among those that were idle for about
    /// as long, when some have to leave. It holds while the tenant is open.
    pub fn set_priority(&self, priority: Priority) {
        let mut held = self.shared.priority.lock();
        *held
            .as_deref_mut()
            .unwrap_or_else(|poisoned| poisoned.get_mut()) = priority;
    }

    /// Whether it has a worker that waits for a call.
    pub fn has_worker(&self) -> bool {
        !self.shared.workers.pids().is_empty()
    }

    /// What is known of it.
    pub fn info(&self) -> TenantInfo {
        let shared = &self.shared;
        let module = shared.module().clone();
        let sizes = shared.reader.sizes();
        let workers = shared.workers.pids();
        TenantInfo {
            name: shared.name.clone(),
            principal: hex(&shared.principal),
            module: hex(&module.hash),
            version: shared.reader.version().0,
            heap_bytes: sizes.heap,
            stable_bytes: sizes.stable,
            disk_bytes: lifecycle::disk_bytes(&shared.directory()),
            disk_quota_bytes: shared.disk.quota(),
            methods: call::methods(&module.info, "canister_update ", "update")
                .chain(call::methods(&module.info, "canister_query ", "query"))
                .collect(),
            worker: workers.last().copied(),
            workers,
            resident: shared.census.resident(),
            quarantined: self.host.quarantine.of(&shared.name),
        }
    }

    /// The contents of the module's `icp:public` or `icp:private` section
    /// `name`, such as `candid:service`.
    pub fn icp_section(&self, name: &str) -> Option<Vec<u8>> {
        self.shared
            .module()
            .info
            .icp_section(name)
            .map(<[u8]>::to_vec)
    }

    /// Its log: what it printed, kept whatever became of the call.
    pub fn logs(&self) -> Result<Vec<LogLine>, TenantError> {
        log::read(&self.shared.directory())
    }
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nanoseconds since 1970-01-01.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64)
}

/// The sizes at an image's newest version.
fn memory_sizes(image: &Image) -> Sizes {
    crate::memory::sizes(image.sizes())
}

impl Shared {
    pub(crate) fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane, unless an update is in it.
    fn idle_lane(&self) -> Option<MutexGuard<'_, Lane>> {
        match self.lane.try_lock() {
            Ok(lane) => Some(lane),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn module(&self) -> RwLockReadGuard<'_, Arc<Module>> {
        self.module.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn module_mut(&self) -> RwLockWriteGuard<'_, Arc<Module>> {
        self.module.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> PathBuf {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// An idle worker, at the newest version.
    fn idle_worker(&self) -> Option<Box<Live>> {
        // No upgrade commits meanwhile.
        let _module = self.module();
        let newest = self.reader.version();
        self.at_newest(self.workers.take(newest)?, newest)
    }

    /// This worker or another idle one, brought to the newest version. The
    /// module must be locked.
    fn at_newest(&self, mut live: Box<Live>, newest: Version) -> Option<Box<Live>> {
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
    fn start_worker(
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
    fn born(self: &Arc<Self>, host: &Inner, live: &Live) {
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
    fn reserve(&self, sizes: Sizes) -> Result<Reservation<'_>, NodeMemory> {
        match &self.account {
            Some(account) => account.reserve(total(sizes)),
            None => Ok(Reservation::default()),
        }
    }

    /// Runs the call that a worker was asked for. If it fails the worker is lost, and what the
    /// call did with it.
    fn run(
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
    fn check_quarantine(&self, host: &Inner) -> Result<(), CallError> {
        match host.quarantine.of(&self.name) {
            None => Ok(()),
            Some(why) => Err(CallError::Quarantined(Box::new(why))),
        }
    }

    /// Puts back what a query or a trapped update wrote. False if a new worker
    /// is cheaper than that, or needed as this one has ended: the call is over.
    fn put_back(&self, live: &mut Live, done: &Done) -> Result<bool, CallError> {
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
