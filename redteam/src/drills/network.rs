//! The network, and sockets of any kind.

use lazaret_wall::Layer;

use super::files::path;
use crate::drill::{Aim, Arrival, Barrier, Drill, Refusal, Stand, Tried, step};
use crate::inside::Inside;

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);
const NETWORK: Barrier = Barrier::Wall(Layer::NetworkNamespace);
const LANDLOCK: Barrier = Barrier::Wall(Layer::Landlock);
const ROOT: Barrier = Barrier::Wall(Layer::EmptyRoot);

const fn drill(
    name: &'static str,
    tries: &'static str,
    aim: Aim,
    barriers: &'static [Barrier],
    at_least: usize,
    run: fn(&mut Inside<'_>) -> Tried,
) -> Drill {
    Drill {
        name,
        tries,
        stand: Stand::Tenant,
        aim,
        barriers,
        at_least,
        run,
    }
}

/// The drills. The decoys listen on the host's loopback interface, under an
/// abstract name, and in the decoy directory.
pub const DRILLS: &[Drill] = &[
    drill(
        "connect",
        "connects to a TCP port on the host's loopback interface",
        Aim::Arrived(Arrival::Tcp),
        &[SECCOMP, NETWORK, LANDLOCK],
        2,
        |inside| {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
            let at = loopback(inside.word_number("tcp"));
            step("connect", libc::SYS_connect, &[fd, at.as_ptr() as u64, 16])?;
            Ok("connected".into())
        },
    ),
    drill(
        "fast_open",
        "connects by sending (MSG_FASTOPEN), which has passed Landlock's rules",
        Aim::Arrived(Arrival::Tcp),
        // Not Landlock: see there.
        &[SECCOMP, NETWORK],
        2,
        |inside| {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
            send(fd, inside.word_number("tcp"), libc::MSG_FASTOPEN)
        },
    ),
    drill(
        "send_datagram",
        "sends a UDP datagram to a port on the host's loopback interface",
        Aim::Arrived(Arrival::Udp),
        &[SECCOMP, NETWORK],
        2,
        |inside| {
            let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
            send(fd, inside.word_number("udp"), 0)
        },
    ),
    drill(
        "abstract_socket",
        "connects to a socket with an abstract name, which is in no directory",
        Aim::Arrived(Arrival::Abstract),
        &[SECCOMP, NETWORK, LANDLOCK],
        2,
        |inside| {
            let name = inside.word("abstract").as_bytes().to_vec();
            connect_unix(&[&[0], name.as_slice()].concat())
        },
    ),
    drill(
        "socket_by_path",
        "connects to a socket in a directory that everybody may use",
        Aim::Arrived(Arrival::Path),
        &[SECCOMP, ROOT],
        2,
        |inside| connect_unix(path(inside, "socket")?.as_bytes_with_nul()),
    ),
    drill(
        "vsock",
        "makes a socket to the hypervisor and to other virtual machines (AF_VSOCK)",
        Aim::Holds("socket:"),
        &[SECCOMP],
        1,
        |_| held(socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ),
    drill(
        "netlink_socket",
        "makes a socket to the kernel's network configuration (AF_NETLINK)",
        Aim::Holds("socket:"),
        &[SECCOMP],
        1,
        |_| {
            held(socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW,
                libc::NETLINK_ROUTE,
            ))
        },
    ),
    drill(
        "packet_socket",
        "makes a socket that sees every packet (AF_PACKET)",
        Aim::Holds("socket:"),
        &[SECCOMP],
        1,
        |_| held(socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300)),
    ),
    drill(
        "crypto_socket",
        "makes a socket to the kernel's cryptography (AF_ALG)",
        Aim::Holds("socket:"),
        &[SECCOMP],
        1,
        |_| held(socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ),
    drill(
        "interfaces",
        "asks for the names of the host's network interfaces",
        Aim::Interface,
        &[SECCOMP, NETWORK],
        2,
        interfaces,
    ),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Result<u64, Refusal> {
    step(
        "socket",
        libc::SYS_socket,
        &[
            family as u64,
            (kind | libc::SOCK_CLOEXEC) as u64,
            protocol as u64,
        ],
    )
}

fn held(made: Result<u64, Refusal>) -> Tried {
    made.map(|fd| format!("descriptor {fd}"))
}

/// `struct sockaddr_in` of 127.0.0.1.
fn loopback(port: u64) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&(port as u16).to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    address
}

fn send(fd: u64, port: u64, flags: i32) -> Tried {
    let at = loopback(port);
    step(
        "sendto",
        libc::SYS_sendto,
        &[
            fd,
            c"here".as_ptr() as u64,
            4,
            flags as u64,
            at.as_ptr() as u64,
            16,
        ],
    )?;
    Ok("sent".into())
}

/// Connects to a name in the family of Unix.
fn connect_unix(name: &[u8]) -> Tried {
    let fd = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(name);
    step(
        "connect",
        libc::SYS_connect,
        &[fd, address.as_ptr() as u64, address.len() as u64],
    )?;
    Ok("connected".into())
}

/// `SIOCGIFNAME` of every number up to 64 (netdevice(7)).
fn interfaces(_: &mut Inside<'_>) -> Tried {
    const SIOCGIFNAME: u64 = 0x8910;
    let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut names = Vec::new();
    let mut last = None;
    for index in 1..64i32 {
        // `struct ifreq`: the name, then the number.
        let mut request = [0u8; 40];
        request[16..20].copy_from_slice(&index.to_ne_bytes());
        match step(
            "ioctl",
            libc::SYS_ioctl,
            &[fd, SIOCGIFNAME, request.as_mut_ptr() as u64],
        ) {
            Err(refusal) => last = Some(refusal),
            Ok(_) => names.push(
                String::from_utf8_lossy(&request[..16])
                    .trim_end_matches('\0')
                    .to_owned(),
            ),
        }
    }
    match (names.iter().all(|name| name == "lo"), last) {
        (true, Some(refusal)) => Err(refusal),
        _ => Ok(names.join(" ")),
    }
}
