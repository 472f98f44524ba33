//! Rewrites an untrusted WebAssembly module before it is compiled, so that it can be metered,
//! limited and kept.
//!
//! [`instrument`] validates a module and adds, as [`Options`] ask:
//!
//! - *metering*: every instruction costs fuel, by a table of prices ([`costs`]) that doesn't depend
//!   on the engine;
//! - *a recursion limit*, counted where functions are entered and left ([`frame_units`]);
//! - *persistent mode*: the parts of an instance that a host has to keep are exported, and
//!   instantiation no longer writes to memory;
//! - *cards*: a byte for each page of memory that is set before the page is written.
//!
//! What is added comes after the module's own types, functions, globals, memories, data segments
//! and exports, so none of its indices changes. The names by which a host finds it are in
//! [`names`].
//!
//! The work is linear in the size of the module and doesn't recurse, whatever its nesting.
//!
//! # Calling a rewritten module
//!
//! Before each call from outside, set [`names::FUEL`] to the fuel to spend, [`names::STOP`] and
//! [`names::DEPTH`] to 0. After a trap, [`names::STOP`] says whether the fuel or the recursion limit
//! caused it. A host function may charge by lowering [`names::FUEL`].
//!
//! The added code is not part of the module's price, and neither is [`names::INIT`].

mod added;
mod cards;
pub mod costs;
mod error;
mod metering;
mod module;
mod name_section;
pub mod names;
mod options;
mod persistent;
mod plan;
mod recursion;
mod report;
mod rewrite;
mod validate;

pub use cards::CARD_BYTES_LOG2;
pub use costs::METERING_VERSION;
pub use error::InstrumentError;
pub use module::instrument;
pub use options::{CardOptions, Limits, Options};
pub use recursion::{RECURSION_LIMIT, RECURSION_VERSION, frame_units};
pub use report::{CardReport, Instrumented, MemoryReport, Report};
pub use validate::FEATURES;
pub use wasmparser::ValType;
