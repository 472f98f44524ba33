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
mod shared;
pub(crate) mod snapshot;
mod start;
mod state_hash;
mod upgrade;
mod workers;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

pub use back_off::HeldBack;
pub use call::{ANONYMOUS, CallOptions, Commit, Reply};
pub(crate) use call::{Incoming, Kind};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use disk::DiskQuota;
pub use error::{CallError, TenantError};
pub use info::TenantInfo;
use lazaret_image::Image;
use lazaret_wall::Receipt;
use lazaret_wire::message::{Entry, Sizes};
pub use lifecycle::check_name;
pub(crate) use lifecycle::{charge_all, install, open, remove};
pub use limits::TenantLimits;
pub use log::LogLine;
pub(crate) use module::Modules;
pub use replay::{Replay, ReplayError, Replayed};
pub use resident::Resident;
pub(crate) use shared::Shared;
pub use snapshot::{DamagedSnapshot, SnapshotInfo, check_tag};
pub(crate) use start::worker_limits;
pub use state_hash::StateHash;
pub(crate) use upgrade::upgrade;

use crate::host::Inner;
use crate::pool::Priority;
use crate::scheduler::{CallQueue, QueuedCall};

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
        self.call(Kind::Update, &Incoming::new(method, argument, options))
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
        self.call(Kind::Query, &Incoming::new(method, argument, options))
    }

    /// Makes a call of this kind.
    pub(crate) fn call(&self, kind: Kind, call: &Incoming<'_>) -> Result<Reply, CallError> {
        let (host, shared) = (&self.host, &self.shared);
        let result = match kind {
            Kind::Update => {
                let mut lane = shared.lane();
                call::check(&shared.module(), Entry::Update, call.method, call.argument)?;
                lane.update(host, shared, call)
            }
            Kind::Query => shared.query(host, call),
        };
        result.map_err(CallError::or_shortage)
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
