//! The 32-bit entry, which has numbers of its own: `compat NUMBER`.

use lazaret_wall::Layer;

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;
use crate::system_call::compat_entry;

/// seccomp: the filter is for one architecture, and another one's entry kills.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

/// The attacks. On a kernel without `CONFIG_IA32_EMULATION` it ends by
/// SIGSEGV instead.
pub const ATTACKS: &[Attack] = &[Attack::native(
    "compat",
    STOPPED_BY,
    Expected::Violation,
    through_int_80,
)];

fn through_int_80(inside: &mut Inside<'_>) -> String {
    // SAFETY: none is wanted.
    let result = unsafe { compat_entry(inside.number() as u32) };
    format!("returned {result}")
}
