//! One program from its instantiation to its end.

use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lazaret_instrument::names;
use lazaret_wire::message::{Beginning, Exited, Initialised, ProgramEnd};
use wasmtime::{Instance, InstancePre, Store, Val};

use super::drive::{Gate, Hook};
use super::error::LoadError;
use super::imports::Exit;
use super::limiter::HostMemory;
use super::snapshot;
use super::state::State;
use crate::trap;

/// The name of a command's entry point (WASI application ABI).
pub(super) const START: &str = "_start";

/// Instantiates, puts a snapshot in place, stops at the gate, runs. An error is
/// one of the module or the host before the gate.
pub(super) async fn execute(
    module: InstancePre<State>,
    mut store: Store<State>,
    gate: Arc<Gate>,
    fuel: Option<u64>,
    beginning: Beginning,
    pages: Option<OwnedFd>,
) -> Result<Exited, LoadError> {
    // A start function that isn't metered runs within the instantiation.
    store.call_hook_async(Hook(Arc::clone(&gate)));
    let instance = match module.instantiate_async(&mut store).await {
        Ok(instance) => instance,
        Err(error) if gate.reached() || error.is::<wasmtime::Trap>() => {
            return Ok(exited(&store, Err(error), names::STOP_NONE, fuel, None));
        }
        Err(error) => return Err(not_instantiated(&store, &error)),
    };
    if let Beginning::Snapshot(snapshot) = &beginning {
        let pages =
            pages.ok_or_else(|| LoadError::Snapshot("its pages were not given".to_owned()))?;
        snapshot::restore(&instance, &mut store, snapshot, pages)?;
    }
    if !gate.reached() {
        gate.pass().await;
    }
    // There is no way to take a hook out; this one costs a call.
    store.call_hook(|_, _| Ok(()));
    let result = call(&instance, &mut store, fuel, &beginning).await;
    let stop = instance
        .get_global(&mut store, names::STOP)
        .and_then(|global| global.get(&mut store).i32());
    let fuel_left = fuel.and_then(|_| {
        let left = instance
            .get_global(&mut store, names::FUEL)?
            .get(&mut store)
            .i64()?;
        Some(u64::try_from(left).unwrap_or(0))
    });
    let left = match (&beginning, &result) {
        (Beginning::Initialiser(_), Ok(())) => snapshot::left(&instance, &mut store),
        _ => None,
    };
    let stop = stop.unwrap_or(names::STOP_NONE);
    let exited = exited(&store, result, stop, fuel_left, left);
    if exited.left.is_some() {
        // The host copies the memory after it has the answer; then it ends this
        // process.
        let _ = ManuallyDrop::new(store);
    }
    Ok(exited)
}

fn not_instantiated(store: &Store<State>, error: &wasmtime::Error) -> LoadError {
    let limiter = &store.data().limiter;
    match limiter.refused() {
        Some(wanted) => LoadError::Memory {
            wanted,
            limit: limiter.limit(),
        },
        None => LoadError::Instantiate(trap::message(error)),
    }
}

/// Sets what the instrumentation added, then runs what there is to run: the
/// start function, if the instrumentation has taken it out of the instantiation,
/// and `_start` or the initialiser; after a snapshot only `_start`.
async fn call(
    instance: &Instance,
    store: &mut Store<State>,
    fuel: Option<u64>,
    beginning: &Beginning,
) -> wasmtime::Result<()> {
    let functions: &[&str] = match beginning {
        Beginning::Fresh => &[names::START, START],
        Beginning::Initialiser(initialiser) => {
            &[names::INIT, names::START, initialiser.export.as_str()]
        }
        Beginning::Snapshot(_) => &[START],
    };
    // A metered module without a limit of fuel has all that there can be.
    let fuel = fuel
        .and_then(|fuel| i64::try_from(fuel).ok())
        .unwrap_or(i64::MAX);
    if let Some(global) = instance.get_global(&mut *store, names::FUEL) {
        global.set(&mut *store, Val::I64(fuel))?;
    }
    for name in functions {
        for global in [names::STOP, names::DEPTH] {
            if let Some(global) = instance.get_global(&mut *store, global) {
                global.set(&mut *store, Val::I32(0))?;
            }
        }
        if let Some(function) = instance.get_func(&mut *store, name) {
            function
                .typed::<(), ()>(&mut *store)?
                .call_async(&mut *store, ())
                .await?;
        }
    }
    Ok(())
}

fn exited(
    store: &Store<State>,
    result: wasmtime::Result<()>,
    stop: i32,
    fuel_left: Option<u64>,
    left: Option<Initialised>,
) -> Exited {
    let end = match result {
        Ok(()) => ProgramEnd::Exit(0),
        Err(error) => match (
            error.downcast_ref::<Exit>(),
            error.downcast_ref::<HostMemory>(),
        ) {
            (Some(Exit(status)), _) => ProgramEnd::Exit(*status),
            (_, Some(lack)) => ProgramEnd::Aborted(trap::cut(lack.to_string())),
            _ => ProgramEnd::Trap(trap::trap(&error, stop)),
        },
    };
    let limiter = &store.data().limiter;
    Exited {
        end,
        fuel_left,
        memory_limit_hit: limiter.refused().is_some(),
        peak_memory: limiter.peak(),
        left,
    }
}
