//! What is running: decides which system calls are allowed.

use std::fmt;

/// One context of the Internet Computer's interface specification ("Overview
/// of imports"). Those of outgoing calls (`Ry`, `Rt`, `C`), of
/// `canister_inspect_message` (`F`) and of heartbeats and timers (`T`) don't
/// occur here yet, so what is allowed only there is never allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Context {
    /// `s`: the module's start function.
    Start = 1,
    /// `I`: `canister_init` or `canister_post_upgrade`.
    Init = 2,
    /// `G`: `canister_pre_upgrade`.
    PreUpgrade = 4,
    /// `U`: an update.
    Update = 8,
    /// `RQ`: a query method called as an update.
    ReplicatedQuery = 16,
    /// `NRQ`: a query.
    Query = 32,
    /// `CQ`: a composite query.
    CompositeQuery = 64,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "the start function",
            Self::Init => "canister_init or canister_post_upgrade",
            Self::PreUpgrade => "canister_pre_upgrade",
            Self::Update => "an update",
            Self::ReplicatedQuery => "a query called as an update",
            Self::Query => "a query",
            Self::CompositeQuery => "a composite query",
        })
    }
}

/// A set of contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contexts(u8);

impl Contexts {
    /// `* s`: everywhere.
    pub const ALL: Self = Self(127);
    /// `*`: everywhere but in the start function.
    pub const NOT_START: Self = Self(126);
    /// Nowhere, as yet.
    pub const NONE: Self = Self(0);

    /// The set of these.
    pub const fn of(contexts: &[Context]) -> Self {
        let mut bits = 0;
        let mut rest = contexts;
        while let Some((first, others)) = rest.split_first() {
            bits |= *first as u8;
            rest = others;
        }
        Self(bits)
    }

    /// Whether the set has this one.
    pub const fn contains(self, context: Context) -> bool {
        self.0 & context as u8 != 0
    }
}
