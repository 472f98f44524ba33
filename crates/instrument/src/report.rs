//! What was found in a module and done to it.

use crate::costs::METERING_VERSION;
use crate::recursion::RECURSION_VERSION;
use wasmparser::ValType;

/// A rewritten module.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Instrumented {
    /// The rewritten module, in the binary format.
    pub wasm: Vec<u8>,
    /// What was found in the module and done to it.
    pub report: Report,
}

/// What was found in a module and done to it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// In persistent mode, the types of the mutable globals: number `n` is exported under
    /// [`names::global_export`](crate::names::global_export)`(n)`. Only `i32`, `i64`, `f32`, `f64`
    /// and `v128`. Else empty.
    pub globals: Vec<ValType>,
    /// Nothing but memory 0 and mutable globals can differ between an instance that has run and a
    /// fresh one, so that an instance may be kept if those are put back.
    pub reusable_instance: bool,
    /// The first instruction in the module by which an instance that has run differs from a fresh
    /// one, other than in memories and globals, if there is one: `table.set`, `elem.drop` and so on.
    /// [`reusable_instance`](Self::reusable_instance) is false then, but may also be for what the
    /// module imports or has several of.
    pub changes_instance: Option<&'static str>,
    /// The module had a start function. If metering or persistent mode is on, it no longer runs at
    /// instantiation: the host calls [`names::START`](crate::names::START).
    pub has_start: bool,
    /// Memory 0, if there is one.
    pub memory: Option<MemoryReport>,
    /// The memory of the cards, if asked for.
    pub cards: Option<CardReport>,
    /// Functions that the module defined, without those added.
    pub functions: u32,
    /// Instructions that the module contained, without those added.
    pub instructions: u64,
    /// [`METERING_VERSION`], if metering is on.
    pub metering_version: Option<u32>,
    /// [`RECURSION_VERSION`], if the recursion is limited.
    pub recursion_version: Option<u32>,
}

impl Report {
    pub(crate) fn set_versions(&mut self, metering: bool, recursion: bool) {
        self.metering_version = metering.then_some(METERING_VERSION);
        self.recursion_version = recursion.then_some(RECURSION_VERSION);
    }
}

/// A module's memory 0, as the rewritten module declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Size at instantiation, in pages of 64 KiB.
    pub minimum: u64,
    /// Size to which it may grow, in pages of 64 KiB.
    pub maximum: Option<u64>,
    /// Addresses have 64 bits.
    pub memory64: bool,
    /// It is imported.
    pub imported: bool,
}

/// The memory of the cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CardReport {
    /// Its index among the module's memories.
    pub memory: u32,
    /// Its fixed size in pages of 64 KiB, each with the cards of 256 MiB of memory 0.
    pub pages: u64,
}
