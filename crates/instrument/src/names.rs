//! The names and numbers by which a host finds what was added to a module.
//!
//! Every added name starts with [`PREFIX`]; a module that imports or exports such a name itself
//! is rejected, so they can't be forged.

/// The start of every added export's name.
pub const PREFIX: &str = "lazaret:";

/// Mutable `i64` global: the fuel that is left. It starts at 0; set it, to 0 or more, before
/// every call. Below 0 after a call, read it as 0.
pub const FUEL: &str = "lazaret:fuel";

/// Mutable `i32` global: why the module's own `unreachable` was not the one that trapped:
/// [`STOP_NONE`], [`STOP_FUEL`] or [`STOP_RECURSION`]. Set it to [`STOP_NONE`] before every call.
pub const STOP: &str = "lazaret:stop";

/// Mutable `i32` global: the depth of the recursion, in units (see [`frame_units`]). A trap
/// leaves it as it was at the trap, so set it to 0 before every call from outside.
///
/// [`frame_units`]: crate::frame_units
pub const DEPTH: &str = "lazaret:depth";

/// Function without parameters and results that writes the module's active data segments into
/// its memory, in persistent mode. Call it once, when the state is created.
pub const INIT: &str = "lazaret:init";

/// The module's start function, if it had one: no parameters, no results. The host calls it
/// where instantiation would have, after [`INIT`], so that it runs with fuel.
pub const START: &str = "lazaret:start";

/// The module's memory 0, in persistent mode and with cards.
pub const MEMORY: &str = "lazaret:memory";

/// The memory of the cards: byte `n` is 1 if page `n` (4 KiB) of memory 0 may have been written
/// since the host last cleared it.
pub const CARDS: &str = "lazaret:cards";

/// [`STOP`]: the module ran to its end or trapped by itself.
pub const STOP_NONE: i32 = 0;
/// [`STOP`]: the fuel was used up.
pub const STOP_FUEL: i32 = 1;
/// [`STOP`]: the recursion limit was reached.
pub const STOP_RECURSION: i32 = 2;

/// The name under which mutable global number `position` of [`Report::globals`] is exported.
///
/// [`Report::globals`]: crate::Report::globals
pub fn global_export(position: usize) -> String {
    format!("lazaret:global:{position}")
}
