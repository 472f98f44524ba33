//! Tenants: a module, its state, its limits, under one name.

mod error;
mod lifecycle;
mod live;
mod log;
mod meta;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use error::{CallError, TenantError};
use lazaret_image::Image;
use lazaret_wall::Receipt;
use lazaret_wire::layout::{MAX_ARGUMENT, MAX_METHOD};
use lazaret_wire::message::{Call, Done, Entry, Outcome, Sizes};
pub use lifecycle::check_name;
pub(crate) use lifecycle::{install, open, remove, upgrade};
use live::{Live, Module, changed};
pub use log::LogLine;
use meta::Meta;

use crate::host::Inner;

/// Limits of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantLimits {
    /// Bytes of heap: beyond it `memory.grow` is -1.
    pub heap: u64,
    /// Bytes of stable memory: beyond it `stable_grow` is -1.
    pub stable: u64,
    /// Fuel of an update, install or upgrade.
    pub update_fuel: u64,
    /// Fuel of a query.
    pub query_fuel: u64,
    /// Wall-clock time of a call: a safety net under the fuel. A call that
    /// exceeds it is stopped and changes nothing.
    pub time: Duration,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            heap: 4 << 30,
            stable: 8 << 30,
            update_fuel: 40_000_000_000,
            query_fuel: 5_000_000_000,
            time: Duration::from_secs(300),
        }
    }
}

/// Who calls, and with what limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOptions {
    /// The caller's principal; the anonymous one if not set.
    pub caller: Vec<u8>,
    /// Whether the caller counts as a controller.
    pub controller: bool,
    /// Fuel, if not the tenant's limit.
    pub fuel: Option<u64>,
    /// Wall-clock time, if not the tenant's limit.
    pub time: Option<Duration>,
    /// A certificate that a query may read.
    pub certificate: Option<Vec<u8>>,
}

/// The anonymous principal (Internet Computer interface specification,
/// "Principals").
pub const ANONYMOUS: &[u8] = &[4];

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            caller: ANONYMOUS.to_vec(),
            controller: true,
            fuel: None,
            time: None,
            certificate: None,
        }
    }
}

/// A reply, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The bytes: Candid, as a rule.
    pub bytes: Vec<u8>,
    /// Fuel used.
    pub fuel_used: u64,
    /// What was committed; nothing for a query or an update that changed
    /// nothing.
    pub committed: Option<Commit>,
}

/// A committed update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The version of the tenant's memory that it made.
    pub version: u64,
    /// Pages of 4 KiB that were written.
    pub pages: u64,
    /// Time from the request to the worker's answer.
    pub run_time: Duration,
    /// Time to find them.
    pub scan_time: Duration,
    /// Time to copy them out of the worker and write them to the page cache.
    pub write_time: Duration,
    /// Time until they were on disk.
    pub sync_time: Duration,
}

/// What is known of a tenant without calling it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TenantInfo {
    /// Its name.
    pub name: String,
    /// Its principal, in hex.
    pub principal: String,
    /// Hash of its module (blake3), in hex.
    pub module: String,
    /// Version of its memory.
    pub version: u64,
    /// Bytes of heap.
    pub heap_bytes: u64,
    /// Bytes of stable memory.
    pub stable_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Methods that can be called, with `update` or `query`.
    pub methods: Vec<String>,
    /// Number of its worker's process, if one lives.
    pub worker: Option<i32>,
}

pub(crate) struct State {
    name: String,
    directory: PathBuf,
    image: Image,
    meta: Meta,
    module: Module,
    live: Option<Live>,
    principal: Vec<u8>,
    removed: bool,
}

/// A tenant. Clones are the same tenant.
#[derive(Clone)]
pub struct Tenant {
    host: Arc<Inner>,
    state: Arc<Mutex<State>>,
}

pub(crate) type WeakTenant = Weak<Mutex<State>>;

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").finish_non_exhaustive()
    }
}

impl Tenant {
    pub(crate) fn new(host: Arc<Inner>, state: State) -> Self {
        Self {
            host,
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(crate) fn from_shared(host: Arc<Inner>, state: Arc<Mutex<State>>) -> Self {
        Self { host, state }
    }

    pub(crate) fn weak(&self) -> WeakTenant {
        Arc::downgrade(&self.state)
    }

    pub(crate) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.lock_state()
            .call(&self.host, Entry::Update, method, argument, options)
    }

    /// Runs a query method on the last committed version; what it writes is
    /// put back.
    pub fn query(&self, method: &str, argument: &[u8]) -> Result<Reply, CallError> {
        self.query_with(method, argument, &CallOptions::default())
    }

    /// The same with options.
    pub fn query_with(
        &self,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
    ) -> Result<Reply, CallError> {
        self.lock_state()
            .call(&self.host, Entry::Query, method, argument, options)
    }

    /// Starts the tenant's worker if none lives, and returns what was verified
    /// about it.
    pub fn receipt(&self) -> Result<Receipt, CallError> {
        let mut state = self.lock_state();
        state.ensure_live(&self.host)?;
        match &state.live {
            Some(live) => Ok(live.worker().receipt().clone()),
            None => Err(CallError::Removed(state.name.clone())),
        }
    }

    /// Ends the tenant's worker. The next call starts another, at the same
    /// version.
    pub fn sleep(&self) {
        self.lock_state().live = None;
    }

    /// What is known of it.
    pub fn info(&self) -> TenantInfo {
        let state = self.lock_state();
        let sizes = state.image.sizes();
        TenantInfo {
            name: state.name.clone(),
            principal: hex(&state.principal),
            module: hex(&state.module.hash),
            version: state.image.version().0,
            heap_bytes: sizes.heap,
            stable_bytes: sizes.stable,
            disk_bytes: lifecycle::disk_bytes(&state.directory),
            methods: state
                .methods("canister_update ", "update")
                .chain(state.methods("canister_query ", "query"))
                .collect(),
            worker: state
                .live
                .as_ref()
                .filter(|live| live.is_alive())
                .map(|live| live.worker().pid()),
        }
    }

    /// The contents of the module's `icp:public` or `icp:private` section
    /// `name`, such as `candid:service`.
    pub fn icp_section(&self, name: &str) -> Option<Vec<u8>> {
        self.lock_state()
            .module
            .info
            .icp_section(name)
            .map(<[u8]>::to_vec)
    }

    /// Its log: what it printed, kept whatever became of the call.
    pub fn logs(&self) -> Result<Vec<LogLine>, TenantError> {
        log::read(&self.lock_state().directory)
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

impl State {
    fn methods<'a>(
        &'a self,
        prefix: &'static str,
        kind: &'static str,
    ) -> impl Iterator<Item = String> + 'a {
        self.module
            .info
            .exports
            .iter()
            .filter_map(move |export| Some(format!("{kind} {}", export.strip_prefix(prefix)?)))
    }

    fn ensure_live(&mut self, host: &Inner) -> Result<(), CallError> {
        if self.removed {
            return Err(CallError::Removed(self.name.clone()));
        }
        if self.live.as_ref().is_some_and(Live::is_alive) {
            return Ok(());
        }
        self.live = None;
        if self
            .image
            .should_fold(lazaret_wire::layout::MAX_MAPPED_RUNS)
        {
            self.image.fold()?;
        }
        let artefact = self.module.artefact(host)?;
        self.live = Some(Live::start(
            host,
            &self.image,
            &artefact,
            &host.options.limits,
            None,
        )?);
        Ok(())
    }

    /// The call message for an entry point at the present version.
    fn request(
        &self,
        entry: Entry,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
        fuel: u64,
    ) -> Call {
        let sizes = self.image.sizes();
        Call {
            entry,
            method: method.to_owned(),
            argument: argument.to_vec(),
            caller: options.caller.clone(),
            canister: self.principal.clone(),
            controller: options.controller,
            time: now(),
            version: self.meta.version,
            cycles: self.meta.cycles,
            fuel: options.fuel.unwrap_or(fuel),
            certificate: options.certificate.clone(),
            sizes: Sizes {
                heap: sizes.heap,
                stable: sizes.stable,
            },
            globals: self.meta.globals.clone(),
            close_heap: Vec::new(),
            close_stable: Vec::new(),
        }
    }

    fn call(
        &mut self,
        host: &Inner,
        entry: Entry,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
    ) -> Result<Reply, CallError> {
        let query = entry == Entry::Query;
        let known = |prefix: &str| {
            self.module
                .info
                .exports
                .iter()
                .any(|export| export.strip_prefix(prefix) == Some(method))
        };
        let other = if query {
            "canister_composite_query "
        } else {
            "canister_update "
        };
        let exists = known("canister_query ") || known(other);
        if !exists || method.len() > MAX_METHOD {
            let (kind, prefix) = if query {
                ("query", "canister_query ")
            } else {
                ("update", "canister_update ")
            };
            let mut names: Vec<String> = self
                .methods(prefix, "")
                .map(|name| name.trim().to_owned())
                .collect();
            // What a compiler adds for itself is nobody's to call.
            names.retain(|name| !name.starts_with("__") && !name.starts_with('@'));
            return Err(CallError::NoMethod {
                kind,
                method: method.to_owned(),
                known: names,
            });
        }
        if argument.len() > MAX_ARGUMENT {
            return Err(CallError::ArgumentTooLarge {
                size: argument.len(),
                limit: MAX_ARGUMENT,
            });
        }
        self.ensure_live(host)?;
        let limits = &host.options.limits;
        let request = self.request(
            entry,
            method,
            argument,
            options,
            if query {
                limits.query_fuel
            } else {
                limits.update_fuel
            },
        );
        let fuel = request.fuel;
        let begin = Instant::now();
        let done = self.run(host, request, options.time.unwrap_or(limits.time))?;
        let run_time = begin.elapsed();
        let fuel_used = fuel - done.fuel_left.min(fuel);
        if query {
            self.restore(&done)?;
            return outcome(done.outcome).map(|bytes| Reply {
                bytes,
                fuel_used,
                committed: None,
            });
        }
        let committed = self
            .settle(host, &done)?
            .map(|commit| Commit { run_time, ..commit });
        outcome(done.outcome).map(|bytes| Reply {
            bytes,
            fuel_used,
            committed,
        })
    }

    /// Runs a request in the live worker. If the worker is lost, so is what
    /// the call did, and the next call starts another.
    fn run(&mut self, host: &Inner, request: Call, time: Duration) -> Result<Done, CallError> {
        let Some(live) = &mut self.live else {
            return Err(CallError::Removed(self.name.clone()));
        };
        let result = live.run(host, request, &host.options.limits, time);
        let (lines, lost) = live.take_log();
        if !lines.is_empty() || lost > 0 {
            // Logging must not fail a call that went well.
            if let Err(error) = log::append(&self.directory, self.image.version().0, lines, lost) {
                tracing::warn!(tenant = self.name, %error, "log lines were lost");
            }
        }
        if result.is_err() {
            self.live = None;
        }
        result
    }

    /// Commits what an update did, or puts it back.
    fn settle(&mut self, host: &Inner, done: &Done) -> Result<Option<Commit>, CallError> {
        match done.outcome {
            Outcome::Reply(_) | Outcome::Reject(_) | Outcome::NoReply => {
                let mut after = self.meta.clone();
                after.globals.clone_from(&done.globals);
                if let Some(data) = &done.effects.certified_data {
                    after.certified_data.clone_from(data);
                }
                if let Some(timer) = done.effects.global_timer {
                    after.global_timer = timer;
                }
                after.cycles = after.cycles.saturating_sub(done.effects.cycles_burned);
                after.version = after.version.saturating_add(1);
                let result = self.commit(host, after, done.sizes);
                if result.is_err() {
                    // The worker holds what is not in the image.
                    self.live = None;
                }
                result
            }
            Outcome::Trap(_) | Outcome::NoMethod | Outcome::Aborted(_) => {
                self.restore(done).map(|()| None)
            }
        }
    }

    fn commit(
        &mut self,
        host: &Inner,
        after: Meta,
        sizes: Sizes,
    ) -> Result<Option<Commit>, CallError> {
        let Some(live) = &mut self.live else {
            return Err(CallError::Removed(self.name.clone()));
        };
        let begin = Instant::now();
        let written = live.written(sizes)?;
        let scan_time = begin.elapsed();
        if !changed(&written, &self.meta, &after, sizes, &self.image) {
            return Ok(None);
        }
        let bytes = encode(&after)?;
        let committed = live.commit(
            &mut self.image,
            &written,
            sizes,
            &bytes,
            host.options.durability,
        )?;
        self.meta = after;
        Ok(Some(Commit {
            version: committed.version.0,
            pages: written.len() as u64,
            run_time: Duration::ZERO,
            scan_time,
            write_time: committed.write_time,
            sync_time: committed.sync_time,
        }))
    }

    /// Puts back what a query or a trapped update wrote.
    fn restore(&mut self, done: &Done) -> Result<(), CallError> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let restored = live
            .written(done.sizes)
            .and_then(|written| match written.is_empty() {
                true => Ok(true),
                false => live.put_back(&self.image, &written),
            });
        match restored {
            Ok(true) => Ok(()),
            // Too much to put back: a new worker.
            Ok(false) => {
                self.live = None;
                Ok(())
            }
            Err(error) => {
                self.live = None;
                Err(error)
            }
        }
    }
}

fn encode(meta: &Meta) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    lazaret_wire::codec::Message::to_bytes(meta, &mut bytes)
        .map_err(|error| CallError::Worker(crate::worker::WorkerError::TooLarge(error)))?;
    Ok(bytes)
}

fn outcome(outcome: Outcome) -> Result<Vec<u8>, CallError> {
    match outcome {
        Outcome::Reply(bytes) => Ok(bytes),
        Outcome::Reject(message) => Err(CallError::Reject(message)),
        Outcome::Trap(trap) => Err(CallError::Trap(trap)),
        Outcome::NoReply => Err(CallError::NoReply),
        Outcome::NoMethod => Err(CallError::NoMethod {
            kind: "such",
            method: String::new(),
            known: Vec::new(),
        }),
        Outcome::Aborted(reason) => Err(CallError::Aborted(reason)),
    }
}
