//! Files: opening, making, mounting, and the ways round opening.

use lazaret_wall::Layer;

use crate::attack::{Attack, Guard, Value, numbers, values};

/// seccomp; behind it Landlock, and a root with nothing in it.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

const HERE: Value = Value::Number(libc::AT_FDCWD as u64);

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::call("open", STOPPED_BY, libc::SYS_open, values([Value::Memory])),
    Attack::call(
        "creat",
        STOPPED_BY,
        libc::SYS_creat,
        values([Value::Memory]),
    ),
    Attack::call(
        "openat",
        STOPPED_BY,
        libc::SYS_openat,
        values([HERE, Value::Memory]),
    ),
    Attack::call(
        "openat_temporary",
        STOPPED_BY,
        libc::SYS_openat,
        values([
            HERE,
            Value::Memory,
            Value::Number((libc::O_TMPFILE | libc::O_RDWR) as u64),
        ]),
    ),
    Attack::call(
        "openat2",
        STOPPED_BY,
        libc::SYS_openat2,
        values([HERE, Value::Memory, Value::Memory, Value::Number(24)]),
    ),
    Attack::call(
        "open_by_handle",
        STOPPED_BY,
        libc::SYS_open_by_handle_at,
        values([HERE, Value::Memory]),
    ),
    Attack::call(
        "name_to_handle",
        STOPPED_BY,
        libc::SYS_name_to_handle_at,
        values([HERE, Value::Memory, Value::Memory, Value::Memory]),
    ),
    Attack::call(
        "memfd",
        STOPPED_BY,
        libc::SYS_memfd_create,
        values([Value::Memory]),
    ),
    Attack::call(
        "memfd_secret",
        STOPPED_BY,
        libc::SYS_memfd_secret,
        numbers([0]),
    ),
    Attack::call(
        "mknod",
        STOPPED_BY,
        libc::SYS_mknodat,
        values([HERE, Value::Memory, Value::Number(libc::S_IFCHR as u64)]),
    ),
    Attack::call(
        "mount",
        STOPPED_BY,
        libc::SYS_mount,
        values([Value::Memory, Value::Memory, Value::Memory]),
    ),
    Attack::call(
        "new_mount",
        STOPPED_BY,
        libc::SYS_fsopen,
        values([Value::Memory]),
    ),
    Attack::call(
        "open_tree",
        STOPPED_BY,
        libc::SYS_open_tree,
        values([HERE, Value::Memory]),
    ),
    Attack::call(
        "chroot",
        STOPPED_BY,
        libc::SYS_chroot,
        values([Value::Memory]),
    ),
    Attack::call(
        "pivot_root",
        STOPPED_BY,
        libc::SYS_pivot_root,
        values([Value::Memory, Value::Memory]),
    ),
    Attack::call(
        "io_uring",
        STOPPED_BY,
        libc::SYS_io_uring_setup,
        values([Value::Number(8), Value::Memory]),
    ),
    Attack::call(
        "aio",
        STOPPED_BY,
        libc::SYS_io_setup,
        values([Value::Number(8), Value::Memory]),
    ),
    Attack::call("inotify", STOPPED_BY, libc::SYS_inotify_init1, numbers([0])),
    Attack::call(
        "fanotify",
        STOPPED_BY,
        libc::SYS_fanotify_init,
        numbers([0]),
    ),
];
