//! Another process of the host's: its memory, its descriptors, its life.

use lazaret_wall::Layer;

use super::files::contents;
use crate::drill::{Aim, Barrier, Drill, Stand, Tried, step};
use crate::inside::{Inside, own_memory};

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);
const PIDS: Barrier = Barrier::Wall(Layer::PidNamespace);
const LANDLOCK: Barrier = Barrier::Wall(Layer::Landlock);
const USER: Barrier = Barrier::Wall(Layer::UserNamespace);

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

/// How many signals `signal_flood` sends.
const FLOOD: u64 = 4096;

/// The drills. Where the user namespace is among what stops them, the PID namespace,
/// which does too, isn't: it is off whenever the other is, and can't be shown alone.
/// The decoy process has the worker's user id, is dumpable and lets
/// anybody trace it.
pub const DRILLS: &[Drill] = &[
    drill(
        "kill_process",
        "ends another process of its own user's by its number",
        Aim::Killed,
        &[SECCOMP, PIDS, LANDLOCK],
        2,
        |inside| {
            step("kill", libc::SYS_kill, &[pid(inside), libc::SIGKILL as u64])?;
            Ok("sent".into())
        },
    ),
    drill(
        "kill_thread",
        "ends another process of its own user's by its thread's number",
        Aim::Killed,
        &[SECCOMP, PIDS, LANDLOCK],
        2,
        |inside| {
            let pid = pid(inside);
            step(
                "tgkill",
                libc::SYS_tgkill,
                &[pid, pid, libc::SIGKILL as u64],
            )?;
            Ok("sent".into())
        },
    ),
    drill(
        "kill_by_descriptor",
        "opens another process of its own user's and ends it by the descriptor",
        Aim::Killed,
        &[SECCOMP, PIDS, LANDLOCK],
        2,
        |inside| {
            let pidfd = pidfd(inside)?;
            step(
                "pidfd_send_signal",
                libc::SYS_pidfd_send_signal,
                &[pidfd, libc::SIGKILL as u64, 0, 0],
            )?;
            Ok("sent".into())
        },
    ),
    drill(
        "signal_flood",
        "sends 4,096 queued signals to another process of its own user's",
        Aim::SignalsPending(1000),
        &[SECCOMP, PIDS, LANDLOCK],
        2,
        signal_flood,
    ),
    drill(
        "trace_process",
        "traces another process of its own user's (ptrace)",
        Aim::Traced,
        &[SECCOMP, LANDLOCK, USER],
        3,
        |inside| {
            step(
                "ptrace",
                libc::SYS_ptrace,
                &[libc::PTRACE_SEIZE as u64, pid(inside), 0, 0],
            )?;
            Ok("traced".into())
        },
    ),
    drill(
        "read_process",
        "reads another process's memory (process_vm_readv)",
        Aim::Secret,
        &[SECCOMP, LANDLOCK, USER],
        3,
        |inside| {
            let length = copy(inside, libc::SYS_process_vm_readv, "process_vm_readv")?;
            // SAFETY: so many bytes of the attacker's own memory, just filled.
            let bytes = unsafe { std::slice::from_raw_parts(own_memory(), length as usize) };
            Ok(String::from_utf8_lossy(bytes).replace('\0', " "))
        },
    ),
    drill(
        "write_process",
        "writes another process's memory (process_vm_writev)",
        Aim::MemoryChanged,
        &[SECCOMP, LANDLOCK, USER],
        3,
        |inside| {
            // SAFETY: the attacker's own memory, which nobody else uses.
            unsafe { std::ptr::write_bytes(own_memory(), b'!', LENGTH as usize) };
            copy(inside, libc::SYS_process_vm_writev, "process_vm_writev")?;
            Ok("written".into())
        },
    ),
    drill(
        "steal_descriptor",
        "takes another process's descriptor and reads from it (pidfd_getfd)",
        Aim::Secret,
        &[SECCOMP, LANDLOCK, USER],
        3,
        |inside| {
            let pidfd = pidfd(inside)?;
            let fd = step(
                "pidfd_getfd",
                libc::SYS_pidfd_getfd,
                &[pidfd, inside.word_number("descriptor"), 0],
            )?;
            step("lseek", libc::SYS_lseek, &[fd, 0, 0])?;
            contents(fd)
        },
    ),
    drill(
        "enter_namespaces",
        "opens another process and enters its user namespace (setns)",
        Aim::Namespace("user"),
        &[SECCOMP, PIDS],
        2,
        |inside| {
            let pidfd = pidfd(inside)?;
            step(
                "setns",
                libc::SYS_setns,
                &[pidfd, libc::CLONE_NEWUSER as u64],
            )?;
            Ok("entered".into())
        },
    ),
    drill(
        "start_thread",
        "starts a second thread",
        Aim::Threads,
        &[
            SECCOMP,
            Barrier::ControlGroup,
            Barrier::Wall(Layer::Rlimits),
        ],
        1,
        |_| {
            super::exhaustion::start_thread()?;
            Ok("started".into())
        },
    ),
];

/// Bytes of the decoy's memory that are read or written.
const LENGTH: u64 = 64;

fn pid(inside: &Inside<'_>) -> u64 {
    inside.word_number("pid")
}

fn pidfd(inside: &Inside<'_>) -> Result<u64, crate::drill::Refusal> {
    step("pidfd_open", libc::SYS_pidfd_open, &[pid(inside), 0])
}

/// Copies between the attacker's memory and the decoy's.
fn copy(
    inside: &Inside<'_>,
    number: i64,
    name: &'static str,
) -> Result<u64, crate::drill::Refusal> {
    let own = [own_memory() as u64, LENGTH];
    let theirs = [inside.word_number("address"), LENGTH];
    step(
        name,
        number,
        &[
            pid(inside),
            own.as_ptr() as u64,
            1,
            theirs.as_ptr() as u64,
            1,
            0,
        ],
    )
}

/// Real-time signals are queued one by one; the decoy blocks this one.
fn signal_flood(inside: &mut Inside<'_>) -> Tried {
    // SAFETY: all-zero is a siginfo_t.
    let mut info = unsafe { std::mem::zeroed::<libc::siginfo_t>() };
    info.si_code = libc::SI_QUEUE;
    info.si_signo = libc::SIGRTMIN();
    for _ in 0..FLOOD {
        let sent = step(
            "rt_sigqueueinfo",
            libc::SYS_rt_sigqueueinfo,
            &[
                pid(inside),
                libc::SIGRTMIN() as u64,
                (&raw const info) as u64,
            ],
        );
        match sent {
            // The target's own limit.
            Err(refusal) if refusal.errno == libc::EAGAIN => break,
            other => other?,
        };
    }
    Ok("sent".into())
}
