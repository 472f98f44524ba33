//! The supervisor's side of a filter: what a worker tried that it may not, and
//! what can be seen of it while it is stopped there (seccomp_unotify(2)).
//!
//! # Order of evidence
//!
//! 1. The notification ([`Listener::receive`]) and `/proc/PID/syscall`, which
//!    say the same from two sides.
//! 2. Mappings, while the worker stands still in the kernel.
//! 3. Registers and stack, by ptrace(2) where that is permitted. To stop for a
//!    tracer the worker leaves the call, which is cancelled by that and would
//!    begin again.
//! 4. SIGKILL. The call is never answered, and so never goes on.
//!
//! Should the supervisor die in between, its listener closes and the call
//! fails with ENOSYS: it doesn't happen then either, and the worker is ended
//! with its launcher.

mod listener;
mod registers;
mod stopped;

pub use listener::{ForbiddenCall, Listener, NotAListener, Notification};
pub use registers::Registers;
pub use stopped::{Stopped, read_memory, stopped_in, system_call_of};
