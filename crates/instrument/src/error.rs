//! Why a module was refused.

use wasmparser::ValType;

/// Why a module was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstrumentError {
    /// The bytes don't start with the WebAssembly magic number.
    #[error("not a WebAssembly module: it starts with {found:02x?} instead of [00, 61, 73, 6d]")]
    NotWasm {
        /// Its first bytes, four at most.
        found: Vec<u8>,
    },
    /// The bytes are a component.
    #[error(
        "this is a WebAssembly component, and only core modules run yet; compile the program to a core module"
    )]
    Component,
    /// The module is malformed, truncated, invalid, or uses a feature that isn't supported.
    #[error("invalid WebAssembly module: {message} (at byte {offset:#x})")]
    Invalid {
        /// What is wrong, in the validator's words.
        message: String,
        /// Where in the module.
        offset: usize,
    },
    /// The module is larger than allowed.
    #[error(
        "the module has {value} {what}, more than the limit of {limit}; reduce them or raise the limit"
    )]
    LimitExceeded {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// The module uses a name that is reserved for what is added here.
    #[error(
        "the module's {kind} \"{name}\" has a reserved name: names that start with \"lazaret:\" belong to the runtime; rename it"
    )]
    ReservedName {
        /// `import` or `export`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A mutable global can't outlive its instance.
    #[error(
        "global {index} is mutable and of type {ty}, which can't be kept between calls: only numbers and vectors can; make it immutable or keep the reference in a table"
    )]
    ReferenceGlobal {
        /// Index of the global.
        index: u32,
        /// Its type.
        ty: ValType,
    },
    /// Persistent mode needs exactly one memory of the module's own.
    #[error(
        "the module defines {defined} memories and imports {imported}, but a module with persistent state must define exactly one and import none"
    )]
    MemoryCount {
        /// Memories that it defines.
        defined: u32,
        /// Memories that it imports.
        imported: u32,
    },
    /// Cards were asked for, but there is no memory of the module's own to track.
    #[error("the writes to memory 0 can't be tracked: the module {reason}")]
    NoMemoryToTrack {
        /// What stands in the way.
        reason: &'static str,
    },
    /// Memory 0 starts out larger than the cards can cover.
    #[error(
        "memory 0 starts with {minimum} pages of 64 KiB, more than the {limit} whose writes can be tracked; raise the memory limit"
    )]
    CardLimit {
        /// Its minimum, in pages of 64 KiB.
        minimum: u64,
        /// How many the cards cover.
        limit: u64,
    },
    /// A function became larger than engines accept.
    #[error(
        "function {function} has {size} bytes after the rewriting, more than the {limit} that engines accept; split it into smaller functions"
    )]
    FunctionTooLarge {
        /// Index of the function.
        function: u32,
        /// Its size in bytes.
        size: u64,
        /// The largest size.
        limit: u64,
    },
    /// An instruction of the module has no price. Validation rules this out.
    #[error("the instruction at byte {offset:#x} has no price: {operator}")]
    UnknownInstruction {
        /// The instruction.
        operator: String,
        /// Where in the module.
        offset: usize,
    },
}

impl From<wasmparser::Error> for InstrumentError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid {
            message: error.message().to_string(),
            offset: error.offset(),
        }
    }
}
