//! Gaining rights, and taking off what the lock put on.

use lazaret_wall::Layer;

use crate::attack::{Attack, Guard, Value, numbers, values};

/// seccomp; behind it no capability in any set, and `no_new_privs`.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::call("setuid", STOPPED_BY, libc::SYS_setuid, numbers([0])),
    Attack::call(
        "setresuid",
        STOPPED_BY,
        libc::SYS_setresuid,
        numbers([0, 0, 0]),
    ),
    Attack::call(
        "setgroups",
        STOPPED_BY,
        libc::SYS_setgroups,
        values([Value::Number(1), Value::Memory]),
    ),
    Attack::call(
        "capset",
        STOPPED_BY,
        libc::SYS_capset,
        values([Value::Memory, Value::Memory]),
    ),
    Attack::call(
        "keep_capabilities",
        STOPPED_BY,
        libc::SYS_prctl,
        numbers([libc::PR_SET_KEEPCAPS as u64, 1]),
    ),
    Attack::call(
        "dumpable_again",
        STOPPED_BY,
        libc::SYS_prctl,
        numbers([libc::PR_SET_DUMPABLE as u64, 1]),
    ),
    Attack::call(
        "name_a_tracer",
        STOPPED_BY,
        libc::SYS_prctl,
        numbers([libc::PR_SET_PTRACER as u64, u64::MAX]),
    ),
    Attack::call(
        "own_filter",
        STOPPED_BY,
        libc::SYS_seccomp,
        values([Value::Number(1), Value::Number(0), Value::Memory]),
    ),
    Attack::call(
        "own_listener",
        STOPPED_BY,
        libc::SYS_seccomp,
        values([Value::Number(1), Value::Number(8), Value::Memory]),
    ),
    Attack::call(
        "own_landlock",
        STOPPED_BY,
        libc::SYS_landlock_restrict_self,
        numbers([3]),
    ),
    Attack::call(
        "raise_limits",
        STOPPED_BY,
        libc::SYS_prlimit64,
        values([Value::Number(0), Value::Number(2), Value::Memory]),
    ),
    Attack::call(
        "setrlimit",
        STOPPED_BY,
        libc::SYS_setrlimit,
        values([Value::Number(2), Value::Memory]),
    ),
    Attack::call(
        "bpf",
        STOPPED_BY,
        libc::SYS_bpf,
        values([Value::Number(5), Value::Memory, Value::Number(120)]),
    ),
    Attack::call(
        "perf",
        STOPPED_BY,
        libc::SYS_perf_event_open,
        values([Value::Memory]),
    ),
    Attack::call("keyring", STOPPED_BY, libc::SYS_keyctl, numbers([0])),
    Attack::call(
        "add_key",
        STOPPED_BY,
        libc::SYS_add_key,
        values([
            Value::Memory,
            Value::Memory,
            Value::Memory,
            Value::Number(1),
        ]),
    ),
    Attack::call(
        "userfaultfd",
        STOPPED_BY,
        libc::SYS_userfaultfd,
        numbers([1]),
    ),
    Attack::call(
        "segment_register",
        STOPPED_BY,
        libc::SYS_arch_prctl,
        values([Value::Number(0x1001), Value::Memory]),
    ),
    Attack::call(
        "local_descriptor_table",
        STOPPED_BY,
        libc::SYS_modify_ldt,
        values([Value::Number(1), Value::Memory, Value::Number(16)]),
    ),
    Attack::call(
        "host_name",
        STOPPED_BY,
        libc::SYS_sethostname,
        values([Value::Memory, Value::Number(1)]),
    ),
    Attack::call(
        "load_module",
        STOPPED_BY,
        libc::SYS_init_module,
        values([Value::Memory, Value::Number(1), Value::Memory]),
    ),
    Attack::call(
        "reboot",
        STOPPED_BY,
        libc::SYS_reboot,
        numbers([0xfee1_dead, 672_274_793, 0]),
    ),
    Attack::call(
        "swap_off",
        STOPPED_BY,
        libc::SYS_swapoff,
        values([Value::Memory]),
    ),
];
