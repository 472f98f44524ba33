//! The host: the trusted side, and the embeddable API.

use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lazaret_image::{Durability, Exported};
use lazaret_wall::launcher::{Launcher, LauncherError, LauncherOptions, depth};
use lazaret_wall::{Layer, Probe, probe};
use lazaret_wire::message::call::MAX_HOST_BYTES;
use lazaret_wire::message::{CompileSettings, WorkerKind};
use thiserror::Error;

use crate::artefact::{Artefact, Cache, CompileError, CompileLimits, Compiling, Observer};
use crate::budget::{Budget, MemoryBudget};
use crate::data_dir::{DataDir, DataDirError};
use crate::functions::{Functions, HostFunction, Offered};
use crate::page_copy::PageCopy;
use crate::program::{Program, Snapshots};
use crate::registry::Registry;
use crate::tenant::archive::Progress;
use crate::tenant::{self, DamagedSnapshot, SnapshotInfo, Tenant, TenantError, TenantLimits};
use crate::tracker::TrackerKind;

/// Why a host could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `lazaret::init()` was not called.
    #[error(
        "lazaret::init() was not called: make it the first line of main. Launcher and workers are this same executable, and it is where they begin"
    )]
    NotInitialised,
    /// This process was started by Lazaret but isn't a worker.
    #[error(
        "this process was started by a Lazaret host as its launcher or worker, but runs as a host itself (LAZARET_DEPTH={0}): its executable does not call lazaret::init() first in main"
    )]
    Nested(u32),
    /// The kernel's tracker was asked for, and this kernel has none.
    #[error(
        "the kernel's tracker doesn't work here: {missing}; it needs Linux 6.7, and userfaultfd in a container's seccomp profile. Cards and the signal tracker need neither"
    )]
    KernelTracker {
        /// What is missing.
        missing: String,
    },
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Two host functions have the same name, or one has a bad name or bound.
    #[error("host function `{name}`: {reason}")]
    Function {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Bytes a second that compaction writes if nobody says otherwise.
const DEFAULT_COMPACTION: NonZeroU64 = NonZeroU64::new(256 << 20).unwrap();

/// Options of a host.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub accept_missing: Vec<Layer>,
    pub worker_exe: Option<PathBuf>,
    pub durability: Durability,
    pub limits: TenantLimits,
    pub compile: CompileLimits,
    pub cycles: u128,
    pub tracker: TrackerKind,
    pub page_copy: PageCopy,
    pub compaction: Option<NonZeroU64>,
}

/// How to make a [`Host`].
#[derive(Debug)]
pub struct Builder {
    options: Options,
    data: Option<PathBuf>,
    cache: Option<PathBuf>,
    observer: Option<Observer>,
    functions: Vec<Offered>,
    memory_budget: Option<u64>,
}

impl Builder {
    fn new() -> Self {
        Self {
            options: Options {
                accept_missing: Vec::new(),
                worker_exe: None,
                durability: Durability::Durable,
                limits: TenantLimits::default(),
                compile: CompileLimits::default(),
                // As many as a canister is usually given to begin with.
                cycles: 3_000_000_000_000,
                tracker: TrackerKind::default(),
                page_copy: PageCopy::default(),
                compaction: Some(DEFAULT_COMPACTION),
            },
            data: None,
            cache: None,
            observer: None,
            functions: Vec::new(),
            memory_budget: None,
        }
    }

    /// Where tenants are kept. Without it, only programs can be run.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data = Some(path.into());
        self
    }

    /// Where compiled modules and snapshots of programs are kept; `cache` in the data directory if not
    /// set. Without either they are kept in memory.
    #[must_use]
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache = Some(path.into());
        self
    }

    /// Accepts that a layer of the wall is missing. Without it, a missing
    /// layer is an error.
    #[must_use]
    pub fn accept_missing(mut self, layer: Layer) -> Self {
        self.options.accept_missing.push(layer);
        self
    }

    /// The executable for launcher and workers, if it isn't this one. Its
    /// `main` must begin with `lazaret::init()`.
    #[must_use]
    pub fn worker_exe(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.worker_exe = Some(path.into());
        self
    }

    /// Acknowledges updates when they are in the page cache, not on disk: they
    /// survive the end of every process, but not of the machine.
    /// [`Tenant::checkpoint`] puts a tenant on disk, and so does letting go of
    /// it: a host that is dropped leaves every tenant on disk.
    #[must_use]
    pub fn relaxed_durability(mut self) -> Self {
        self.options.durability = Durability::Relaxed;
        self
    }

    /// Bytes a second that the compaction of a tenant's memory may write, or
    /// no limit. It runs beside the tenant's calls, in a thread of its own.
    #[must_use]
    pub fn compaction_rate(mut self, bytes: Option<NonZeroU64>) -> Self {
        self.options.compaction = bytes;
        self
    }

    /// How the pages that a tenant's calls write are found. It changes neither
    /// results, nor fuel, nor the hash of a state.
    #[must_use]
    pub fn tracker(mut self, tracker: TrackerKind) -> Self {
        self.options.tracker = tracker;
        self
    }

    /// Who copies pages between a tenant's workers and the host.
    #[must_use]
    pub fn page_copy(mut self, by: PageCopy) -> Self {
        self.options.page_copy = by;
        self
    }

    /// Limits of tenants.
    #[must_use]
    pub fn tenant_limits(mut self, change: impl FnOnce(&mut TenantLimits)) -> Self {
        change(&mut self.options.limits);
        self
    }

    /// Bytes that the states of all tenants in the data directory may have
    /// together: heap and stable memory at their newest versions, whether they
    /// run or not, and what running calls have grown by. A call that needs more
    /// is aborted with [`CallError::NodeMemory`], and changes nothing; beyond
    /// the tenant's own limits ([`TenantLimits`]) growing is the guest's -1.
    ///
    /// Without it there is no budget: sizes are not resident memory. A state is
    /// sparse, its workers share its pages, and the kernel can drop those that
    /// are on disk. What workers have resident is in
    /// [`TenantInfo`](crate::TenantInfo). Programs and snapshots don't count.
    ///
    /// [`Builder::build`] opens each tenant once, to know its size.
    ///
    /// [`CallError::NodeMemory`]: crate::CallError::NodeMemory
    #[must_use]
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = Some(bytes);
        self
    }

    /// Limits of compilations.
    #[must_use]
    pub fn compile_limits(mut self, limits: CompileLimits) -> Self {
        self.options.compile = limits;
        self
    }

    /// Is told when a compilation begins and ends, in the thread that asked for
    /// it: for a progress bar.
    #[must_use]
    pub fn on_compile(mut self, observer: impl Fn(Compiling) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(observer)));
        self
    }

    /// Offers a function to guests: they import `host.<name>`. The bounds are
    /// in bytes; whatever is over them is the guest's trap.
    #[must_use]
    pub fn host_function(
        mut self,
        name: &str,
        max_argument: usize,
        max_result: usize,
        function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        self.functions.push(Offered::new(
            name.to_owned(),
            max_argument,
            max_result,
            Box::<HostFunction>::from(Box::new(function)),
        ));
        self
    }

    /// Makes the host. Its launcher starts with the first worker.
    pub fn build(self) -> Result<Host, BuildError> {
        if !crate::init::was_called() {
            return Err(BuildError::NotInitialised);
        }
        match depth() {
            0 => {}
            depth => return Err(BuildError::Nested(depth)),
        }
        for (index, offered) in self.functions.iter().enumerate() {
            let fail = |reason: String| BuildError::Function {
                name: offered.name.clone(),
                reason,
            };
            if self.functions[..index]
                .iter()
                .any(|other| other.name == offered.name)
            {
                return Err(fail("is offered twice".into()));
            }
            if offered.name.is_empty() || offered.name.len() > 200 {
                return Err(fail("a name has 1 to 200 bytes".into()));
            }
            if offered.max_argument > MAX_HOST_BYTES || offered.max_result > MAX_HOST_BYTES {
                return Err(fail(format!(
                    "bounds may be at most {MAX_HOST_BYTES} bytes"
                )));
            }
        }
        if self.options.tracker == TrackerKind::Kernel
            && let Probe::Missing(missing) = probe::kernel_tracker()
        {
            return Err(BuildError::KernelTracker { missing });
        }
        let data = self.data.as_deref().map(DataDir::open).transpose()?;
        let budget = self.memory_budget.map(Budget::new);
        if let (Some(budget), Some(data)) = (&budget, &data) {
            tenant::charge_all(data, budget)?;
        }
        let cache = self
            .cache
            .or_else(|| self.data.as_ref().map(|path| path.join("cache")));
        Ok(Host {
            inner: Arc::new(Inner {
                options: self.options,
                launcher: Mutex::default(),
                snapshots: Snapshots::new(cache.clone()),
                cache: Cache::new(cache, self.observer),
                functions: Functions(self.functions),
                data,
                tenants: Registry::default(),
                budget,
            }),
        })
    }
}

/// What all handles of a host share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub options: Options,
    launcher: Mutex<Option<Arc<Launcher>>>,
    cache: Cache,
    pub snapshots: Snapshots,
    pub functions: Functions,
    data: Option<DataDir>,
    tenants: Registry,
    pub budget: Option<Arc<Budget>>,
}

impl Inner {
    /// The launcher, started if there is none or it has ended.
    pub(crate) fn launcher(&self) -> Result<Arc<Launcher>, LauncherError> {
        let mut slot = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(launcher) = slot.as_ref().filter(|launcher| launcher.is_alive()) {
            return Ok(launcher.clone());
        }
        let started = Arc::new(Launcher::start(&self.launcher_options())?);
        *slot = Some(started.clone());
        Ok(started)
    }

    pub(crate) fn launcher_options(&self) -> LauncherOptions {
        LauncherOptions {
            executable: self.options.worker_exe.clone(),
            accept_missing: self.options.accept_missing.clone(),
            as_user: None,
            directories: Vec::new(),
        }
    }

    /// The artefact of a module, and how long it took if it was compiled now.
    pub(crate) fn compile(
        &self,
        wasm: &[u8],
        settings: CompileSettings,
    ) -> Result<(Arc<Artefact>, Option<Duration>), CompileError> {
        let launcher = self.launcher().map_err(crate::worker::WorkerError::from)?;
        self.cache.get(
            &launcher,
            &self.options.accept_missing,
            wasm,
            settings,
            self.options.compile,
        )
    }
}

/// The trusted side. Clones are the same host; when the last is dropped, its
/// workers end.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

impl Host {
    /// A builder with defaults: every layer required, durable updates.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A WASI program to run once, from binary or text.
    pub fn program(&self, module: impl Into<Vec<u8>>) -> Program {
        Program::new(self.inner.clone(), module.into())
    }

    fn data(&self) -> Result<&DataDir, TenantError> {
        self.inner.data.as_ref().ok_or_else(|| TenantError::File {
            path: PathBuf::new(),
            source: io::Error::new(
                io::ErrorKind::NotFound,
                "this host was built without a data directory (Builder::data_dir)",
            ),
        })
    }

    /// Installs a tenant: fills its memory, runs its initialiser with
    /// `argument`, and commits the result.
    ///
    /// Its name is reserved meanwhile, and nothing else waits for it.
    ///
    /// # Errors
    /// [`TenantError::Busy`] if a tenant of this name is just being installed
    /// or removed, [`TenantError::Exists`] if there is one, and whatever is
    /// wrong with the module or its initialiser. Then there is no tenant, and
    /// the name is free again.
    pub fn install(
        &self,
        name: &str,
        module: impl Into<Vec<u8>>,
        argument: &[u8],
    ) -> Result<Tenant, TenantError> {
        let wasm = crate::module::binary(module.into())?;
        let reservation = self.inner.tenants.install(name)?;
        let shared = tenant::install(&self.inner, self.data()?, name, &wasm, argument)?;
        let tenant = Tenant::new(self.inner.clone(), Arc::new(shared));
        reservation.fulfil(tenant.weak());
        Ok(tenant)
    }

    /// The tenant with this name.
    ///
    /// # Errors
    /// [`TenantError::Busy`] if it is just being installed or removed,
    /// [`TenantError::NotFound`] if there is none, and whatever is wrong with
    /// what is kept of it.
    pub fn tenant(&self, name: &str) -> Result<Tenant, TenantError> {
        let shared = self.inner.tenants.get(name, || {
            let shared = tenant::open(&self.inner, self.data()?, name)?;
            Ok(Arc::new(shared))
        })?;
        Ok(Tenant::new(self.inner.clone(), shared))
    }

    /// Replaces a tenant's module and keeps its state.
    pub fn upgrade(
        &self,
        name: &str,
        module: impl Into<Vec<u8>>,
        argument: &[u8],
    ) -> Result<Tenant, TenantError> {
        let wasm = crate::module::binary(module.into())?;
        let tenant = self.tenant(name)?;
        tenant::upgrade(&self.inner, self.data()?, tenant.shared(), &wasm, argument)?;
        Ok(tenant)
    }

    /// Removes a tenant and all its state, once the call that it is at has
    /// ended.
    ///
    /// # Errors
    /// As [`Host::tenant`], but for what is kept of it.
    pub fn remove(&self, name: &str) -> Result<(), TenantError> {
        let (_reservation, open) = self.inner.tenants.remove(name)?;
        tenant::remove(&self.inner, self.data()?, name, open.as_deref())
    }

    /// Makes a snapshot of a tenant's newest version, which is on disk then. It
    /// shares the tenant's files, so it takes milliseconds and no room, and
    /// nothing that happens to the tenant changes it.
    ///
    /// # Errors
    /// [`TenantError::SnapshotExists`] if the tag is taken, and whatever is
    /// wrong with the tenant or the disk.
    pub fn snapshot(&self, name: &str, tag: &str) -> Result<SnapshotInfo, TenantError> {
        let tenant = self.tenant(name)?;
        tenant::snapshot::create(self.data()?, tenant.shared(), tag)
    }

    /// The snapshots of a tenant, by tag; for one that can't be read, its tag
    /// and why.
    pub fn snapshots(
        &self,
        name: &str,
    ) -> Result<Vec<Result<SnapshotInfo, DamagedSnapshot>>, TenantError> {
        tenant::snapshot::list(self.data()?, name)
    }

    /// Makes a snapshot's state the tenant's next version, with the module that
    /// it had then. What the tenant is now is gone, unless there is a snapshot
    /// of it.
    ///
    /// # Errors
    /// [`TenantError::NoSnapshot`], and whatever is wrong with it; then the
    /// tenant is as it was.
    pub fn restore(&self, name: &str, tag: &str) -> Result<Tenant, TenantError> {
        let tenant = self.tenant(name)?;
        tenant::snapshot::restore(&self.inner, self.data()?, tenant.shared(), tag)?;
        Ok(tenant)
    }

    /// Removes a snapshot. Space is given back for what nobody else shares.
    pub fn delete_snapshot(&self, name: &str, tag: &str) -> Result<(), TenantError> {
        let open = self.inner.tenants.open_now(name);
        tenant::snapshot::delete(self.data()?, name, tag, open.as_deref())
    }

    /// Makes a new tenant of the state of another, or of one of its snapshots.
    /// They share every page until one of them writes it.
    ///
    /// # Errors
    /// [`TenantError::Exists`] if there is one of the new name, and whatever is
    /// wrong with the tenant; nothing but the snapshot is looked at if there is
    /// a tag. Then there is no new tenant.
    pub fn fork(&self, name: &str, new: &str, tag: Option<&str>) -> Result<Tenant, TenantError> {
        let data = self.data()?;
        match tag {
            None => {
                let origin = self.tenant(name)?;
                let _reservation = self.inner.tenants.install(new)?;
                tenant::snapshot::fork(&self.inner, data, origin.shared(), new)?;
            }
            Some(tag) => {
                let _reservation = self.inner.tenants.install(new)?;
                tenant::snapshot::fork_snapshot(&self.inner, data, name, tag, new)?;
            }
        }
        self.tenant(new)
    }

    /// Writes a tenant's newest version, or one of its snapshots, with its module
    /// as an archive: one compressed stream that nothing else is needed for.
    /// Calls go on meanwhile.
    ///
    /// # Errors
    /// Whatever is wrong with the tenant, or with `to`; of the tenant, nothing
    /// but the snapshot is looked at if there is a tag. What was written then
    /// is no archive.
    pub fn export(
        &self,
        name: &str,
        tag: Option<&str>,
        to: &mut dyn io::Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Exported, TenantError> {
        let data = self.data()?;
        match tag {
            None => {
                let tenant = self.tenant(name)?;
                tenant::archive::export(data, tenant.shared(), to, progress)
            }
            Some(tag) => tenant::archive::export_snapshot(data, name, tag, to, progress),
        }
    }

    /// Makes a new tenant of an archive. It has the state of the one that was
    /// exported, and an identity of its own. The archive is verified to its end
    /// before there is a tenant; its module is compiled when it first runs.
    ///
    /// # Errors
    /// [`TenantError::Exists`] if there is one of the name, and whatever is wrong
    /// with the archive: damage, or more than this host's limits allow. Then
    /// there is no tenant.
    pub fn import(
        &self,
        name: &str,
        from: &mut dyn io::Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Tenant, TenantError> {
        {
            let _reservation = self.inner.tenants.install(name)?;
            tenant::archive::import(&self.inner, self.data()?, name, from, progress)?;
        }
        self.tenant(name)
    }

    /// Names of all tenants, sorted.
    pub fn tenants(&self) -> Result<Vec<String>, TenantError> {
        let data = self.data()?;
        data.names().map_err(TenantError::file(data.tenants()))
    }

    /// The node's memory budget and what is taken of it, if it has one
    /// ([`Builder::memory_budget`]).
    pub fn memory_budget(&self) -> Option<MemoryBudget> {
        self.inner.budget.as_deref().map(Budget::state)
    }

    /// The data directory, if there is one.
    pub fn data_dir(&self) -> Option<&Path> {
        self.inner.data.as_ref().map(DataDir::path)
    }

    /// The functions that this host offers to guests.
    pub fn offered(&self) -> &[Offered] {
        &self.inner.functions.0
    }

    /// The number of the launcher's process, if it runs.
    pub fn launcher_pid(&self) -> Option<i32> {
        self.inner
            .launcher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|launcher| launcher.pid())
    }
}

/// The kinds of worker, for tables.
pub const WORKER_KINDS: &[WorkerKind] = WorkerKind::ALL;
