//! Install, open, upgrade, remove.

use std::fs;
use std::path::{Path, PathBuf};

use lazaret_image::Image;
use lazaret_wire::codec::Message;
use lazaret_wire::message::{Entry, Outcome, Purpose, Region, Sizes};

use super::error::{CallError, TenantError};
use super::live::{Live, Module};
use super::meta::Meta;
use super::{CallOptions, State, hex, outcome};
use crate::data_dir::{self, DataDir};
use crate::host::Inner;
use crate::module;

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
fn load(host: &Inner, wasm: &[u8]) -> Result<Module, TenantError> {
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

fn store_module(data: &DataDir, module: &Module, wasm: &[u8]) -> Result<(), TenantError> {
    let path = data.module(&hex(&module.hash));
    if path.exists() {
        return Ok(());
    }
    data_dir::write_whole(&path, wasm).map_err(TenantError::file(path))
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
) -> Result<State, TenantError> {
    let target = directory(data, name)?;
    if target.exists() {
        return Err(TenantError::Exists(name.to_owned()));
    }
    let mut module = load(host, wasm)?;
    // Compiled before anything is stored: a module that doesn't compile leaves
    // nothing behind.
    module.artefact(host)?;
    store_module(data, &module, wasm)?;
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
    let principal = principal(&image);
    let mut state = State {
        name: name.to_owned(),
        directory: aside.clone(),
        image,
        meta,
        module,
        live: None,
        principal,
        removed: false,
    };
    if let Err(error) = initialise(host, &mut state, argument) {
        drop(state);
        let _ = fs::remove_dir_all(&aside);
        return Err(error);
    }
    drop(state);
    fs::rename(&aside, &target).map_err(TenantError::file(&target))?;
    data_dir::sync_directory(&data.tenants()).map_err(TenantError::file(data.tenants()))?;
    open(host, data, name)
}

fn initialise(host: &Inner, state: &mut State, argument: &[u8]) -> Result<(), TenantError> {
    state
        .ensure_live(host)
        .map_err(TenantError::call("install"))?;
    let limits = host.options.limits;
    let request = state.request(
        Entry::Install,
        "",
        argument,
        &CallOptions::default(),
        limits.update_fuel,
    );
    let done = state
        .run(host, request, limits.time)
        .map_err(TenantError::call("install"))?;
    state
        .settle(host, &done)
        .map_err(TenantError::call("install"))?;
    lifecycle_outcome(done.outcome).map_err(TenantError::call("install"))
}

/// A lifecycle entry point has no reply: returning is success.
fn lifecycle_outcome(result: Outcome) -> Result<(), CallError> {
    match result {
        Outcome::NoReply => Ok(()),
        other => outcome(other).map(drop),
    }
}

/// Opens a tenant that exists.
pub(crate) fn open(host: &Inner, data: &DataDir, name: &str) -> Result<State, TenantError> {
    let directory = directory(data, name)?;
    if !directory.is_dir() {
        return Err(TenantError::NotFound {
            name: name.to_owned(),
            directory: data.path().to_owned(),
        });
    }
    let (image, recovery) = Image::open(&directory)?;
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
    let path = data.module(&hex(&meta.module));
    let wasm = fs::read(&path).map_err(TenantError::file(&path))?;
    if *blake3::hash(&wasm).as_bytes() != meta.module {
        return Err(TenantError::ModuleHash { path });
    }
    let module = load(host, &wasm)?;
    let principal = principal(&image);
    Ok(State {
        name: name.to_owned(),
        directory,
        image,
        meta,
        module,
        live: None,
        principal,
        removed: false,
    })
}

/// Replaces a tenant's module and keeps its state: the old module's
/// `canister_pre_upgrade`, then the new one's start function and
/// `canister_post_upgrade`, as one version. If anything fails, the tenant is
/// as it was.
pub(crate) fn upgrade(
    host: &Inner,
    data: &DataDir,
    state: &mut State,
    wasm: &[u8],
    argument: &[u8],
) -> Result<(), TenantError> {
    let mut module = load(host, wasm)?;
    module.artefact(host)?;
    store_module(data, &module, wasm)?;
    let result = exchange_module(host, state, module, argument);
    // Whatever happened, no worker is at the image's version any more, but for
    // the case that all went well, which `exchange_module` sees to.
    if result.is_err() {
        state.live = None;
    }
    result
}

fn exchange_module(
    host: &Inner,
    state: &mut State,
    mut module: Module,
    argument: &[u8],
) -> Result<(), TenantError> {
    let limits = host.options.limits;
    let options = CallOptions::default();
    state
        .ensure_live(host)
        .map_err(TenantError::call("upgrade"))?;
    let request = state.request(Entry::PreUpgrade, "", &[], &options, limits.update_fuel);
    let prepared = state
        .run(host, request, limits.time)
        .map_err(TenantError::call("pre_upgrade"))?;
    lifecycle_outcome(prepared.outcome.clone()).map_err(TenantError::call("pre_upgrade"))?;

    let keep = module.info.keeps_heap();
    let Some(mut old) = state.live.take() else {
        return Err(TenantError::call("upgrade")(CallError::Removed(
            state.name.clone(),
        )));
    };
    let mut written = old
        .written(prepared.sizes)
        .map_err(TenantError::call("upgrade"))?;
    if !keep {
        written.retain(|(region, _)| *region == Region::Stable);
    }
    let sizes = Sizes {
        heap: if keep { prepared.sizes.heap } else { 0 },
        stable: prepared.sizes.stable,
    };

    // The new module's worker starts from the committed version and what
    // pre_upgrade wrote since.
    let carried = old
        .carry(written, sizes, keep)
        .map_err(TenantError::call("upgrade"))?;
    drop(old);
    let artefact = module.artefact(host)?;
    let new = Live::start(host, &state.image, &artefact, &limits, Some(&carried))
        .map_err(TenantError::call("upgrade"))?;
    state.live = Some(new);
    let carried = carried.pages;

    let before = (state.module.clone(), state.meta.clone());
    let entry = if keep {
        Entry::PostUpgradeKeepingHeap
    } else {
        Entry::PostUpgrade
    };
    let mut request = state.request(entry, "", argument, &options, limits.update_fuel);
    request.sizes = sizes;
    // The new module's own initial values.
    request.globals = Vec::new();
    state.module = module;
    let done = state
        .run(host, request, limits.time)
        .map_err(TenantError::call("post_upgrade"))
        .and_then(|done| {
            lifecycle_outcome(done.outcome.clone()).map_err(TenantError::call("post_upgrade"))?;
            Ok(done)
        });
    let committed = done.and_then(|done| {
        let mut after = state.meta.clone();
        after.module = state.module.hash;
        after.contract = lazaret_guest::contract::contract();
        // A timer doesn't survive an upgrade (Internet Computer interface
        // specification, "Global timer").
        after.global_timer = done.effects.global_timer.unwrap_or(0);
        after.certified_data = done
            .effects
            .certified_data
            .clone()
            .unwrap_or(after.certified_data);
        after.globals.clone_from(&done.globals);
        after.version = after.version.saturating_add(1);
        state
            .commit_upgrade(host, after, &done.sizes, &carried, keep)
            .map_err(TenantError::call("upgrade"))
    });
    if committed.is_err() {
        (state.module, state.meta) = before;
    }
    committed
}

impl State {
    /// Commits an upgrade: what was carried over and what the new module
    /// wrote. A heap that isn't kept is replaced whole: its old pages are
    /// committed as what they are in the new worker, zeros as a rule.
    fn commit_upgrade(
        &mut self,
        host: &Inner,
        after: Meta,
        sizes: &Sizes,
        carried: &[(Region, u64)],
        keep: bool,
    ) -> Result<(), CallError> {
        let Some(live) = &mut self.live else {
            return Err(CallError::Removed(self.name.clone()));
        };
        let mut pages = live.written(*sizes)?;
        pages.extend_from_slice(carried);
        if !keep {
            for run in self.image.plan().runs {
                if run.region == lazaret_image::Region::Heap {
                    pages.extend(
                        (run.first_page..run.first_page + run.pages)
                            .map(|page| (Region::Heap, page)),
                    );
                }
            }
        }
        let inside = |(region, page): &(Region, u64)| {
            let size = if *region == Region::Heap {
                sizes.heap
            } else {
                sizes.stable
            };
            *page < size / lazaret_wire::layout::PAGE as u64
        };
        pages.retain(inside);
        pages.sort_unstable();
        pages.dedup();
        let bytes = super::encode(&after)?;
        live.commit(
            &mut self.image,
            &pages,
            *sizes,
            &bytes,
            host.options.durability,
        )?;
        self.meta = after;
        Ok(())
    }
}

/// Removes a tenant and all its state.
pub(crate) fn remove(
    data: &DataDir,
    name: &str,
    state: Option<&mut State>,
) -> Result<(), TenantError> {
    let directory = directory(data, name)?;
    if !directory.is_dir() {
        return Err(TenantError::NotFound {
            name: name.to_owned(),
            directory: data.path().to_owned(),
        });
    }
    if let Some(state) = state {
        state.live = None;
        state.removed = true;
    }
    // Renamed first, so that a half-removed tenant is never seen.
    let aside = data
        .tenants()
        .join(format!(".removed-{name}-{}", std::process::id()));
    fs::rename(&directory, &aside).map_err(TenantError::file(&directory))?;
    data_dir::sync_directory(&data.tenants()).map_err(TenantError::file(data.tenants()))?;
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
