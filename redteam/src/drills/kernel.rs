//! Parts of the kernel that break-outs have come through, and that a worker has
//! no use for. Having the descriptor is the effect: what would follow is a fault
//! in the kernel.

use lazaret_wall::Layer;

use crate::drill::{Aim, Barrier, Drill, Stand, Tried, step};
use crate::inside::Inside;

const SECCOMP: Barrier = Barrier::Wall(Layer::Seccomp);

const fn drill(
    name: &'static str,
    tries: &'static str,
    aim: Aim,
    run: fn(&mut Inside<'_>) -> Tried,
) -> Drill {
    Drill {
        name,
        tries,
        stand: Stand::Tenant,
        aim,
        barriers: &[SECCOMP],
        at_least: 1,
        run,
    }
}

/// The drills.
pub const DRILLS: &[Drill] = &[
    Drill {
        name: "io_uring",
        tries: "makes a ring for system calls past the filter (io_uring_setup)",
        stand: Stand::Tenant,
        aim: Aim::Holds("anon_inode:[io_uring]"),
        // The ring is locked memory, where kernels still count it as such.
        barriers: &[SECCOMP, Barrier::Wall(Layer::Rlimits)],
        at_least: 1,
        run: io_uring,
    },
    drill(
        "userfaultfd",
        "makes a handler of page faults, with which the kernel can be held in the middle of a copy",
        Aim::Holds("anon_inode:[userfaultfd]"),
        // UFFD_USER_MODE_ONLY: what ordinary users may have.
        |_| descriptor("userfaultfd", libc::SYS_userfaultfd, &[1]),
    ),
    drill(
        "bpf",
        "makes a map for programs in the kernel (bpf)",
        Aim::Holds("anon_inode:bpf-map"),
        |_| {
            // BPF_MAP_CREATE of an array: type, key, value, entries.
            let mut attributes = [0u32; 32];
            attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
            descriptor(
                "bpf",
                libc::SYS_bpf,
                &[0, attributes.as_mut_ptr() as u64, 128],
            )
        },
    ),
    drill(
        "perf_events",
        "counts what the processor does (perf_event_open)",
        Aim::Holds("anon_inode:[perf_event]"),
        |_| {
            // A software clock of this process: type 1, size 64, config 0.
            let mut attributes = [0u64; 16];
            attributes[0] = 1 | 64 << 32;
            descriptor(
                "perf_event_open",
                libc::SYS_perf_event_open,
                &[attributes.as_mut_ptr() as u64, 0, u64::MAX, u64::MAX, 0],
            )
        },
    ),
    drill(
        "key_ring",
        "reads a key in the kernel that everybody may read (keyctl)",
        Aim::Secret,
        |inside| {
            const KEYCTL_READ: u64 = 11;
            let mut bytes = vec![0u8; 256];
            let length = step(
                "keyctl",
                libc::SYS_keyctl,
                &[
                    KEYCTL_READ,
                    inside.word_number("serial"),
                    bytes.as_mut_ptr() as u64,
                    256,
                ],
            )?;
            bytes.truncate(length as usize);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        },
    ),
    drill(
        "hidden_memory",
        "makes memory that not even the kernel's own debugger sees (memfd_secret)",
        Aim::Holds("/secretmem"),
        |_| descriptor("memfd_secret", libc::SYS_memfd_secret, &[0]),
    ),
    drill(
        "landlock_rules",
        "makes Landlock rules of its own",
        Aim::Holds("anon_inode:[landlock-ruleset]"),
        |_| {
            let handled = [1u64; 1];
            descriptor(
                "landlock_create_ruleset",
                libc::SYS_landlock_create_ruleset,
                &[handled.as_ptr() as u64, 8, 0],
            )
        },
    ),
    drill(
        "asynchronous_io",
        "makes a queue of reads and writes that the kernel does by itself (io_setup)",
        Aim::Mapping("/[aio]"),
        |_| {
            let mut context = 0u64;
            step(
                "io_setup",
                libc::SYS_io_setup,
                &[8, (&raw mut context) as u64],
            )?;
            Ok(format!("context {context:#x}"))
        },
    ),
    drill(
        "personality",
        "asks that all readable memory be executable (personality)",
        Aim::Personality(READ_IMPLIES_EXEC),
        |_| {
            step(
                "personality",
                libc::SYS_personality,
                &[READ_IMPLIES_EXEC.into()],
            )?;
            Ok("set".into())
        },
    ),
    drill(
        "local_descriptor_table",
        "makes a code segment of its own for 16-bit code (modify_ldt)",
        Aim::Reply("entry 0"),
        |_| {
            // `struct user_desc` of entry 0: a data segment, 32-bit, not present.
            let entry = [0u32, 0, 0, 0b0010_1000];
            step(
                "modify_ldt",
                libc::SYS_modify_ldt,
                &[1, entry.as_ptr() as u64, 16],
            )?;
            // Reading it back is the proof: 8 bytes for each entry there is.
            let mut table = [0u8; 8];
            let length = step(
                "modify_ldt",
                libc::SYS_modify_ldt,
                &[0, table.as_mut_ptr() as u64, 8],
            )?;
            Ok(format!("entry 0, {length} bytes"))
        },
    ),
];

fn io_uring(_: &mut Inside<'_>) -> Tried {
    let mut parameters = [0u8; 120];
    descriptor(
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        &[4, parameters.as_mut_ptr() as u64],
    )
}

/// `READ_IMPLIES_EXEC` (personality(2)).
const READ_IMPLIES_EXEC: u32 = 0x0040_0000;

fn descriptor(name: &'static str, number: i64, arguments: &[u64]) -> Tried {
    step(name, number, arguments).map(|fd| format!("descriptor {fd}"))
}
