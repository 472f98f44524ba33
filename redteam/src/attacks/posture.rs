//! What changes how a worker looks from outside, by calls that it may make. It
//! harms nobody but itself; the host sees it on its rounds.

use crate::attack::{Attack, Expected, Guard};
use crate::inside::{Inside, page_of_code};
use crate::system_call::system_call;

/// The host's rounds.
pub const STOPPED_BY: Guard = Guard::Posture;

/// The attacks. They answer at once; that isn't the end of it.
pub const ATTACKS: &[Attack] = &[Attack::native(
    "unmap_code",
    STOPPED_BY,
    Expected::Reply("unmapped"),
    unmap_code,
)];

/// Gives back a page of the worker's own code that nothing runs on any more.
fn unmap_code(_: &mut Inside<'_>) -> String {
    // SAFETY: the page is of the worker's start, which is over.
    match unsafe { system_call(libc::SYS_munmap, [page_of_code() as u64, 4096, 0, 0, 0, 0]) } {
        0 => "unmapped".into(),
        error => format!("returned {error}"),
    }
}
