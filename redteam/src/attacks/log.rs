//! A log with wild lengths: `wild_log NUMBER`.

use std::sync::atomic::Ordering::Relaxed;

use lazaret_wire::layout::{LOG, LOG_LEN, LOG_LOST, LOG_SIZE};

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;

/// The wire: the list ends at the first bad record.
pub const STOPPED_BY: Guard = Guard::Wire;

/// How many kinds there are.
pub const KINDS: u64 = 5;

/// The attacks. The call goes well: a log is no state.
pub const ATTACKS: &[Attack] = &[Attack::native(
    "wild_log",
    STOPPED_BY,
    Expected::Reply("logged"),
    wild,
)];

fn wild(inside: &mut Inside<'_>) -> String {
    let shared = inside.shared();
    let length = shared.u32(LOG_LEN);
    match inside.number() {
        // A record over the area, and a log over it too.
        0 => {
            shared.u64(LOG).store(u64::MAX, Relaxed);
            length.store(u32::MAX, Relaxed);
        }
        // As long as the area, with its own head.
        1 => {
            shared.u64(LOG).store(LOG_SIZE as u64, Relaxed);
            length.store(LOG_SIZE as u32, Relaxed);
        }
        // Nothing but empty records.
        2 => {
            shared.copy_in(LOG, &vec![0; LOG_SIZE]);
            length.store(LOG_SIZE as u32, Relaxed);
        }
        // A length that isn't a multiple of eight, and bytes that are no text.
        3 => {
            shared.copy_in(LOG, &[0xff; 4096]);
            shared.u64(LOG).store(4001, Relaxed);
            length.store(4009, Relaxed);
        }
        _ => {
            length.store(7, Relaxed);
            shared.u32(LOG_LOST).store(u32::MAX, Relaxed);
        }
    }
    "logged".into()
}
