//! The host: the trusted side, and the embeddable API.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lazaret_image::Exported;
use lazaret_wall::cgroup::{CgroupError, Cgroups};
use lazaret_wire::message::{CompileSettings, WorkerKind};

use crate::budget::{Budget, MemoryBudget};
use crate::builder::{Builder, Options};
use crate::compile::{Artefact, Cache, CompileError, Compiler};
use crate::data_dir::DataDir;
use crate::functions::{Functions, Offered};
use crate::incident::{Incident, Store};
use crate::launchers::Launchers;
use crate::module::ModuleError;
use crate::pool::{Pool, PoolState};
use crate::program::{Module, Program, Snapshots};
use crate::quarantine::{Quarantine, Quarantined};
use crate::registry::Registry;
use crate::scheduler::{Scheduler, SchedulerState};
use crate::supervisor::Supervisor;
use crate::tenant::archive::Progress;
use crate::tenant::{
    self, DamagedSnapshot, Modules, Replay, ReplayError, SnapshotInfo, Tenant, TenantError,
};

/// What all handles of a host share.
#[derive(Debug)]
pub(crate) struct Inner {
    /// First, as its threads call tenants.
    pub scheduler: Scheduler,
    pub options: Arc<Options>,
    pub pool: Pool,
    pub launchers: Arc<Launchers>,
    pub cache: Cache,
    pub snapshots: Snapshots,
    pub functions: Functions,
    pub data: Option<DataDir>,
    pub tenants: Arc<Registry>,
    pub modules: Modules,
    pub budget: Option<Arc<Budget>>,
    pub quarantine: Arc<Quarantine>,
    /// Last, as what is ended before may still have something to tell.
    pub supervisor: Arc<Supervisor>,
}

impl Inner {
    /// The artefact of a module with this hash, and how long it took if it was compiled now.
    pub(crate) fn compile(
        &self,
        wasm: &[u8],
        module: [u8; 32],
        settings: CompileSettings,
    ) -> Result<(Arc<Artefact>, Option<Duration>), CompileError> {
        let compiler = Compiler {
            launchers: &self.launchers,
            supervisor: &self.supervisor,
            accepted: &self.options.accept_missing,
            required: self.options.require_grade,
            measures: &self.options.measures,
            limits: self.options.compile,
        };
        self.cache.get(&compiler, wasm, module, settings)
    }
}

/// The trusted side. Clones are the same host; when the last is dropped, its
/// workers end.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

impl Host {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A builder with defaults: every layer required, durable updates.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A WASI program to run once, from binary or text.
    pub fn program(&self, module: impl Into<Vec<u8>>) -> Program {
        Program::of_bytes(self.inner.clone(), module.into())
    }

    /// A WASI program that runs many times, from binary or text: to read and hash a large
    /// module takes longer than its start.
    ///
    /// # Errors
    /// If it is none, or can't be run here.
    pub fn module(&self, module: impl Into<Vec<u8>>) -> Result<Module, ModuleError> {
        Module::new(self.inner.clone(), module.into())
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
        let open = || {
            let shared = tenant::open(&self.inner, self.data()?, name);
            shared.map(Arc::new).map_err(TenantError::or_shortage)
        };
        let shared = self.inner.tenants.get(name, open)?;
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
        tenant::upgrade(&self.inner, self.data()?, tenant.shared(), &wasm, argument)
            .map_err(TenantError::or_shortage)?;
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

    /// What the pool of tenants' workers has, and has done.
    pub fn pool(&self) -> PoolState {
        self.inner.pool.state()
    }

    /// What its submitted calls are at.
    pub fn scheduler(&self) -> SchedulerState {
        self.inner.scheduler.state()
    }

    /// The data directory, if there is one.
    pub fn data_dir(&self) -> Option<&Path> {
        self.inner.data.as_ref().map(DataDir::path)
    }

    /// Puts a tenant in quarantine: none of its code runs until it is released
    /// ([`Host::release`]). A call that is running ends first.
    ///
    /// # Errors
    /// [`TenantError::NotFound`], or whatever is wrong with the disk.
    pub fn quarantine(&self, name: &str, reason: &str) -> Result<(), TenantError> {
        let tenant = self.tenant(name)?;
        self.inner
            .quarantine
            .impose(name, reason.to_owned(), None)?;
        tenant.sleep();
        Ok(())
    }

    /// Lets a tenant out of quarantine: whether it was in.
    ///
    /// # Errors
    /// [`TenantError::NotFound`], or whatever is wrong with the disk; then it
    /// is still in quarantine.
    pub fn release(&self, name: &str) -> Result<bool, TenantError> {
        self.tenant(name)?;
        Ok(self.inner.quarantine.release(name)?)
    }

    /// Why a tenant is in quarantine, if it is.
    pub fn quarantined(&self, name: &str) -> Option<Quarantined> {
        self.inner.quarantine.of(name)
    }

    /// The last incidents of this host, oldest first; at most 64.
    pub fn recent_incidents(&self) -> Vec<Arc<Incident>> {
        self.inner.supervisor.recorder().remembered()
    }

    /// The incidents on record in the data directory, if there is one: this
    /// host's and those of hosts before it.
    pub fn incidents(&self) -> Option<Store> {
        self.data_dir().map(Store::of)
    }

    /// Runs again, in a fresh worker on the same state, what a worker was sent
    /// before an incident. Nothing of it lasts: what the calls write is thrown
    /// away, the functions of this host are not called, and what the fresh
    /// worker does is returned and not recorded. The tenant may be in
    /// quarantine.
    ///
    /// # Errors
    /// If the incident is no tenant's or happened outside of a call, or what it
    /// ran on is gone ([`ReplayError`]).
    pub fn replay(&self, incident: &Incident) -> Result<Replay, ReplayError> {
        let Some(name) = &incident.subject.tenant else {
            return Err(ReplayError::NoTenant {
                id: incident.id.clone(),
                worker: incident.subject.worker.clone(),
                module: incident.subject.module.clone(),
            });
        };
        let tenant = self.tenant(name)?;
        tenant::replay::replay(&self.inner, self.data()?, tenant.shared(), incident)
    }

    /// What this host may do with control groups, and what it does. They are
    /// looked for now if no worker was started yet.
    ///
    /// # Errors
    /// If a limit was asked for that can't be put on ([`Builder::cgroups`]).
    pub fn cgroups(&self) -> Result<&Cgroups, CgroupError> {
        self.inner.launchers.cgroups().map(Arc::as_ref)
    }

    /// The functions that this host offers to guests: all of them, as there is no
    /// other way to a number on the wire.
    pub fn offered(&self) -> &[Offered] {
        &self.inner.functions.0
    }

    /// The number of the first launcher's process, if one runs.
    pub fn launcher_pid(&self) -> Option<i32> {
        self.launcher_pids().first().copied()
    }

    /// The numbers of the processes of all launchers that run.
    pub fn launcher_pids(&self) -> Vec<i32> {
        self.inner.launchers.pids()
    }
}

/// The kinds of worker, for tables.
pub const WORKER_KINDS: &[WorkerKind] = WorkerKind::ALL;
