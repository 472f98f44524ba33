//! Running code that the attacker has written.

use lazaret_wall::Layer;

use crate::attack::Value;
use crate::drill::{Aim, Barrier, Drill, Refusal, Stand, Tried, step};
use crate::inside::Inside;

const READ: u64 = libc::PROT_READ as u64;
const WRITE: u64 = libc::PROT_WRITE as u64;
const EXECUTE: u64 = libc::PROT_EXEC as u64;
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const PAGE: u64 = 4096;

/// `mov eax, 0x5ec; ret`.
pub const CODE: [u8; 6] = [0xb8, 0xec, 0x05, 0x00, 0x00, 0xc3];

const fn drill(
    name: &'static str,
    tries: &'static str,
    run: fn(&mut Inside<'_>) -> Tried,
) -> Drill {
    Drill {
        name,
        tries,
        stand: Stand::Tenant,
        aim: Aim::Code,
        barriers: &[Barrier::Wall(Layer::Seccomp), Barrier::Wall(Layer::Mdwe)],
        at_least: 2,
        run,
    }
}

/// The drills.
pub const DRILLS: &[Drill] = &[
    drill(
        "write_then_execute",
        "writes code to memory, makes that executable, and runs it",
        |_| {
            let at = map(0, READ | WRITE, 0)?;
            put(at);
            protect(at, READ | EXECUTE)?;
            Ok(run(at))
        },
    ),
    drill(
        "writable_and_executable",
        "maps memory that is both writable and executable, writes code there, and runs it",
        |_| {
            let at = map(0, READ | WRITE | EXECUTE, 0)?;
            put(at);
            Ok(run(at))
        },
    ),
    drill(
        "map_over_code",
        "maps memory of its own over the worker's code (MAP_FIXED), and runs what it writes there",
        |inside| {
            let code = inside.resolve(Value::Code);
            let at = map(code, READ | WRITE, libc::MAP_FIXED as u64)?;
            put(at);
            protect(at, READ | EXECUTE)?;
            Ok(run(at))
        },
    ),
    drill(
        "rewrite_code",
        "makes the worker's code writable, changes it, makes it executable again, and runs it",
        |inside| {
            let code = inside.resolve(Value::Code);
            protect(code, READ | WRITE)?;
            put(code);
            protect(code, READ | EXECUTE)?;
            Ok(run(code))
        },
    ),
    drill(
        "jit_spray_by_wire",
        "puts code into the memory that it shares with the host, makes that executable, and runs it",
        |inside| {
            let at = inside.shared().address() as u64 + lazaret_wire::layout::ANSWER as u64;
            put(at);
            protect(at, READ | EXECUTE)?;
            Ok(run(at))
        },
    ),
    drill(
        "heap_as_code",
        "makes the tenant's heap executable, and runs what the tenant wrote there",
        |inside| {
            let at = inside.heap() as u64 + 8 * PAGE;
            put(at);
            protect(at, READ | EXECUTE)?;
            Ok(run(at))
        },
    ),
];

fn map(at: u64, protection: u64, flags: u64) -> Result<u64, Refusal> {
    step(
        "mmap",
        libc::SYS_mmap,
        &[at, PAGE, protection, ANONYMOUS | flags, u64::MAX, 0],
    )
}

fn protect(at: u64, protection: u64) -> Result<(), Refusal> {
    step(
        "mprotect",
        libc::SYS_mprotect,
        &[at & !(PAGE - 1), PAGE, protection],
    )
    .map(drop)
}

fn put(at: u64) {
    // SAFETY: writable since the call before, and nobody's but the attacker's.
    unsafe { std::ptr::copy_nonoverlapping(CODE.as_ptr(), at as *mut u8, CODE.len()) };
}

fn run(at: u64) -> String {
    // SAFETY: `put` wrote a whole function there, which changes only `eax`.
    let code: extern "C" fn() -> u32 = unsafe { std::mem::transmute(at as *const ()) };
    format!("{:#x} at={at}", code())
}
