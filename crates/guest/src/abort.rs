//! Aborts: the worker ends itself, and says why first.
//!
//! An abort is nobody's verdict on the guest (a trap is), and it must never be
//! taken for a break-out. But pid 1 of a PID namespace ignores its own
//! SIGABRT, and `abort(3)` calls `tgkill`, which the filter forbids. So the
//! reason goes to the last words in shared memory, and then the process
//! executes a breakpoint. Not an illegal instruction: the engine handles
//! SIGILL, and for one that is not the guest's it restores the default action,
//! by a system call that a locked worker dies of (wasmtime 48,
//! `delegate_signal_to_previous_handler`).

use std::fmt::Write;
use std::sync::OnceLock;

use lazaret_wire::Shared;

/// Why a worker ended itself. The number is what crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Reason {
    /// A panic in the worker's own code.
    Panic = 1,
    /// The allocator has nothing left.
    OutOfMemory = 2,
    /// The native stack overflowed.
    StackOverflow = 3,
    /// The host's request made no sense.
    Wire = 4,
    /// A signal that no guest can cause.
    Signal = 5,
    /// Somebody touched a canary page beside the shared memory.
    Canary = 6,
}

impl Reason {
    /// The reason with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        [
            Self::Panic,
            Self::OutOfMemory,
            Self::StackOverflow,
            Self::Wire,
            Self::Signal,
            Self::Canary,
        ]
        .into_iter()
        .find(|reason| *reason as u32 == number)
    }
}

static SHARED: OnceLock<&'static Shared> = OnceLock::new();

/// From now on, the reasons of aborts go to `shared`: sets the panic hook.
/// The allocation-error path panics or aborts through [`now`] too.
pub fn arm(shared: &'static Shared) {
    let _ = SHARED.set(shared);
    std::panic::set_hook(Box::new(|info| {
        let text = info
            .payload()
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        match info.location() {
            Some(at) => now(
                Reason::Panic,
                &format!("{text} ({}:{})", at.file(), at.line()),
            ),
            None => now(Reason::Panic, text),
        }
    }));
}

/// Whether this process is a worker that can say why it ends.
pub fn is_armed() -> bool {
    SHARED.get().is_some()
}

/// Handles faults that are no guest's doing: the last handler of the chain, so
/// it must be installed before the engine's, which hands on what it doesn't
/// know. A fault near the
/// stack pointer is an overflow of the native stack.
///
/// # Errors
/// If the kernel refuses a handler.
pub fn arm_signals() -> std::io::Result<()> {
    for (signal, _) in FAULTS {
        // SAFETY: all-zero bytes are a valid `sigaction`; the handler has the
        // signature that SA_SIGINFO asks for and makes no call that is not
        // async-signal-safe. The main thread has an alternate stack from
        // Rust's start-up code.
        let done = unsafe {
            let mut action = std::mem::zeroed::<libc::sigaction>();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                last_resort;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(*signal, &action, std::ptr::null_mut())
        };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What the processor raises for an instruction that can't be executed.
const FAULTS: &[(libc::c_int, &str)] = &[
    (libc::SIGSEGV, "SIGSEGV in the worker's own code"),
    (libc::SIGBUS, "SIGBUS in the worker's own code"),
    (libc::SIGILL, "SIGILL in the worker's own code"),
    (libc::SIGFPE, "SIGFPE in the worker's own code"),
];

/// Bytes around the stack pointer within which a fault counts as an overflow.
const NEAR_STACK: usize = 64 << 10;

extern "C" fn last_resort(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo and ucontext.
    let (address, (at, stack)) = unsafe { ((*info).si_addr() as usize, pointers(context)) };
    if signal == libc::SIGSEGV && stack != 0 && address.abs_diff(stack) < NEAR_STACK {
        now(Reason::StackOverflow, "the native stack is used up");
    }
    let text = FAULTS
        .iter()
        .find(|(fault, _)| *fault == signal)
        .map_or("a signal", |(_, text)| text);
    let mut words = Words::default();
    // Formatting numbers takes no memory; too long a text is cut.
    let _ = write!(
        words,
        "{text}, address {address:#x}, by the code at {at:#x}"
    );
    let canary = SHARED.get().is_some_and(|shared| shared.is_canary(address));
    now(
        match canary {
            true => Reason::Canary,
            false => Reason::Signal,
        },
        words.text(),
    )
}

/// Text in a buffer of its own: a handler can't allocate.
struct Words {
    bytes: [u8; 160],
    length: usize,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            bytes: [0; 160],
            length: 0,
        }
    }
}

impl Words {
    fn text(&self) -> &str {
        let written = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(written).unwrap_or("a signal")
    }
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let room = room.get_mut(..text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Program counter and stack pointer.
///
/// # Safety
/// `context` is what the kernel passed to a handler.
unsafe fn pointers(context: *mut libc::c_void) -> (usize, usize) {
    // SAFETY: the caller's promise.
    let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    return (
        machine.gregs[libc::REG_RIP as usize] as usize,
        machine.gregs[libc::REG_RSP as usize] as usize,
    );
    #[cfg(target_arch = "aarch64")]
    return (machine.pc as usize, machine.sp as usize);
}

/// Ends this process, with its reason in the last words. Async-signal-safe.
pub fn now(reason: Reason, text: &str) -> ! {
    if let Some(shared) = SHARED.get() {
        shared.put_last_words(reason as u32, text.as_bytes());
    }
    breakpoint()
}

/// Executes a breakpoint. Nobody handles SIGTRAP, and the kernel forces it, so
/// the process ends even as pid 1 of its namespace (`force_sig_info_to_task`,
/// kernel: `kernel/signal.c`).
pub fn breakpoint() -> ! {
    loop {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `int3` raises #BP and has no other effect.
        unsafe {
            std::arch::asm!("int3", options(nomem, nostack))
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: `brk` raises a breakpoint exception and has no other effect.
        unsafe {
            std::arch::asm!("brk #0", options(nomem, nostack))
        }
    }
}
