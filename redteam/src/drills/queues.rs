//! Objects of System V and queues of POSIX, which have names of their own.

use lazaret_wall::Layer;

use crate::drill::{Aim, Arrival, Barrier, Drill, Stand, Tried, step};
use crate::inside::Inside;

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);
const IPC: Barrier = Barrier::Wall(Layer::IpcNamespace);
/// A queue of POSIX is a file.
const LANDLOCK: Barrier = Barrier::Wall(Layer::Landlock);

const fn drill(
    name: &'static str,
    tries: &'static str,
    aim: Aim,
    barriers: &'static [Barrier],
    run: fn(&mut Inside<'_>) -> Tried,
) -> Drill {
    Drill {
        name,
        tries,
        stand: Stand::Tenant,
        aim,
        barriers,
        at_least: 2,
        run,
    }
}

/// The drills. Everybody may use the decoys.
pub const DRILLS: &[Drill] = &[
    drill(
        "shared_segment",
        "writes to a segment of memory that everybody shares (shmget, shmat)",
        Aim::SegmentChanged,
        &[SECCOMP, IPC],
        |inside| {
            let segment = step("shmget", libc::SYS_shmget, &[key(inside), 0, 0])?;
            let at = step("shmat", libc::SYS_shmat, &[segment, 0, 0])?;
            // SAFETY: attached just now, a page long and writable.
            unsafe { std::ptr::write_volatile(at as *mut u8, b'!') };
            Ok("written".into())
        },
    ),
    drill(
        "message_queue",
        "sends to a message queue of System V",
        Aim::Arrived(Arrival::Queue),
        &[SECCOMP, IPC],
        |inside| {
            let queue = step("msgget", libc::SYS_msgget, &[key(inside), 0])?;
            // A type, and a byte.
            let message = [1u64, u64::from(b'!')];
            step(
                "msgsnd",
                libc::SYS_msgsnd,
                &[queue, message.as_ptr() as u64, 1, libc::IPC_NOWAIT as u64],
            )?;
            Ok("sent".into())
        },
    ),
    drill(
        "posix_queue",
        "sends to a message queue of POSIX",
        Aim::Arrived(Arrival::PosixQueue),
        &[SECCOMP, IPC, LANDLOCK],
        |inside| {
            let name = super::files::path(inside, "queue")?;
            let queue = step(
                "mq_open",
                libc::SYS_mq_open,
                &[
                    name.as_ptr() as u64,
                    (libc::O_WRONLY | libc::O_NONBLOCK | libc::O_CLOEXEC) as u64,
                    0,
                    0,
                ],
            )?;
            step(
                "mq_timedsend",
                libc::SYS_mq_timedsend,
                &[queue, c"!".as_ptr() as u64, 1, 0, 0],
            )?;
            Ok("sent".into())
        },
    ),
];

fn key(inside: &Inside<'_>) -> u64 {
    inside.word_number("key")
}
