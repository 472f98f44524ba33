//! Reaching other processes: signals, descriptors of them, tracing, memory.

use lazaret_wall::Layer;

use crate::attack::{Attack, Guard, Value, numbers, values};

/// seccomp; behind it a PID namespace with nobody else in it.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

const KILL: u64 = libc::SIGKILL as u64;
const ALL: u64 = u64::MAX;
/// Between one buffer of one's own and one of pid 1's.
const COPY: [Value; 6] = values([
    Value::Number(1),
    Value::Memory,
    Value::Number(1),
    Value::Memory,
    Value::Number(1),
]);
/// A signal's number or how, a new setting, no old one, and bytes of a set.
const fn setting(first: u64) -> [Value; 6] {
    values([
        Value::Number(first),
        Value::Memory,
        Value::Number(0),
        Value::Number(8),
    ])
}

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::call("kill_init", STOPPED_BY, libc::SYS_kill, numbers([1, KILL])),
    Attack::call("kill_group", STOPPED_BY, libc::SYS_kill, numbers([0, KILL])),
    Attack::call("kill_all", STOPPED_BY, libc::SYS_kill, numbers([ALL, KILL])),
    Attack::call(
        "kill_by_thread",
        STOPPED_BY,
        libc::SYS_tkill,
        numbers([1, KILL]),
    ),
    Attack::call(
        "kill_by_thread_group",
        STOPPED_BY,
        libc::SYS_tgkill,
        numbers([1, 1, KILL]),
    ),
    Attack::call(
        "kill_all_threads",
        STOPPED_BY,
        libc::SYS_tgkill,
        numbers([ALL, ALL, KILL]),
    ),
    Attack::call(
        "pidfd_of_init",
        STOPPED_BY,
        libc::SYS_pidfd_open,
        numbers([1]),
    ),
    Attack::call(
        "pidfd_of_nobody",
        STOPPED_BY,
        libc::SYS_pidfd_open,
        numbers([0]),
    ),
    Attack::call(
        "pidfd_of_all",
        STOPPED_BY,
        libc::SYS_pidfd_open,
        numbers([ALL]),
    ),
    Attack::call(
        "kill_by_pidfd",
        STOPPED_BY,
        libc::SYS_pidfd_send_signal,
        numbers([3, KILL]),
    ),
    Attack::call(
        "steal_descriptor",
        STOPPED_BY,
        libc::SYS_pidfd_getfd,
        numbers([3, 0]),
    ),
    Attack::call(
        "queue_signal",
        STOPPED_BY,
        libc::SYS_rt_sigqueueinfo,
        values([Value::Number(1), Value::Number(KILL), Value::Memory]),
    ),
    Attack::call(
        "trace_me",
        STOPPED_BY,
        libc::SYS_ptrace,
        numbers([libc::PTRACE_TRACEME as u64]),
    ),
    Attack::call(
        "trace_init",
        STOPPED_BY,
        libc::SYS_ptrace,
        numbers([libc::PTRACE_ATTACH as u64, 1]),
    ),
    Attack::call(
        "seize_init",
        STOPPED_BY,
        libc::SYS_ptrace,
        numbers([libc::PTRACE_SEIZE as u64, 1]),
    ),
    Attack::call("read_process", STOPPED_BY, libc::SYS_process_vm_readv, COPY),
    Attack::call(
        "write_process",
        STOPPED_BY,
        libc::SYS_process_vm_writev,
        COPY,
    ),
    Attack::call(
        "advise_process",
        STOPPED_BY,
        libc::SYS_process_madvise,
        values([Value::Number(3), Value::Memory, Value::Number(1)]),
    ),
    Attack::call(
        "compare_processes",
        STOPPED_BY,
        libc::SYS_kcmp,
        numbers([1, 1]),
    ),
    Attack::call(
        "schedule",
        STOPPED_BY,
        libc::SYS_sched_setattr,
        values([Value::Number(0), Value::Memory]),
    ),
    Attack::call(
        "ignore_signals",
        STOPPED_BY,
        libc::SYS_rt_sigprocmask,
        setting(0),
    ),
    Attack::call(
        "handle_signals",
        STOPPED_BY,
        libc::SYS_rt_sigaction,
        setting(11),
    ),
];
