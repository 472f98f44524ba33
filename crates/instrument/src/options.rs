//! What to do to a module, and how large it may be.

/// What [`instrument`](crate::instrument) does to a module.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Charge fuel for every instruction.
    pub metering: bool,
    /// Limit the recursion to so many units (see [`frame_units`](crate::frame_units)).
    pub recursion_limit: Option<u32>,
    /// Prepare for a state that outlives the instance: mutable globals and memory 0 are exported,
    /// and active data segments wait for a call of [`names::INIT`](crate::names::INIT).
    pub persistent: bool,
    /// Mark each page of memory 0 before it is written.
    pub cards: Option<CardOptions>,
    /// How large the module may be.
    pub limits: Limits,
}

/// How the cards are laid out.
#[derive(Debug, Clone)]
pub struct CardOptions {
    /// The size, in bytes, beyond which memory 0 can't grow if it is a 64-bit memory. The module's
    /// declared maximum is lowered to it, because a store beyond the last card traps. A 32-bit
    /// memory needs no such limit.
    pub memory_limit: u64,
}

impl Default for CardOptions {
    fn default() -> Self {
        Self {
            memory_limit: 1 << 34,
        }
    }
}

/// How large a module may be. Each excess is a
/// [`LimitExceeded`](crate::InstrumentError::LimitExceeded) error with the value.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of the module in bytes.
    pub module_bytes: u64,
    /// Functions that the module defines.
    pub functions: u64,
    /// Types that the module declares.
    pub types: u64,
    /// Globals that the module defines.
    pub globals: u64,
    /// Exports.
    pub exports: u64,
    /// Imports.
    pub imports: u64,
    /// Parameters and locals of one function.
    pub locals: u64,
    /// Blocks that enclose one another in one function.
    pub nesting: u64,
}

impl Limits {
    /// The limits for a tenant's module, near the Internet Computer's: 100 MiB, 50,000 functions,
    /// 50,000 types, 1,000 globals, 1,000 exports and imports each. A function may have 20,000
    /// parameters and locals and 10,000 blocks that enclose one another.
    pub const fn tenant() -> Self {
        Self {
            module_bytes: 100 << 20,
            functions: 50_000,
            types: 50_000,
            globals: 1_000,
            exports: 1_000,
            imports: 1_000,
            locals: 20_000,
            nesting: 10_000,
        }
    }

    /// The limits for a program: as many functions, globals, exports and imports as engines accept
    /// (1,000,000), less what is added here.
    pub const fn program() -> Self {
        let most = 1_000_000 - 2_048;
        Self {
            functions: most,
            types: 500_000,
            globals: most,
            exports: most / 2,
            imports: most,
            ..Self::tenant()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::tenant()
    }
}
