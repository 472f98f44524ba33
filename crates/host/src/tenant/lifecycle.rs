//! Install, open, remove.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use lazaret_image::{Durability, Image, OpenError, Recovery};
use lazaret_wire::codec::Message;
use lazaret_wire::message::{Entry, Outcome, Purpose, Sizes};

use super::back_off::BackOff;
use super::call::{Asked, CallOptions, bytes};
use super::checkpoint::Checkpoints;
use super::disk::Disk;
use super::error::{CallError, TenantError};
use super::fold::Folding;
use super::lane::Lane;
use super::live::Live;
use super::meta::Meta;
use super::module::Module;
use super::resident::Census;
use super::start::Beginning;
use super::workers::Workers;
use super::{Shared, hex, snapshot};
use crate::aside;
use crate::budget::{Account, Budget, total};
use crate::data_dir::{self, DataDir, DataDirError};
use crate::functions::Throttle;
use crate::host::Inner;
use crate::module;
use crate::scheduler::CallQueue;
use crate::worker::Duty;

/// Whether a tenant can have this name: it becomes a file name. An error is a
/// [`TenantError::Name`] that says why not.
pub fn check_name(name: &str) -> Result<(), TenantError> {
    data_dir::check_name(name).map_err(|reason| TenantError::Name {
        name: name.to_owned(),
        reason,
    })
}

/// The directory of a tenant, for a name that is one.
fn directory(data: &DataDir, name: &str) -> Result<PathBuf, TenantError> {
    check_name(name)?;
    Ok(data.tenants().join(name))
}

/// Inspects a module for a tenant.
pub(super) fn load(host: &Inner, wasm: &[u8]) -> Result<Module, TenantError> {
    let info = module::inspect(wasm, Purpose::Tenant, &host.functions.names())?;
    let limit = host.options.limits.heap;
    if info.memory_minimum > limit {
        return Err(module::ModuleError::Memory {
            minimum: info.memory_minimum,
            limit,
        }
        .into());
    }
    Ok(Module::new(wasm, info))
}

/// Reads a stored module, and looks at it.
pub(super) fn read_module(
    host: &Inner,
    data: &DataDir,
    hash: &[u8; 32],
) -> Result<Module, TenantError> {
    load(host, &stored_module(data, hash)?)
}

/// Reads a stored module.
pub(super) fn stored_module(data: &DataDir, hash: &[u8; 32]) -> Result<Vec<u8>, TenantError> {
    let path = data.module(&hex(hash));
    let wasm = fs::read(&path).map_err(TenantError::file(&path))?;
    match blake3::hash(&wasm).as_bytes() == hash {
        true => Ok(wasm),
        false => Err(TenantError::ModuleHash { path }),
    }
}

/// The directory of a tenant that exists.
pub(super) fn check_exists(data: &DataDir, name: &str) -> Result<PathBuf, TenantError> {
    let directory = directory(data, name)?;
    match directory.is_dir() {
        true => Ok(directory),
        false => Err(TenantError::NotFound {
            name: name.to_owned(),
            directory: data.path().to_owned(),
        }),
    }
}

pub(super) fn store_module(
    data: &DataDir,
    module: &Module,
    wasm: &[u8],
) -> Result<(), TenantError> {
    let path = data.module(&hex(&module.hash));
    let file = |error| TenantError::file(&path)(error);
    // One that rotted is replaced.
    if fs::read(&path).is_ok_and(|stored| stored == wasm) {
        // Who wrote it may have been killed before its name was on disk.
        return aside::sync_directory(path.parent().unwrap_or(Path::new("."))).map_err(file);
    }
    aside::write_whole(&path, wasm).map_err(file)
}

/// A principal for the tenant: the ten bytes of a canister id, from its id.
fn principal(image: &Image) -> Vec<u8> {
    let mut bytes = image.tenant().0.get(..8).unwrap_or_default().to_vec();
    // The two bytes with which the Internet Computer ends canister ids.
    bytes.extend([1, 1]);
    bytes
}

/// Installs a new tenant: its memory is filled, its initialiser runs, and the
/// result is its first version. If anything fails there is no tenant.
pub(crate) fn install(
    host: &Inner,
    data: &DataDir,
    name: &str,
    wasm: &[u8],
    argument: &[u8],
) -> Result<Shared, TenantError> {
    // Until then nothing has changed, and it is worth another try.
    let made = make(host, data, name, wasm, argument).map_err(TenantError::or_shortage)?;
    let Made {
        aside,
        target,
        account,
    } = made;
    fs::rename(&aside, &target).map_err(TenantError::file(&target))?;
    if let (Some(budget), Some(account)) = (&host.budget, account) {
        budget.enter(name, account);
    }
    aside::sync_directory(&data.tenants()).map_err(TenantError::file(data.tenants()))?;
    open(host, data, name)
}

/// A tenant that is made, but not yet in its place.
struct Made {
    aside: PathBuf,
    target: PathBuf,
    account: Option<Arc<Account>>,
}

fn make(
    host: &Inner,
    data: &DataDir,
    name: &str,
    wasm: &[u8],
    argument: &[u8],
) -> Result<Made, TenantError> {
    let target = snapshot::check_free(data, name)?;
    let module = load(host, wasm)?;
    // Compiled before anything is stored: a module that doesn't compile leaves
    // nothing behind.
    module.artefact(host)?;
    store_module(data, &module, wasm)?;
    let module = host.modules.share(module);
    // Made aside, and renamed once it is complete: a half-made tenant is never
    // seen under its name.
    let aside = data.tenants().join(format!(".new-{name}"));
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(TenantError::file(&aside))?;
    }
    let image = Image::create(&aside)?;
    let meta = Meta {
        module: module.hash,
        cycles: host.options.cycles,
        contract: lazaret_guest::contract::contract(),
        ..Meta::default()
    };
    let account = host.budget.as_ref().map(Budget::open);
    let disk = Disk::new(
        host.options.limits.disk,
        aside.clone(),
        data.snapshots(name),
    );
    let mut shared = shared(
        name,
        aside.clone(),
        image,
        meta,
        module,
        account.clone(),
        disk,
    );
    shared.throttle = host.functions.throttle();
    let installed = initialise(host, Arc::new(shared), argument);
    if let Err(error) = installed {
        let _ = fs::remove_dir_all(&aside);
        return Err(error);
    }
    Ok(Made {
        aside,
        target,
        account,
    })
}

/// A tenant around an image.
fn shared(
    name: &str,
    directory: PathBuf,
    mut image: Image,
    meta: Meta,
    module: Arc<Module>,
    account: Option<Arc<Account>>,
    disk: Disk,
) -> Shared {
    disk.apply(&mut image);
    Shared {
        name: name.to_owned(),
        principal: principal(&image),
        reader: image.reader(),
        open_files: image.open_files(),
        checkpoints: Checkpoints::of(&image),
        module: RwLock::new(module),
        workers: Workers::default(),
        census: Census::default(),
        disk,
        account,
        throttle: Throttle::default(),
        priority: Mutex::default(),
        back_off: BackOff::default(),
        queue: CallQueue::default(),
        log: Mutex::new(directory.clone()),
        hashing: Mutex::default(),
        lane: Mutex::new(Lane {
            image,
            meta: Arc::new(meta),
            removed: false,
            directory,
            folding: Folding::default(),
        }),
    }
}

/// Runs the initialiser in the worker of a tenant that has nothing yet, not
/// even a state in its image.
fn initialise(host: &Inner, tenant: Arc<Shared>, argument: &[u8]) -> Result<(), TenantError> {
    let mut lane = tenant.lane();
    let limits = host.options.limits;
    let view = lane.image.view();
    let module = tenant.module().clone();
    // What the module begins with, which its worker takes when it starts.
    let begin = Sizes {
        heap: module.info.memory_minimum,
        stable: 0,
    };
    let mut growth = tenant.reserve(begin)?;
    let meta = lane.meta.clone();
    let beginning = Beginning {
        host,
        name: &tenant.name,
        module: &module,
        duty: Duty::Serve,
        time: limits.time,
    };
    let mut live = Live::start_with(&beginning, &view, meta, None)
        .map(Box::new)
        .map_err(TenantError::call("install"))?;
    tenant.census.enter(live.worker());
    let options = CallOptions::default();
    let asked = Asked {
        entry: Entry::Install,
        method: "",
        argument,
        options: &options,
        fuel: limits.update_fuel,
    };
    live.ask(&asked, &tenant.principal);
    let done = tenant
        .run(host, &mut live, &mut growth, limits.time)
        .map_err(TenantError::call("install"))?;
    lifecycle_outcome(done.outcome.clone())
        .map_err(|error| TenantError::call("install")(error.or_refused(&growth)))?;
    lane.settle(host, &tenant, live, &done)
        .map_err(TenantError::call("install"))?;
    growth.settle(total(super::memory_sizes(&lane.image)));
    Ok(())
}

/// A lifecycle entry point has no reply: returning is success.
pub(super) fn lifecycle_outcome(result: Outcome) -> Result<(), CallError> {
    match result {
        Outcome::NoReply => Ok(()),
        other => bytes(other).map(drop),
    }
}

/// How long it is waited for somebody of this process to let go of an image.
const LETTING_GO: Duration = Duration::from_secs(10);

/// Opens an image. The data directory is this host's, so one that is in use is
/// in use by a thread of this process: the end of a compaction whose tenant was
/// let go, or another look at the same snapshot.
pub(super) fn open_image(directory: &Path) -> Result<(Image, Recovery), OpenError> {
    let begin = Instant::now();
    loop {
        match Image::open(directory) {
            Err(OpenError::InUse { .. }) if begin.elapsed() < LETTING_GO => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Opens a tenant that exists.
pub(crate) fn open(host: &Inner, data: &DataDir, name: &str) -> Result<Shared, TenantError> {
    let directory = check_exists(data, name)?;
    let (image, recovery) = open_image(&directory)?;
    if let Some(cut) = &recovery.cut {
        tracing::warn!(
            tenant = name,
            ?cut,
            "an update that was never acknowledged was cut off"
        );
    }
    let meta = Meta::from_bytes(image.meta()).map_err(|source| TenantError::State {
        name: name.to_owned(),
        source,
    })?;
    let module = match host.modules.get(&meta.module) {
        Some(module) => module,
        None => host.modules.share(read_module(host, data, &meta.module)?),
    };
    let bytes = total(super::memory_sizes(&image));
    let account = host.budget.as_ref().map(|budget| budget.of(name, bytes));
    let disk = Disk::new(
        host.options.limits.disk,
        directory.clone(),
        data.snapshots(name),
    );
    let mut tenant = shared(name, directory, image, meta, module, account, disk);
    tenant.throttle = host.functions.throttle();
    tenant.checkpoints.at_close = host.options.durability == Durability::Relaxed;
    host.pool.opened_files();
    Ok(tenant)
}

/// Charges the states of all tenants that there are. One that can't be read is
/// charged once it is opened.
pub(crate) fn charge_all(data: &DataDir, budget: &Arc<Budget>) -> Result<(), DataDirError> {
    let directory = data.tenants();
    let names = data.names().map_err(|source| DataDirError::System {
        path: directory.clone(),
        source,
    })?;
    for name in names {
        match open_image(&directory.join(&name)) {
            Ok((image, _)) => drop(budget.of(&name, total(super::memory_sizes(&image)))),
            Err(error) => {
                tracing::warn!(tenant = name, %error, "not counted in the memory budget");
            }
        }
    }
    Ok(())
}

/// Removes a tenant and all its state.
pub(crate) fn remove(
    host: &Inner,
    data: &DataDir,
    name: &str,
    tenant: Option<&Shared>,
) -> Result<(), TenantError> {
    let directory = match check_exists(data, name) {
        Ok(directory) => directory,
        // Those of a tenant that is gone, however that came.
        Err(TenantError::NotFound { .. }) if snapshot::delete_all(data, name)? => return Ok(()),
        Err(error) => return Err(error),
    };
    // No update runs while its files go.
    let mut lane = tenant.map(Shared::lane);
    if let (Some(tenant), Some(lane)) = (tenant, &mut lane) {
        lane.removed = true;
        tenant.workers.retire();
        host.pool.forget(tenant);
    }
    // Renamed first, so that a half-removed tenant is never seen; removed last,
    // so that whoever finds it there knows that its snapshots are to go too.
    let aside = data_dir::removed(&directory);
    fs::rename(&directory, &aside).map_err(TenantError::file(&directory))?;
    if let Some(budget) = &host.budget {
        budget.forget(name);
    }
    host.quarantine.forget(name)?;
    aside::sync_directory(&data.tenants()).map_err(TenantError::file(data.tenants()))?;
    snapshot::delete_all(data, name)?;
    fs::remove_dir_all(&aside).map_err(TenantError::file(aside))
}

/// Bytes of all files in a tenant's directory.
pub(super) fn disk_bytes(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
        .sum()
}
