//! Using up what there is. Each stops by itself soon after it has got further than
//! any worker should.

use lazaret_wall::Layer;

use crate::drill::{Aim, Barrier, Drill, Refusal, Stand, Tried, step};
use crate::inside::Inside;

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);
const LIMITS: Barrier = Barrier::Wall(Layer::Rlimits);
const GROUP: Barrier = Barrier::ControlGroup;

const MIB: u64 = 1 << 20;
/// How far the memory bomb goes: beyond all that a worker of the range may have,
/// and not far.
pub const BOMB: u64 = 896 * MIB;
/// How many processes the fork bomb starts.
const FORKS: usize = 16;
/// How many descriptors are asked for. A worker has far fewer.
const DESCRIPTORS: usize = 900;

/// The drills.
pub const DRILLS: &[Drill] = &[
    Drill {
        name: "memory_bomb",
        tries: "fills more memory than it may have",
        stand: Stand::Tenant,
        aim: Aim::Resident(BOMB - 64 * MIB),
        barriers: &[LIMITS, GROUP],
        at_least: 1,
        run: memory_bomb,
    },
    Drill {
        name: "fork_bomb",
        tries: "starts 16 processes",
        stand: Stand::Tenant,
        aim: Aim::Processes(9),
        barriers: &[SECCOMP, GROUP, LIMITS],
        at_least: 1,
        run: fork_bomb,
    },
    Drill {
        name: "descriptor_bomb",
        tries: "opens 900 descriptors",
        stand: Stand::Tenant,
        aim: Aim::Descriptors(600),
        barriers: &[SECCOMP, LIMITS],
        at_least: 1,
        run: |_| {
            for _ in 0..DESCRIPTORS {
                step("eventfd2", libc::SYS_eventfd2, &[0, 0])?;
            }
            Ok("opened".into())
        },
    },
    Drill {
        name: "descriptors_in_flight",
        tries: "sends 900 descriptors to itself, where no limit of open ones counts them (SCM_RIGHTS)",
        stand: Stand::Tenant,
        aim: Aim::InFlight(600),
        barriers: &[SECCOMP, LIMITS],
        at_least: 1,
        run: in_flight,
    },
];

fn memory_bomb(_: &mut Inside<'_>) -> Tried {
    const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    for _ in 0..BOMB / MIB {
        let at = step(
            "mmap",
            libc::SYS_mmap,
            &[0, MIB, READ_WRITE, ANONYMOUS, u64::MAX, 0],
        )?;
        for page in (at..at + MIB).step_by(4096) {
            // SAFETY: mapped just now, and writable.
            unsafe { std::ptr::write_volatile(page as *mut u8, 1) };
        }
    }
    Ok("filled".into())
}

/// Starts processes that do nothing. They end with this one, as far as they can
/// see to it themselves.
fn fork_bomb(_: &mut Inside<'_>) -> Tried {
    let mut pids = Vec::with_capacity(FORKS);
    for _ in 0..FORKS {
        match step("fork", libc::SYS_fork, &[])? {
            0 => loop {
                let _ = step("pause", libc::SYS_pause, &[]);
            },
            pid => pids.push(pid.to_string()),
        }
    }
    Ok(pids.join(" "))
}

/// Starts a thread that does nothing, on a stack of its own.
pub(super) fn start_thread() -> Result<u64, Refusal> {
    const FLAGS: u64 = (libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM) as u64;
    let stack = Box::leak(vec![0u64; 512].into_boxed_slice());
    let top = stack.as_mut_ptr_range().end as u64;
    let result: i64;
    // SAFETY: the new thread begins behind the system call with zero as the result
    // and stays there, in a loop that makes system calls and touches no memory;
    // this one goes on behind the loop.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 3f",
            "2:",
            "mov eax, 34",
            "syscall",
            "jmp 2b",
            "3:",
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") FLAGS, in("rsi") top, in("rdx") 0, in("r10") 0, in("r8") 0,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    u64::try_from(result).map_err(|_| Refusal {
        step: "clone",
        errno: -result as i32,
    })
}

fn in_flight(_: &mut Inside<'_>) -> Tried {
    let mut pair = [0i32; 2];
    step(
        "socketpair",
        libc::SYS_socketpair,
        &[
            libc::AF_UNIX as u64,
            libc::SOCK_DGRAM as u64,
            0,
            pair.as_mut_ptr() as u64,
        ],
    )?;
    for _ in 0..DESCRIPTORS / ONE_MESSAGE {
        send_descriptors(pair)?;
    }
    Ok("sent".into())
}

/// How many go in one message: `SCM_MAX_FD` is 253.
const ONE_MESSAGE: usize = 225;

/// Sends the same descriptor over and over in one message (unix(7)).
fn send_descriptors(pair: [i32; 2]) -> Result<(), Refusal> {
    let length = size_of::<libc::cmsghdr>() + ONE_MESSAGE * size_of::<i32>();
    let mut control = vec![0u64; length.div_ceil(8)];
    let words: Vec<i32> = std::iter::repeat_n(pair[1], ONE_MESSAGE).collect();
    let head = libc::cmsghdr {
        cmsg_len: length,
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    let at = control.as_mut_ptr().cast::<u8>();
    // SAFETY: `control` is as long as the head and the words.
    unsafe {
        at.cast::<libc::cmsghdr>().write(head);
        std::ptr::copy_nonoverlapping(
            words.as_ptr().cast::<u8>(),
            at.add(size_of::<libc::cmsghdr>()),
            ONE_MESSAGE * size_of::<i32>(),
        );
    }
    let mut byte = [0u8];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: all-zero is a msghdr.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = at.cast();
    message.msg_controllen = length;
    step(
        "sendmsg",
        libc::SYS_sendmsg,
        &[pair[0] as u64, (&raw const message) as u64, 0],
    )
    .map(drop)
}
