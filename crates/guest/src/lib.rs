//! What runs inside a Lazaret worker: engine, memory, guest interfaces.
#![deny(missing_docs)]

pub mod abort;
pub mod allocator;
pub mod canister;
#[cfg(feature = "compiler")]
pub mod compiler;
pub mod contract;
pub mod engine;
pub mod exchange;
mod global;
pub mod memory;
pub mod program;
pub mod start;
pub mod trap;
