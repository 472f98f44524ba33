//! Snapshots: a program's state taken out of one instance and put into another.
//!
//! The state is memory 0 and the mutable globals, as the compiler refuses, for
//! a snapshot, modules that can change anything else. An initialiser runs in a
//! worker of its own; the host copies what it left out of that worker, and hands
//! it to later ones in a file that nobody changes, which they map privately: a page costs
//! something when it is first used, and nothing if it isn't.

use std::os::fd::{AsFd, OwnedFd};

use lazaret_instrument::names;
use lazaret_wire::layout::PAGE;
use lazaret_wire::message::{Beginning, Initialised, PageRun, Snapshot};
use rustix::mm::{MapFlags, ProtFlags};
use wasmtime::{ExternType, FuncType, Instance, Linker, Memory, Module, Store};

use super::error::LoadError;
use super::execution::START;
use super::imports::{HOST, WASI};
use super::state::State;
use crate::{global, trap};

const WASM_PAGE: u64 = 64 << 10;

/// What an initialiser may call of WASI without being allowed all of it: what
/// tells it nothing of the outside.
const ALWAYS: [&str; 3] = ["fd_write", "proc_exit", "sched_yield"];

/// A call that an initialiser may not make.
#[derive(Debug, thiserror::Error)]
enum Denied {
    /// A function of the embedder's.
    #[error(
        "`{HOST}.{0}` can't be called here: functions of the host are for what runs after the snapshot"
    )]
    Host(String),
    /// WASI.
    #[error(
        "`{0}` of WASI can't be called here: what it gives may differ each time, and the snapshot would keep it for all runs; if that does no harm, allow it with --snapshot-allow-wasi"
    )]
    Wasi(String),
}

/// Whether a function can be an initialiser or an entry point.
pub(super) fn is_entry(ty: &FuncType) -> bool {
    ty.params().len() == 0 && ty.results().len() == 0
}

/// What can be said of a module's initialiser or snapshot before it is linked.
pub(super) fn check(module: &Module, beginning: &Beginning) -> Result<(), LoadError> {
    if *beginning == Beginning::Fresh {
        return Ok(());
    }
    if module.get_export(names::INIT).is_none() {
        return Err(LoadError::Snapshot(
            "the module was compiled without it".to_owned(),
        ));
    }
    let Beginning::Initialiser(initialiser) = beginning else {
        return Ok(());
    };
    let name = initialiser.export.as_str();
    let problem = match module.get_export(name) {
        _ if name.starts_with(names::PREFIX) => "is not exported",
        _ if name == START => "is the program itself",
        Some(ExternType::Func(ty)) if is_entry(&ty) => return Ok(()),
        Some(ExternType::Func(_)) => "has parameters or results",
        Some(_) => "is no function",
        None => "is not exported",
    };
    let others = module
        .exports()
        .filter(|export| {
            export.name() != START
                && !export.name().starts_with(names::PREFIX)
                && matches!(export.ty(), ExternType::Func(ty) if is_entry(&ty))
        })
        .map(|export| format!("`{}`", export.name()))
        .collect();
    Err(LoadError::Initialiser {
        name: name.to_owned(),
        problem,
        others,
    })
}

/// Takes away, for an initialiser, what depends on the outside.
pub(super) fn restrict(
    linker: &mut Linker<State>,
    module: &Module,
    beginning: &Beginning,
) -> wasmtime::Result<()> {
    let Beginning::Initialiser(initialiser) = beginning else {
        return Ok(());
    };
    linker.allow_shadowing(true);
    for import in module.imports() {
        let name = import.name().to_owned();
        let denied: fn(String) -> Denied = match import.module() {
            WASI if initialiser.allow_wasi || ALWAYS.contains(&import.name()) => continue,
            WASI => Denied::Wasi,
            _ => Denied::Host,
        };
        // Of the type that the module wants: when it runs, it is linked with
        // the real ones.
        if let ExternType::Func(ty) = import.ty() {
            linker.func_new(import.module(), import.name(), ty, move |_, _, _| {
                Err(denied(name.clone()).into())
            })?;
        }
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// What is in `instance` now, and where. It must stay where it is until the
/// host has copied it.
pub(super) fn left(instance: &Instance, store: &mut Store<State>) -> Option<Initialised> {
    let memory = instance.get_memory(&mut *store, names::MEMORY)?;
    let mut globals = Vec::new();
    while let Some(found) = instance.get_global(&mut *store, &names::global_export(globals.len())) {
        globals.push(global::value(&found.get(&mut *store))?);
    }
    Some(Initialised {
        memory_at: memory.data_ptr(&*store) as u64,
        memory: memory.data_size(&*store) as u64,
        globals,
    })
}

/// Puts a snapshot into a fresh instance, none of whose code has run.
pub(super) fn restore(
    instance: &Instance,
    store: &mut Store<State>,
    snapshot: &Snapshot,
    pages: OwnedFd,
) -> Result<(), LoadError> {
    let refused = |what: &str| LoadError::Snapshot(what.to_owned());
    for (position, value) in snapshot.globals.iter().enumerate() {
        instance
            .get_global(&mut *store, &names::global_export(position))
            .ok_or_else(|| refused("it has more globals"))?
            .set(&mut *store, global::val(value))
            .map_err(|error| LoadError::Snapshot(trap::message(&error)))?;
    }
    let next = names::global_export(snapshot.globals.len());
    if instance.get_global(&mut *store, &next).is_some() {
        return Err(refused("it has fewer globals"));
    }
    let memory = instance
        .get_memory(&mut *store, names::MEMORY)
        .ok_or_else(|| refused("there is no memory"))?;
    grow(&memory, store, snapshot.memory)?;
    map(&memory, store, &snapshot.runs, pages)
}

/// Gives the memory the snapshot's size.
fn grow(memory: &Memory, store: &mut Store<State>, size: u64) -> Result<(), LoadError> {
    let more = size
        .checked_sub(memory.data_size(&*store) as u64)
        .filter(|more| more.is_multiple_of(WASM_PAGE))
        .ok_or_else(|| LoadError::Snapshot(format!("no memory of this module has {size} bytes")))?;
    if more == 0 {
        return Ok(());
    }
    match memory.grow(&mut *store, more / WASM_PAGE) {
        Ok(_) => Ok(()),
        Err(error) => {
            let limiter = &store.data().limiter;
            Err(match limiter.refused() {
                Some(wanted) => LoadError::Memory {
                    wanted,
                    limit: limiter.limit(),
                },
                None => LoadError::Snapshot(trap::message(&error)),
            })
        }
    }
}

/// Maps the snapshot's pages over those of the memory, which are zeros.
fn map(
    memory: &Memory,
    store: &mut Store<State>,
    runs: &[PageRun],
    file: OwnedFd,
) -> Result<(), LoadError> {
    let refused = |what: &str| LoadError::Snapshot(what.to_owned());
    let system = |step: &str, errno: rustix::io::Errno| {
        LoadError::Snapshot(format!("{step}: {}", std::io::Error::from(errno)))
    };
    let size = memory.data_size(&*store);
    let base = memory.data_ptr(&*store);
    if !(base as usize).is_multiple_of(PAGE) {
        return Err(refused("the engine's memory doesn't begin at a page"));
    }
    let length = rustix::fs::fstat(&file)
        .map_err(|errno| system("fstat of its pages", errno))?
        .st_size as u64;
    let bytes = |pages: u64| pages.checked_mul(PAGE as u64);
    let mut offset = 0;
    for run in runs {
        let place = bytes(run.first).zip(bytes(run.pages));
        let fits = place.filter(|&(at, bytes)| {
            let below =
                |end: u64| move |from: u64| from.checked_add(bytes).is_some_and(|to| to <= end);
            // Beyond its file a mapping raises SIGBUS.
            bytes > 0 && below(size as u64)(at) && below(length)(offset)
        });
        let (at, bytes) = fits.ok_or_else(|| refused("a run of its pages doesn't fit"))?;
        // SAFETY: at..at + bytes is below the memory's size (checked), so the
        // pages belong to its mapping and are readable and writable, as the new
        // ones are. `store` is borrowed exclusively and no guest code has run,
        // so nothing refers to what is replaced. Nobody changes the file
        // (the host's cache, or sealed), and the mapping is private.
        let mapped = unsafe {
            rustix::mm::mmap(
                base.add(at as usize).cast(),
                bytes as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                file.as_fd(),
                offset,
            )
        };
        mapped.map_err(|errno| system("mmap of its pages", errno))?;
        offset += bytes;
    }
    Ok(())
}
