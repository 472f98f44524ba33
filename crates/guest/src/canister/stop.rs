//! Why a system call stops the guest.

use lazaret_wire::message::{Outcome, Trap, TrapKind};
use thiserror::Error;

use crate::memory::Lack;
use crate::trap::{self, cut};

/// Why a system call stops the guest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Stop {
    /// `ic0.trap`, in the guest's words.
    #[error("{0}")]
    Explicit(String),
    /// The call isn't allowed here, or not with these arguments.
    #[error("{0}")]
    Contract(String),
    /// A pointer and a length that lie beyond a memory.
    #[error("{module}.{name}: {length} bytes at {at} are beyond the {what} of {size} bytes")]
    OutOfBounds {
        /// The module of the import.
        module: &'static str,
        /// The import.
        name: &'static str,
        /// What they are beyond.
        what: &'static str,
        /// The address or offset.
        at: u64,
        /// The length.
        length: u64,
        /// Bytes that there are.
        size: u64,
    },
    /// The fuel is used up.
    #[error("the fuel is used up")]
    Fuel,
    /// A function of the embedder failed.
    #[error("host.{name}: {message}")]
    HostFunction {
        /// Its name.
        name: &'static str,
        /// In its words.
        message: String,
    },
    /// The host lacks something: an abort.
    #[error(transparent)]
    Lack(#[from] Lack),
    /// The node's memory budget is used up: an abort.
    #[error("the node's memory budget has no room for {bytes} bytes more")]
    NodeMemory {
        /// By how many bytes the tenant wanted to grow.
        bytes: u64,
    },
    /// The engine lacks memory for a table: an abort.
    #[error("the host has no memory for a larger table: {0}")]
    Table(String),
}

/// The outcome of a call that ended with `error`. `stopped` is the module's own
/// note of why it stopped ([`lazaret_instrument::names::STOP`]).
pub(super) fn outcome(error: &wasmtime::Error, stopped: i32) -> Outcome {
    let kind = match error.downcast_ref::<Stop>() {
        None => {
            if let Some(wasmtime::Trap::StackOverflow) = error.downcast_ref() {
                // The recursion limit comes first, by the size of the stack; a
                // native overflow depends on the compiler and is no outcome.
                return Outcome::Aborted(
                    "the native stack is too small for this module".to_owned(),
                );
            }
            return Outcome::Trap(trap::trap(error, stopped));
        }
        Some(stop @ (Stop::Lack(_) | Stop::NodeMemory { .. } | Stop::Table(_))) => {
            return Outcome::Aborted(cut(stop.to_string()));
        }
        Some(Stop::Explicit(_)) => TrapKind::Explicit,
        Some(Stop::Contract(_)) => TrapKind::Contract,
        Some(Stop::OutOfBounds { .. }) => TrapKind::MemoryOutOfBounds,
        Some(Stop::Fuel) => TrapKind::Fuel,
        Some(Stop::HostFunction { .. }) => TrapKind::Other,
    };
    let message = error
        .downcast_ref::<Stop>()
        .map(ToString::to_string)
        .unwrap_or_default();
    Outcome::Trap(Trap {
        kind,
        message: cut(message),
        backtrace: trap::backtrace(error),
    })
}
