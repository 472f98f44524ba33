//! How a host is made: its options, and what can't be.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use lazaret_image::Durability;
use lazaret_wall::cgroup::{CgroupError, CgroupOptions, Cgroups};
use lazaret_wall::executable::{Executable, Executables};
use lazaret_wall::launcher::depth;
use lazaret_wall::{Grade, Layer, NotRemovable, Off, Probe, Profile, probe};
use rustix::thread::CapabilitySet;
use thiserror::Error;

use crate::budget::Budget;
use crate::cache_dir::{self, CacheDir};
use crate::compile::{Cache, CompileLimits, Compiling, Observer};
use crate::data_dir::{DataDir, DataDirError};
use crate::functions::{Declaration, Functions, HostFunction, Offered};
use crate::host::{Host, Inner};
use crate::incident::{Hook, Incident, Retention, Running, Store};
use crate::launchers::Launchers;
use crate::live_worker::Register;
use crate::measures::MeasureOptions;
use crate::page_copy::PageCopy;
use crate::pool::{Pool, PoolOptions};
use crate::program::Snapshots;
use crate::quarantine::{Quarantine, QuarantineError, QuarantinePolicy};
use crate::registry::Registry;
use crate::scheduler::{Scheduler, SchedulerOptions};
use crate::stack::Symbols;
use crate::supervisor::{IncidentObserver, Recorder, Supervisor};
use crate::tenant::{self, Modules, TenantLimits};
use crate::tracker::TrackerKind;

/// Why a host could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `lazaret::init()` was not called.
    #[error(
        "lazaret::init() was not called: make it the first line of main. Workers that compile are this same executable, and it is where they begin"
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
    /// Who is in quarantine can't be read.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// There are no descriptors or threads left for the supervisor of workers
    /// and its hooks.
    #[error("the supervisor of workers: {0}; raise the limit of descriptors or threads")]
    Supervisor(#[source] std::io::Error),
    /// Without user namespaces, root needs a capability to look at its workers,
    /// which have other user ids.
    #[error(
        "as root without CAP_SYS_PTRACE this process can't look at workers that have no user namespace of their own: run it as another user than root (USER in the image, runAsUser in Kubernetes), or give it that capability"
    )]
    RootCanNotLook,
    /// A layer was to be left out that can't be.
    #[error(transparent)]
    NotRemovable(#[from] NotRemovable),
    /// Control groups that were asked for can't be had, or their limits can't be.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
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
    pub require_grade: Option<Grade>,
    pub off: Off,
    pub red_team: bool,
    pub worker_user: Option<u32>,
    pub measures: MeasureOptions,
    pub executables: Executables,
    pub durability: Durability,
    pub limits: TenantLimits,
    pub compile: CompileLimits,
    pub cycles: u128,
    pub tracker: TrackerKind,
    pub page_copy: PageCopy,
    pub compaction: Option<NonZeroU64>,
    pub cgroup: CgroupOptions,
    pub pool: PoolOptions,
    pub scheduler: SchedulerOptions,
    pub hold_back: bool,
}

/// How to make a [`Host`].
#[derive(Debug)]
pub struct Builder {
    options: Options,
    without: Vec<Layer>,
    data: Option<PathBuf>,
    cache: Option<PathBuf>,
    cache_limit: u64,
    observer: Option<Observer>,
    functions: Vec<Offered>,
    memory_budget: Option<u64>,
    incident_observers: Vec<IncidentObserver>,
    incident_hooks: Vec<Hook>,
    incidents_kept: Retention,
    incidents_dir: Option<PathBuf>,
    quarantine: Option<QuarantinePolicy>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            options: Options {
                accept_missing: Vec::new(),
                require_grade: None,
                off: Off::NONE,
                red_team: false,
                hold_back: true,
                worker_user: None,
                measures: MeasureOptions::default(),
                executables: Executables {
                    worker: lazaret_worker_executable::IMAGE
                        .map_or(Executable::Own, |image| Executable::Image(image.loaded)),
                    compiler: Executable::Own,
                },
                durability: Durability::Durable,
                limits: TenantLimits::default(),
                compile: CompileLimits::default(),
                // As many as a canister is usually given to begin with.
                cycles: 3_000_000_000_000,
                tracker: TrackerKind::default(),
                page_copy: PageCopy::default(),
                compaction: Some(DEFAULT_COMPACTION),
                cgroup: CgroupOptions::default(),
                pool: PoolOptions::default(),
                scheduler: SchedulerOptions::default(),
            },
            without: Vec::new(),
            data: None,
            cache: None,
            cache_limit: cache_dir::DEFAULT_LIMIT,
            observer: None,
            functions: Vec::new(),
            memory_budget: None,
            incident_observers: Vec::new(),
            incident_hooks: Vec::new(),
            incidents_kept: Retention::default(),
            incidents_dir: None,
            quarantine: None,
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

    /// How many bytes compiled modules and snapshots may take in the cache's directory
    /// (2 GiB if not set). What was used least lately goes first. Those that are in use
    /// stay whole: their bytes are free again once nobody uses them.
    #[must_use]
    pub fn cache_limit(mut self, bytes: u64) -> Self {
        self.cache_limit = bytes;
        self
    }

    /// Accepts that a layer of the wall is missing. Without it, a missing
    /// layer is an error.
    #[must_use]
    pub fn accept_missing(mut self, layer: Layer) -> Self {
        self.options.accept_missing.push(layer);
        self
    }

    /// Leaves a layer of the wall out on purpose, and those that can't be without
    /// it ([`Off`]): to show what each layer carries, and where a container gives no
    /// namespaces. **Never for code that nobody trusts.** Receipts say that it is
    /// off, and the grade follows.
    #[must_use]
    pub fn without(mut self, layer: Layer) -> Self {
        self.without.push(layer);
        self
    }

    /// Which wall there is to be ([`Profile`]): the whole one, if not set.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.without.extend(profile.without());
        self
    }

    /// Whether a tenant whose workers end in its calls, one after another, has to wait
    /// between them ([`HeldBack`](crate::HeldBack)), longer each time: it does if this is
    /// not set. Each such call costs the start of a worker, and a record of the
    /// incident.
    #[must_use]
    pub fn hold_back(mut self, hold_back: bool) -> Self {
        self.options.hold_back = hold_back;
        self
    }

    /// Starts workers under the name of the red team's
    /// ([`RED_TEAM`](lazaret_wall::worker::RED_TEAM)): an executable that knows it
    /// attacks from inside, in place of a guest. Where `user` is given, all of them
    /// have that id on the host. For `lazaret redteam`.
    #[doc(hidden)]
    #[must_use]
    pub fn red_team(mut self, user: Option<u32>) -> Self {
        self.options.red_team = true;
        self.options.hold_back = false;
        self.options.worker_user = user;
        self
    }

    /// Runs nothing behind a wall of a lower grade ([`Grade`]), whatever is
    /// accepted to be missing.
    #[must_use]
    pub fn require_grade(mut self, grade: Grade) -> Self {
        self.options.require_grade = Some(grade);
        self
    }

    /// Which measures against side channels are left out, and which must hold
    /// for every worker; by default each is taken that this host has.
    #[must_use]
    pub fn measures(mut self, options: MeasureOptions) -> Self {
        self.options.measures = options;
        self
    }

    /// The executable for launcher and all workers, in place of the one that is
    /// carried along for workers and of this program for compilers. Its `main`
    /// must begin with `lazaret::init()`.
    #[must_use]
    pub fn worker_exe(mut self, path: impl Into<PathBuf>) -> Self {
        let file = Executable::File(path.into());
        self.options.executables = Executables {
            worker: file.clone(),
            compiler: file,
        };
        self
    }

    /// Acknowledges updates when they are in the page cache, not on disk: they
    /// survive the end of every process, but not of the machine.
    /// [`Tenant::checkpoint`](crate::Tenant::checkpoint) puts a tenant on disk, and so does letting go of
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

    /// Control groups for workers: whether they are used, and what limits they put
    /// on each ([`CgroupOptions`]). By default each worker has one where this
    /// process may make them, with a memory limit that follows from those of its
    /// memories, an ordinary share of the processors and one task. Where it may
    /// not, the limits underneath hold alone, and a warning says what is missing;
    /// with [`Mode::Require`](lazaret_wall::cgroup::Mode::Require) that is an error.
    #[must_use]
    pub fn cgroups(mut self, change: impl FnOnce(&mut CgroupOptions)) -> Self {
        change(&mut self.options.cgroup);
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

    /// Runs a command for every incident that is bad enough, beside everything
    /// else.
    #[must_use]
    pub fn incident_hook(mut self, hook: Hook) -> Self {
        self.incident_hooks.push(hook);
        self
    }

    /// Puts incidents on record in a data directory that this host doesn't use
    /// otherwise: for one that only runs programs.
    #[must_use]
    pub fn record_incidents(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.incidents_dir = Some(data_dir.into());
        self
    }

    /// Puts a tenant in quarantine by itself after incidents of its workers:
    /// none of its code runs until it is released. Without it, tenants are
    /// quarantined only by [`Host::quarantine`].
    #[must_use]
    pub fn quarantine(mut self, policy: QuarantinePolicy) -> Self {
        self.quarantine = Some(policy);
        self
    }

    /// How many incidents are kept in the data directory, 1,000 and 64 MiB if
    /// not set. Of those over it, the least severe of whoever has most go first.
    #[must_use]
    pub fn keep_incidents(mut self, retention: Retention) -> Self {
        self.incidents_kept = retention;
        self
    }

    /// Is told of every incident, in the supervisor's thread, after it was put
    /// on record: for alerts.
    #[must_use]
    pub fn on_incident(mut self, observer: impl Fn(&Incident) + Send + Sync + 'static) -> Self {
        self.incident_observers
            .push(IncidentObserver(Box::new(observer)));
        self
    }

    /// Offers a function to guests: they import `host.<name>`. The bounds are
    /// in bytes; whatever is over them is the guest's trap.
    #[must_use]
    pub fn host_function(
        self,
        name: &str,
        max_argument: usize,
        max_result: usize,
        function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        self.offer(Declaration::new(name, max_argument, max_result), function)
    }

    /// The same with all that can be declared of it: what it is for, what a call
    /// costs, how often it may be called.
    #[must_use]
    pub fn offer(
        mut self,
        declaration: Declaration,
        function: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        let function = Box::<HostFunction>::from(Box::new(function));
        self.functions.push(Offered::new(declaration, function));
        self
    }

    /// How submitted calls are made ([`Tenant::submit`](crate::Tenant::submit)).
    #[must_use]
    pub fn scheduler(mut self, change: impl FnOnce(&mut SchedulerOptions)) -> Self {
        change(&mut self.options.scheduler);
        self
    }

    /// What the pool of tenants' workers may do.
    #[must_use]
    pub fn pool(mut self, change: impl FnOnce(&mut PoolOptions)) -> Self {
        change(&mut self.options.pool);
        self
    }

    /// The functions that are offered so far.
    pub fn offered(&self) -> &[Offered] {
        &self.functions
    }

    /// Makes the host. Its launcher starts with the first worker.
    pub fn build(self) -> Result<Host, BuildError> {
        if !crate::init::was_called() {
            return Err(BuildError::NotInitialised);
        }
        crate::metrics::describe();
        match depth() {
            0 => {}
            depth => return Err(BuildError::Nested(depth)),
        }
        let options = Arc::new(Options {
            off: Off::new(&self.without)?,
            ..self.options
        });
        if options.off.has(Layer::UserNamespace)
            && rustix::process::geteuid().is_root()
            && !rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE))
        {
            return Err(BuildError::RootCanNotLook);
        }
        for (index, offered) in self.functions.iter().enumerate() {
            let name = &offered.declaration.name;
            let twice = self.functions[..index]
                .iter()
                .any(|other| other.declaration.name == *name)
                .then(|| "is offered twice".to_owned());
            if let Some(reason) = twice.or_else(|| offered.declaration.wrong()) {
                return Err(BuildError::Function {
                    name: name.clone(),
                    reason,
                });
            }
        }
        if options.tracker == TrackerKind::Kernel
            && let Probe::Missing(missing) = probe::kernel_tracker()
        {
            return Err(BuildError::KernelTracker { missing });
        }
        options.cgroup.check().map_err(CgroupError::from)?;
        let cgroups = OnceLock::new();
        // What must be there is an error now, not with the first worker.
        if options.cgroup.must_be_there() {
            let _ = cgroups.set(Cgroups::open(options.cgroup)?);
        }
        let data = self.data.as_deref().map(DataDir::open).transpose()?;
        let budget = self.memory_budget.map(Budget::new);
        if let (Some(budget), Some(data)) = (&budget, &data) {
            tenant::charge_all(data, budget)?;
        }
        let cache = self
            .cache
            .or_else(|| self.data.as_ref().map(|path| path.join("cache")))
            .map(|path| Arc::new(CacheDir::new(path, self.cache_limit)));
        let store = data
            .as_ref()
            .map(DataDir::path)
            .or(self.incidents_dir.as_deref())
            .map(|path| Store::of(path).retaining(self.incidents_kept));
        let quarantine = Arc::new(Quarantine::open(
            data.as_ref().map(DataDir::path),
            self.quarantine,
        )?);
        let observers = self.incident_observers;
        let hooks: Vec<Running> = self
            .incident_hooks
            .into_iter()
            .map(Running::start)
            .collect::<Result<_, _>>()
            .map_err(BuildError::Supervisor)?;
        let register = data
            .as_ref()
            .map(DataDir::path)
            .or(self.incidents_dir.as_deref())
            .map(Register::open);
        let supervisor = Arc::new(
            Supervisor::new(register, |wake| {
                Recorder::new(
                    wake,
                    store,
                    quarantine.clone(),
                    observers,
                    hooks,
                    Symbols::new(options.executables.clone()),
                )
            })
            .map_err(BuildError::Supervisor)?,
        );
        let launchers = Arc::new(Launchers::new(options.clone(), cgroups, cache.clone()));
        let tenants = Arc::new(Registry::default());
        let pool = Pool::new(
            options.clone(),
            launchers.clone(),
            supervisor.clone(),
            tenants.clone(),
        );
        let pool = pool.map_err(BuildError::Supervisor)?;
        Ok(Host::new(Inner {
            scheduler: Scheduler::new(options.scheduler),
            pool,
            options,
            launchers,
            snapshots: Snapshots::new(cache.clone()),
            cache: Cache::new(cache, self.observer),
            functions: Functions(self.functions),
            data,
            tenants,
            modules: Modules::default(),
            budget,
            quarantine,
            supervisor,
        }))
    }
}
