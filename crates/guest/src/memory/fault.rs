//! The handler of SIGSEGV that opens closed chunks.
//!
//! It runs before wasmtime's (which turns faults of compiled code into traps)
//! and passes on everything that is not a write to a closed chunk of a memory
//! it watches. A read of a closed chunk can't fault, as its pages are readable;
//! so a fault of kind `SEGV_ACCERR` there is a write. It works for compiled
//! code and for host functions alike: the instruction is simply run again.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, OnceLock};

use super::MemoryError;
use super::region::Region;

/// `SEGV_ACCERR`: the page is mapped, the access is not allowed
/// (include/uapi/asm-generic/siginfo.h).
const SEGV_ACCERR: libc::c_int = 2;

/// Memories that can be watched in a process. A worker has two; tests more.
const MOST: usize = 64;

static WATCHED: [AtomicPtr<Region>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Handles writes to closed chunks of `region` until it is dropped.
pub(super) fn watch(region: &Arc<Region>) -> Result<(), MemoryError> {
    install()?;
    let pointer = Arc::as_ptr(region).cast_mut();
    let free = WATCHED.iter().any(|slot| {
        slot.compare_exchange(ptr::null_mut(), pointer, AcqRel, Relaxed)
            .is_ok()
    });
    match free {
        true => Ok(()),
        false => Err(system(
            "watching a memory (too many)",
            std::io::ErrorKind::QuotaExceeded.into(),
        )),
    }
}

/// No longer handles faults of a region.
pub(super) fn forget(region: &Region) {
    let pointer = ptr::from_ref(region).cast_mut();
    for slot in &WATCHED {
        let _ = slot.compare_exchange(pointer, ptr::null_mut(), AcqRel, Relaxed);
    }
}

fn system(step: &'static str, source: std::io::Error) -> MemoryError {
    MemoryError::System { step, source }
}

fn install() -> Result<(), MemoryError> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    match INSTALLED.get_or_init(install_once) {
        true => Ok(()),
        false => Err(system(
            "sigaction of SIGSEGV",
            std::io::ErrorKind::Other.into(),
        )),
    }
}

fn install_once() -> bool {
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action; all-zero bytes are a valid value,
    // and the kernel fills it in.
    let previous = unsafe {
        if libc::sigaction(libc::SIGSEGV, ptr::null(), previous.as_mut_ptr()) != 0 {
            return false;
        }
        previous.assume_init()
    };
    // Known before the handler can run.
    let _ = PREVIOUS.set(previous);
    // SAFETY: all-zero bytes are a valid `sigaction`; the handler has the
    // signature that SA_SIGINFO asks for and is async-signal-safe.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        action.sa_sigaction = handler as usize;
        // On the alternate stack, as wasmtime's: the guest's may be used up.
        // Not deferred, as wasmtime leaves its handler without returning.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) == 0
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo, and for
    // SIGSEGV its address field is set.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code == SEGV_ACCERR && is_write(context) && open(address) {
        return;
    }
    let Some(previous) = PREVIOUS.get() else {
        return;
    };
    // SAFETY: the action was in force before ours, so its handler has the
    // signature that its flags say, and it gets what the kernel gave us.
    unsafe {
        if previous.sa_sigaction == libc::SIG_DFL || previous.sa_sigaction == libc::SIG_IGN {
            // The instruction runs again and ends the process.
            libc::sigaction(signal, previous, ptr::null_mut());
        } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Handler>(previous.sa_sigaction)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(previous.sa_sigaction)(signal);
        }
    }
}

fn open(address: usize) -> bool {
    WATCHED.iter().any(|slot| {
        // SAFETY: a pointer in a slot is to a live region: dropping one takes
        // it out first.
        unsafe { slot.load(Acquire).as_ref() }.is_some_and(|region| region.open_at(address))
    })
}

/// Whether the fault came from a write, where the processor says so.
#[cfg(target_arch = "x86_64")]
fn is_write(context: *mut libc::c_void) -> bool {
    /// Bit 1 of the page-fault error code (`X86_PF_WRITE`, arch/x86/include/asm/trap_pf.h).
    const WRITE: libc::greg_t = 2;
    // SAFETY: with SA_SIGINFO the third argument is a valid ucontext.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_ERR as usize] & WRITE != 0
}

/// Whether the fault came from a write: see above why it must have.
#[cfg(not(target_arch = "x86_64"))]
fn is_write(_context: *mut libc::c_void) -> bool {
    true
}
