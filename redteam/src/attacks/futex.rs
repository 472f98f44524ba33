//! Futex operations on the bell that the host's thread sleeps on. Waiting and
//! waking are allowed; all others could move, block or boost the sleeper.

use lazaret_wall::Layer;

use crate::attack::{Attack, Guard, Value};

/// seccomp: only `FUTEX_WAIT` and `FUTEX_WAKE`.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

/// Operation `number` (kernel: `include/uapi/linux/futex.h`) from the shared
/// file to the attacker's own memory.
const fn operation(name: &'static str, number: u64) -> Attack {
    Attack::call(
        name,
        STOPPED_BY,
        libc::SYS_futex,
        [
            Value::Shared,
            Value::Number(number),
            Value::Number(1),
            Value::Number(1),
            Value::Memory,
            Value::Number(0),
        ],
    )
}

const fn newer(name: &'static str, number: i64) -> Attack {
    Attack::call(
        name,
        STOPPED_BY,
        number,
        [
            Value::Shared,
            Value::Number(1),
            Value::Number(1),
            Value::Number(2),
            Value::Memory,
            Value::Number(0),
        ],
    )
}

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    operation("futex_descriptor", 2),
    operation("futex_requeue", 3),
    operation("futex_requeue_private", 3 | 128),
    operation("futex_compare_requeue", 4),
    operation("futex_wake_operation", 5),
    operation("futex_lock", 6),
    operation("futex_unlock", 7),
    operation("futex_trylock", 8),
    operation("futex_wait_bits", 9),
    operation("futex_wake_bits", 10),
    operation("futex_wait_requeue", 11),
    operation("futex_compare_requeue_priority", 12),
    operation("futex_lock_2", 13),
    operation("futex_wait_wall_clock", 256),
    operation("futex_unknown", 99),
    newer("futex_waitv", 449),
    newer("futex2_wake", 454),
    newer("futex2_wait", 455),
    newer("futex2_requeue", 456),
    Attack::call(
        "robust_list",
        STOPPED_BY,
        libc::SYS_set_robust_list,
        [
            Value::Shared,
            Value::Number(24),
            Value::Number(0),
            Value::Number(0),
            Value::Number(0),
            Value::Number(0),
        ],
    ),
];
