//! What a program may import, and where it comes from.

use lazaret_wire::message::ProvidedFunction;
use wasmtime::{Caller, Engine, Extern, Linker};
use wasmtime_wasi::p1;

use super::state::State;
use super::{host_function, poll};

/// The module name of WASI preview 1.
pub const WASI: &str = "wasi_snapshot_preview1";

/// The module name of host functions.
pub const HOST: &str = "host";

/// The functions of WASI preview 1 (`wasi_snapshot_preview1.witx`), all of
/// which a program may import. Those of sockets fail: no socket is ever given.
pub const FUNCTIONS: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// Whether a program may import this function whatever it was given. Host
/// functions are not among these: they are provided by name.
pub fn provided(module: &str, name: &str) -> bool {
    module == WASI && FUNCTIONS.binary_search(&name).is_ok()
}

/// `proc_exit`, as an error that ends the call.
#[derive(Debug, thiserror::Error)]
#[error("the program exits with status {0}")]
pub(super) struct Exit(pub(super) u32);

/// A linker with everything that a program is given.
pub(super) fn linker(
    engine: &Engine,
    host_functions: &[ProvidedFunction],
) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?;
    // What the engine's own version does otherwise: see each.
    linker.allow_shadowing(true);
    poll::add_to_linker(&mut linker)?;
    // Any status: the engine's turns 126 and more into a trap.
    linker.func_wrap(WASI, "proc_exit", |status: i32| -> wasmtime::Result<()> {
        Err(Exit(status.cast_unsigned()).into())
    })?;
    // From the kernel each time: the engine's generator is seeded once.
    linker.func_wrap(WASI, "random_get", random_get)?;
    linker.allow_shadowing(false);
    for (number, provided) in host_functions.iter().enumerate() {
        host_function::add_to_linker(&mut linker, number, provided)?;
    }
    Ok(linker)
}

/// Errors of WASI preview 1 (`typenames.witx`, `errno`).
pub(super) mod errno {
    pub(crate) const SUCCESS: u16 = 0;
    pub(crate) const BADF: u16 = 8;
    pub(crate) const FAULT: u16 = 21;
    pub(crate) const INVAL: u16 = 28;
    pub(crate) const IO: u16 = 29;
}

/// The bytes of the guest's memory at `at`, if there are that many.
pub(super) fn slice(memory: &mut [u8], at: u32, length: u32) -> Option<&mut [u8]> {
    let at = usize::try_from(at).ok()?;
    memory.get_mut(at..at.checked_add(usize::try_from(length).ok()?)?)
}

/// The memory that the caller exports, which WASI's pointers point to.
pub(super) fn memory(caller: &mut Caller<'_, State>) -> wasmtime::Result<wasmtime::Memory> {
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => Err(wasmtime::Error::msg(
            "the module exports no memory named `memory`, which its imports need",
        )),
    }
}

fn random_get(mut caller: Caller<'_, State>, at: i32, length: i32) -> wasmtime::Result<i32> {
    let memory = memory(&mut caller)?;
    let Some(mut left) = slice(
        memory.data_mut(&mut caller),
        at.cast_unsigned(),
        length.cast_unsigned(),
    ) else {
        return Ok(errno::FAULT.into());
    };
    while !left.is_empty() {
        match rustix::rand::getrandom(&mut *left, rustix::rand::GetRandomFlags::empty()) {
            Ok(got) => left = left.get_mut(got..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Ok(errno::IO.into()),
        }
    }
    Ok(errno::SUCCESS.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_what_the_engine_has() {
        let engine = Engine::default();
        let mut linker: Linker<p1::WasiP1Ctx> = Linker::new(&engine);
        p1::add_to_linker_async(&mut linker, |context| context).unwrap();
        let mut store =
            wasmtime::Store::new(&engine, wasmtime_wasi::WasiCtxBuilder::new().build_p1());
        let mut names: Vec<String> = linker
            .iter(&mut store)
            .map(|(module, name, _)| format!("{module}.{name}"))
            .collect();
        names.sort();
        assert_eq!(names, FUNCTIONS.map(|name| format!("{WASI}.{name}")));
        assert!(FUNCTIONS.iter().all(|name| provided(WASI, name)));
        assert!(
            !provided("wasi_unstable", "fd_write")
                && !provided(WASI, "fd_writ")
                && !provided("env", "fd_write")
        );
    }
}
