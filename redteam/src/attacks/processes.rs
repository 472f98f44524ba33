//! Another process or thread, or another program in this one.

use lazaret_wall::Layer;

use crate::attack::{Attack, Guard, Value, numbers, values};

/// seccomp: a worker is one thread and stays what it is.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::call("fork", STOPPED_BY, libc::SYS_fork, numbers([])),
    Attack::call("vfork", STOPPED_BY, libc::SYS_vfork, numbers([])),
    Attack::call(
        "clone_process",
        STOPPED_BY,
        libc::SYS_clone,
        numbers([libc::SIGCHLD as u64]),
    ),
    Attack::call(
        "clone_thread",
        STOPPED_BY,
        libc::SYS_clone,
        values([Value::Number(THREAD), Value::Memory]),
    ),
    Attack::call(
        "clone_user_namespace",
        STOPPED_BY,
        libc::SYS_clone,
        numbers([(libc::CLONE_NEWUSER | libc::SIGCHLD) as u64]),
    ),
    Attack::call(
        "clone3",
        STOPPED_BY,
        libc::SYS_clone3,
        values([Value::Memory, Value::Number(88)]),
    ),
    Attack::call(
        "execve",
        STOPPED_BY,
        libc::SYS_execve,
        values([Value::Memory, Value::Memory, Value::Memory]),
    ),
    Attack::call(
        "execveat",
        STOPPED_BY,
        libc::SYS_execveat,
        values([
            Value::Number(0),
            Value::Memory,
            Value::Memory,
            Value::Memory,
            Value::Number(libc::AT_EMPTY_PATH as u64),
        ]),
    ),
    Attack::call(
        "unshare",
        STOPPED_BY,
        libc::SYS_unshare,
        numbers([libc::CLONE_NEWUSER as u64]),
    ),
    Attack::call("setns", STOPPED_BY, libc::SYS_setns, numbers([0, 0])),
];
