//! The engine: the same settings for compiling and for running, as an artefact
//! only loads into an engine that is set up like the one that made it.
//!
//! Nothing here starts a thread or opens a file (wasmtime 48): cranelift
//! compiles in the calling thread, as wasmtime's `parallel-compilation` feature is off; there
//! is no cache, no profiler, no pooling allocator (it opens
//! `/proc/self/pagemap`), and data segments are copied rather than mapped
//! (`memory_init_cow` makes a memfd for each module). What the first call on a
//! thread does lazily, an alternate signal stack, is done by [`prepare_thread`].

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use lazaret_wire::layout::PAGE;
use lazaret_wire::message::Purpose;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use wasmtime::{Config, CustomCodeMemory, Engine, Module, WasmBacktraceDetails};
#[cfg(feature = "compiler")]
use wasmtime::{OptLevel, Strategy};

use crate::memory::HeapCreator;

/// Bytes of native stack that a worker must have: the launcher sets
/// `RLIMIT_STACK` to this before exec, as the kernel fixes the room for the
/// main thread's stack then (`mmap_base`, arch/x86/mm/mmap.c).
///
/// It is sized so that the recursion limit of 10,000 units comes first. A unit
/// covers at most 4,096 instructions; to keep a value of 16 bytes alive across
/// a call the compiler needs four of them at least (two that compute it, two
/// that use it on either side), so a unit takes at most 16 KiB, all of them 160
/// MiB. Functions made to be bad took 2.1 KiB a unit (cranelift 0.135 at
/// `speed`), ordinary ones well under 100 bytes.
pub const NATIVE_STACK: u64 = 256 << 20;

/// Bytes of it that Wasm may use; the rest is for the host functions it calls.
pub const WASM_STACK: u64 = NATIVE_STACK - (16 << 20);

/// Bytes of address space for a 32-bit memory: with these and [`GUARD`], every
/// address that 32 bits can reach is either memory or a fault, so compiled code
/// needs no bounds checks.
pub const RESERVATION: u64 = 4 << 30;

/// Bytes without access after each memory. Compiled code relies on them for
/// the constant offsets of loads and stores up to this size.
pub const GUARD: u64 = 32 << 20;

/// The most Wasm frames in a backtrace.
pub const MAX_FRAMES: usize = 64;

/// The engine that compiles for a purpose.
///
/// # Errors
/// If the processor lacks what the compiler needs, or settings contradict one
/// another.
#[cfg(feature = "compiler")]
pub fn compiling(purpose: Purpose) -> wasmtime::Result<Engine> {
    let mut config = config(purpose);
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Results must not depend on the processor (a tenant's contract).
        .cranelift_nan_canonicalization(true);
    Engine::new(&config)
}

/// The engine that runs what `compiling` has compiled for the same purpose,
/// and can't compile: a worker with guest code in it never sets a compiler up. An
/// artefact tells what its code needs of the processor, and is refused where that is
/// missing.
///
/// # Errors
/// If settings contradict one another.
pub fn running(purpose: Purpose) -> wasmtime::Result<Engine> {
    #[cfg_attr(not(feature = "compiler"), expect(unused_mut))]
    let mut config = config(purpose);
    #[cfg(feature = "compiler")]
    config.enable_compiler(false);
    Engine::new(&config)
}

fn config(purpose: Purpose) -> Config {
    let mut config = Config::new();
    config
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        // What lazaret-instrument accepts (its FEATURES), and nothing else. Threads
        // are not even compiled in (wasmtime's `threads` feature).
        .wasm_bulk_memory(true)
        .wasm_simd(true)
        .wasm_reference_types(true)
        .wasm_multi_value(true)
        .wasm_tail_call(true)
        .wasm_memory64(true)
        .wasm_multi_memory(true)
        .wasm_extended_const(true)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_function_references(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        // Fuel is injected by lazaret-instrument; time limits are signals.
        .consume_fuel(false)
        .epoch_interruption(false)
        .signals_based_traps(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(MAX_FRAMES))
        // Nobody unwinds through guest code but by its frame pointers. Without tables for
        // that CPython's artefact is smaller by 3 %, and none have to be registered where
        // it is loaded, for which libgcc reads them all since GCC 13 (`get_pc_range`,
        // libgcc/unwind-dw2-fde.c).
        .native_unwind_info(false)
        .memory_reservation(RESERVATION)
        .memory_guard_size(GUARD)
        .guard_before_linear_memory(false)
        .memory_init_cow(false)
        .with_custom_code_memory(Some(Arc::new(Code)))
        .max_wasm_stack(WASM_STACK as usize)
        // Only programs run on a stack of wasmtime's; its pages cost nothing
        // until they are used.
        .async_stack_size(NATIVE_STACK as usize);
    if purpose == Purpose::Tenant {
        config
            .memory_may_move(false)
            .with_host_memory(Arc::new(HeapCreator));
    }
    config
}

/// Does now what wasmtime would do at a thread's first call: it gives the
/// thread a larger alternate signal stack, by system calls that are forbidden
/// after the lock.
pub fn prepare_thread() {
    Engine::tls_eager_initialize();
}

/// Loads an artefact: maps the file privately. Unlike wasmtime's own loader it
/// keeps no descriptor of it. The mapping is never taken back: a worker has
/// one module for its life.
///
/// # Safety
/// The artefact must come from [`crate::compiler`], and its file must never
/// change (it is sealed, or one of the host's cache, which are never written again).
pub unsafe fn load(engine: &Engine, artefact: BorrowedFd<'_>) -> wasmtime::Result<Module> {
    let length = usize::try_from(rustix::fs::fstat(artefact)?.st_size)?;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let at = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ,
            MapFlags::PRIVATE,
            artefact,
            0,
        )?
    };
    let at =
        NonNull::new(at.cast::<u8>()).ok_or_else(|| wasmtime::Error::msg("mmap gave address 0"))?;
    // SAFETY: as many bytes are mapped, stay so, and don't change (the
    // caller's promise, and the mapping is private and read-only).
    unsafe { Module::deserialize_raw(engine, NonNull::slice_from_raw_parts(at, length)) }
}

/// Makes compiled code executable where it is mapped.
struct Code;

impl Code {
    fn protect(at: *const u8, length: usize, flags: MprotectFlags) -> wasmtime::Result<()> {
        // SAFETY: the engine passes the text section of an artefact it has
        // loaded, which begins at a page (`required_alignment`); only its
        // protection changes, between readable and executable.
        unsafe { rustix::mm::mprotect(at.cast_mut().cast(), length, flags)? };
        Ok(())
    }
}

impl CustomCodeMemory for Code {
    fn required_alignment(&self) -> usize {
        PAGE
    }

    fn publish_executable(&self, at: *const u8, length: usize) -> wasmtime::Result<()> {
        Self::protect(at, length, MprotectFlags::READ | MprotectFlags::EXEC)
    }

    fn unpublish_executable(&self, at: *const u8, length: usize) -> wasmtime::Result<()> {
        Self::protect(at, length, MprotectFlags::READ)
    }
}
