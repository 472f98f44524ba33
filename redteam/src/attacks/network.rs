//! The network, and sockets of any kind.

use lazaret_wall::Layer;

use crate::attack::{Attack, Expected, Guard, How, Value, numbers, values};

/// seccomp; behind it a network namespace with no interface that is up.
/// Landlock alone would not do: `MSG_FASTOPEN` has passed its TCP rules.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::call(
        "socket_tcp",
        STOPPED_BY,
        libc::SYS_socket,
        numbers([libc::AF_INET as u64, libc::SOCK_STREAM as u64]),
    ),
    Attack::call(
        "socket_unix",
        STOPPED_BY,
        libc::SYS_socket,
        numbers([libc::AF_UNIX as u64, libc::SOCK_STREAM as u64]),
    ),
    Attack::call(
        "socket_netlink",
        STOPPED_BY,
        libc::SYS_socket,
        numbers([libc::AF_NETLINK as u64, libc::SOCK_RAW as u64]),
    ),
    Attack::call(
        "socket_vsock",
        STOPPED_BY,
        libc::SYS_socket,
        numbers([libc::AF_VSOCK as u64, libc::SOCK_STREAM as u64]),
    ),
    Attack::call(
        "socketpair",
        STOPPED_BY,
        libc::SYS_socketpair,
        values([
            Value::Number(libc::AF_UNIX as u64),
            Value::Number(libc::SOCK_STREAM as u64),
            Value::Number(0),
            Value::Memory,
        ]),
    ),
    Attack::call(
        "connect",
        STOPPED_BY,
        libc::SYS_connect,
        values([Value::Number(3), Value::Memory, Value::Number(16)]),
    ),
    Attack::call(
        "bind",
        STOPPED_BY,
        libc::SYS_bind,
        values([Value::Number(3), Value::Memory, Value::Number(16)]),
    ),
    Attack::call(
        "fast_open",
        STOPPED_BY,
        libc::SYS_sendto,
        [
            Value::Number(3),
            Value::Memory,
            Value::Number(1),
            Value::Number(libc::MSG_FASTOPEN as u64),
            Value::Memory,
            Value::Number(16),
        ],
    ),
    Attack::call(
        "sendmsg",
        STOPPED_BY,
        libc::SYS_sendmsg,
        values([Value::Number(0), Value::Memory]),
    ),
    // The number that the set-up socket had is on the list, for the filter's own
    // listener to be handed over. Nothing is there any more.
    Attack {
        name: "sendmsg_setup_socket",
        stopped_by: Guard::Layer(Layer::Descriptors),
        expected: Expected::Reply("returned -9"),
        how: How::SystemCall(libc::SYS_sendmsg, values([Value::Number(3), Value::Memory])),
    },
    Attack::call(
        "recvmsg",
        STOPPED_BY,
        libc::SYS_recvmsg,
        values([Value::Number(3), Value::Memory]),
    ),
    Attack::call(
        "message_queue",
        STOPPED_BY,
        libc::SYS_mq_open,
        values([Value::Memory]),
    ),
    Attack::call(
        "shared_segment",
        STOPPED_BY,
        libc::SYS_shmget,
        numbers([0, 4096, 0o1600]),
    ),
];
