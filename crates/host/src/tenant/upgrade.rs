//! A new module on a tenant's state.

use std::sync::Arc;

use lazaret_wire::layout::PAGE;
use lazaret_wire::message::{Done, Effects, Entry, Region, Sizes};

use super::Shared;
use super::call::{Asked, CallOptions};
use super::error::{CallError, TenantError};
use super::lane::Lane;
use super::lifecycle::{lifecycle_outcome, load, store_module};
use super::live::Live;
use super::meta::Meta;
use super::module::Module;
use super::start::{Beginning, Carried};
use crate::budget::{Reservation, total};
use crate::data_dir::DataDir;
use crate::host::Inner;
use crate::memory;
use crate::tracker::Written;
use crate::worker::Duty;

/// Replaces a tenant's module and keeps its state: the old module's
/// `canister_pre_upgrade`, then the new one's start function and
/// `canister_post_upgrade`, as one version. If anything fails, the tenant is
/// as it was.
pub(crate) fn upgrade(
    host: &Inner,
    data: &DataDir,
    tenant: &Arc<Shared>,
    wasm: &[u8],
    argument: &[u8],
) -> Result<(), TenantError> {
    let module = load(host, wasm)?;
    module.artefact(host)?;
    store_module(data, &module, wasm)?;
    let module = Arc::new(module);
    let mut lane = tenant.lane();
    lane.check_removed(&tenant.name)
        .map_err(TenantError::call("upgrade"))?;
    let mut growth = tenant.reserve(super::memory_sizes(&lane.image))?;
    let (carried, effects) = leave(host, tenant, &mut lane, &module, &mut growth)?;
    let left = Left {
        carried: &carried,
        meta: kept(&lane.meta, effects),
    };
    arrive(host, tenant, &mut lane, module, &left, growth, argument)
}

/// What the old module left behind, committed with what the new one does.
struct Left<'a> {
    carried: &'a Carried,
    meta: Meta,
}

/// The state after `canister_pre_upgrade`. A timer doesn't survive an upgrade
/// (Internet Computer interface specification, "Global timer").
fn kept(before: &Meta, effects: Effects) -> Meta {
    Meta {
        certified_data: effects
            .certified_data
            .unwrap_or_else(|| before.certified_data.clone()),
        global_timer: 0,
        cycles: before.cycles.saturating_sub(effects.cycles_burned),
        ..before.clone()
    }
}

/// The old module's part: `canister_pre_upgrade`, and what it leaves behind.
fn leave(
    host: &Inner,
    tenant: &Arc<Shared>,
    lane: &mut Lane,
    module: &Module,
    growth: &mut Reservation<'_>,
) -> Result<(Carried, Effects), TenantError> {
    let keep = module.info.keeps_heap();
    let limits = host.options.limits;
    let mut old = lane
        .worker(host, tenant, limits.time)
        .map_err(TenantError::call("upgrade"))?;
    let options = CallOptions::default();
    let asked = Asked {
        entry: Entry::PreUpgrade,
        method: "",
        argument: &[],
        options: &options,
        fuel: limits.update_fuel,
    };
    old.ask(&asked, &tenant.principal);
    let prepared = tenant
        .run(host, &mut old, growth, limits.time)
        .map_err(TenantError::call("pre_upgrade"))?;
    // Whatever comes of it, this worker is at no version any more: it ends
    // here.
    let (outcome, effects) = (prepared.outcome, prepared.effects);
    lifecycle_outcome(outcome)
        .map_err(|error| TenantError::call("pre_upgrade")(error.or_refused(growth)))?;
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
    old.carry(written, sizes, keep)
        .map(|carried| (carried, effects))
        .map_err(TenantError::call("upgrade"))
}

/// The new module's part: its worker starts from the committed version and what
/// the old one wrote since.
fn arrive(
    host: &Inner,
    tenant: &Arc<Shared>,
    lane: &mut Lane,
    module: Arc<Module>,
    left: &Left<'_>,
    mut growth: Reservation<'_>,
    argument: &[u8],
) -> Result<(), TenantError> {
    let (limits, carried) = (host.options.limits, left.carried);
    growth.restart(total(Sizes {
        heap: carried.sizes.heap.max(module.info.memory_minimum),
        stable: carried.sizes.stable,
    }))?;
    let view = lane.image.view();
    let beginning = Beginning {
        host,
        name: &tenant.name,
        module: &module,
        duty: Duty::Serve,
        time: limits.time,
    };
    let mut live = Live::start_with(&beginning, &view, lane.meta.clone(), Some(carried))
        .map(Box::new)
        .map_err(TenantError::call("upgrade"))?;
    drop(view);
    tenant.born(host, &live);
    let options = CallOptions::default();
    let asked = Asked {
        entry: match carried.keep_heap {
            true => Entry::PostUpgradeKeepingHeap,
            false => Entry::PostUpgrade,
        },
        method: "",
        argument,
        options: &options,
        fuel: limits.update_fuel,
    };
    live.ask(&asked, &tenant.principal);
    live.request.sizes = carried.sizes;
    // The new module's own initial values.
    live.request.globals.clear();
    live.request.cycles = left.meta.cycles;
    let done = tenant
        .run(host, &mut live, &mut growth, limits.time)
        .map_err(TenantError::call("post_upgrade"))?;
    lifecycle_outcome(done.outcome.clone())
        .map_err(|error| TenantError::call("post_upgrade")(error.or_refused(&growth)))?;
    let after = after(&left.meta, &module, &done);
    let pages =
        pages(lane, &mut live, &done.sizes, carried).map_err(TenantError::call("upgrade"))?;
    // Nobody takes the new version for one of the old module.
    let mut running = tenant.module_mut();
    lane.publish(host, tenant, &mut live, &pages, done.sizes, after)
        .map_err(TenantError::call("upgrade"))?;
    growth.settle(total(super::memory_sizes(&lane.image)));
    *running = module;
    tenant.workers.retire();
    live.generation = tenant.workers.generation();
    tenant.workers.give(live);
    Ok(())
}

fn after(before: &Meta, module: &Module, done: &Done) -> Meta {
    Meta {
        module: module.hash,
        contract: lazaret_guest::contract::contract(),
        global_timer: done.effects.global_timer.unwrap_or(before.global_timer),
        certified_data: done
            .effects
            .certified_data
            .clone()
            .unwrap_or_else(|| before.certified_data.clone()),
        globals: done.globals.clone(),
        version: before.version.saturating_add(1),
        cycles: before.cycles.saturating_sub(done.effects.cycles_burned),
    }
}

/// The pages of an upgrade's version: what was carried over and what the new
/// module wrote. A heap that isn't kept is replaced whole: its old pages are
/// committed as what they are in the new worker, zeros as a rule.
fn pages(
    lane: &Lane,
    live: &mut Live,
    sizes: &Sizes,
    carried: &Carried,
) -> Result<Written, CallError> {
    let mut pages = live.written(*sizes)?;
    pages.extend_from_slice(&carried.pages);
    if !carried.keep_heap {
        for run in lane.image.view().plan().runs {
            if run.region == lazaret_image::Region::Heap {
                pages.extend(
                    (run.first_page..run.first_page + run.pages).map(|page| (Region::Heap, page)),
                );
            }
        }
    }
    pages.retain(|(region, page)| *page < memory::pages(*sizes, *region));
    pages.sort_unstable();
    pages.dedup();
    Ok(pages)
}

const _: () = assert!(65_536 % PAGE == 0);
