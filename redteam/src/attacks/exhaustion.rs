//! Using up what there is: memory, address space, mappings, descriptors.

use lazaret_wall::Layer;

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;
use crate::system_call::system_call;

/// The limits: RLIMIT_DATA counts private writable memory, RLIMIT_AS all
/// addresses, RLIMIT_NOFILE descriptors.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Rlimits);

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const MIB: u64 = 1 << 20;
/// An attack that gets so far was not stopped.
const ENOUGH: u64 = 1 << 20;

/// The attacks. Where the worker lives, it says how far it came.
pub const ATTACKS: &[Attack] = &[
    Attack::native("allocate", STOPPED_BY, Expected::OutOfMemory, allocate),
    Attack::native(
        "break_bomb",
        STOPPED_BY,
        Expected::Reply("refused after"),
        break_bomb,
    ),
    Attack::native(
        "map_bomb",
        STOPPED_BY,
        Expected::Reply("refused after"),
        map_bomb,
    ),
    Attack::native(
        "mappings",
        STOPPED_BY,
        Expected::Reply("refused after"),
        mappings,
    ),
    Attack::native(
        "page_tables",
        STOPPED_BY,
        Expected::Reply("refused after"),
        page_tables,
    ),
    Attack::native(
        "descriptors",
        STOPPED_BY,
        Expected::Reply("refused after"),
        descriptors,
    ),
];

fn allocate(_: &mut Inside<'_>) -> String {
    let mut kept = Vec::new();
    for _ in 0..ENOUGH {
        kept.push(vec![1u8; MIB as usize]);
    }
    format!("got {} MiB", kept.len())
}

/// Moves the break by a MiB at a time, and writes to what it got.
fn break_bomb(_: &mut Inside<'_>) -> String {
    // SAFETY: asks for the break, which changes nothing.
    let start = unsafe { system_call(libc::SYS_brk, [0; 6]) } as u64;
    let mut got = 0;
    while got < ENOUGH {
        let wanted = start + (got + 1) * MIB;
        // SAFETY: only moves the break up.
        let now = unsafe { system_call(libc::SYS_brk, [wanted, 0, 0, 0, 0, 0]) } as u64;
        if now < wanted {
            break;
        }
        got += 1;
        // SAFETY: below the break.
        unsafe { std::ptr::write_volatile((wanted - 8) as *mut u8, 1) };
    }
    // The worker must be able to answer.
    // SAFETY: what lies above was never anybody's.
    unsafe { system_call(libc::SYS_brk, [start, 0, 0, 0, 0, 0]) };
    format!("refused after {got} MiB")
}

fn map_bomb(_: &mut Inside<'_>) -> String {
    let mut got = Vec::with_capacity(4096);
    while (got.len() as u64) < ENOUGH {
        // SAFETY: a fresh mapping.
        let at =
            unsafe { system_call(libc::SYS_mmap, [0, MIB, READ_WRITE, ANONYMOUS, u64::MAX, 0]) };
        if at < 0 || got.len() == got.capacity() {
            break;
        }
        got.push(at as u64);
    }
    for at in &got {
        // SAFETY: ours, and unused.
        unsafe { system_call(libc::SYS_munmap, [*at, MIB, 0, 0, 0, 0]) };
    }
    format!("refused after {} MiB", got.len())
}

/// Mappings of a page each, readable and not in turns, so that the kernel
/// can't join them.
fn mappings(_: &mut Inside<'_>) -> String {
    let mut got = Vec::with_capacity(1 << 17);
    while got.len() < got.capacity() {
        let protection = if got.len() % 2 == 0 {
            libc::PROT_READ as u64
        } else {
            0
        };
        // SAFETY: a fresh mapping.
        let at = unsafe {
            system_call(
                libc::SYS_mmap,
                [0, 4096, protection, ANONYMOUS, u64::MAX, 0],
            )
        };
        if at < 0 {
            break;
        }
        got.push(at as u64);
    }
    for at in &got {
        // SAFETY: ours, and unused.
        unsafe { system_call(libc::SYS_munmap, [*at, 4096, 0, 0, 0, 0]) };
    }
    format!("refused after {} mappings", got.len())
}

/// Memory that can only be read costs no memory (every page is the zero page)
/// and counts for no limit but that of addresses; page tables for it are real
/// memory, and nobody's limit. One page of every 2 MiB is touched, for which
/// the kernel makes a table of 4 KiB. What was mapped stays, to be looked at.
fn page_tables(_: &mut Inside<'_>) -> String {
    const TABLE: u64 = 2 * MIB;
    const READ: u64 = libc::PROT_READ as u64;
    // 256 MiB of tables: this attack was not stopped.
    const TOO_FAR: u64 = (128 << 10) * MIB;
    let (mut size, mut got) = (1024 * MIB, 0);
    let mut refusal = 0;
    while size >= TABLE && got < TOO_FAR {
        // SAFETY: a fresh mapping.
        let at = unsafe { system_call(libc::SYS_mmap, [0, size, READ, ANONYMOUS, u64::MAX, 0]) };
        if at < 0 {
            refusal = -at;
            size /= 2;
            continue;
        }
        got += size;
        for page in (at as u64..at as u64 + size).step_by(TABLE as usize) {
            // SAFETY: mapped above, and readable.
            unsafe { std::ptr::read_volatile(page as *const u8) };
        }
    }
    format!("refused after {} MiB with errno {refusal}", got / MIB)
}

/// Opens a granted directory over and over: for a program that has one.
fn descriptors(_: &mut Inside<'_>) -> String {
    let Some(directory) = super::granted::directory() else {
        return "there is no directory".into();
    };
    let mut got = Vec::with_capacity(1 << 12);
    while got.len() < got.capacity() {
        let fd = super::granted::open_at(directory, c".", libc::O_DIRECTORY);
        if fd < 0 {
            break;
        }
        got.push(fd);
    }
    for fd in &got {
        // SAFETY: opened above.
        unsafe { system_call(libc::SYS_close, [*fd as u64, 0, 0, 0, 0, 0]) };
    }
    format!("refused after {} descriptors", got.len())
}
