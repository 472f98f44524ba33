//! Making memory executable that the attacker has written, or may write.

use lazaret_wall::Layer;

use crate::attack::{Attack, Expected, Guard, Value, numbers, values};
use crate::inside::Inside;
use crate::system_call::system_call;

/// seccomp looks at the protection; memory-deny-write-execute stands behind
/// it.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

const READ: u64 = libc::PROT_READ as u64;
const WRITE: u64 = libc::PROT_WRITE as u64;
const EXECUTE: u64 = libc::PROT_EXEC as u64;
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const NO_FILE: u64 = u64::MAX;

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::call(
        "map_executable",
        STOPPED_BY,
        libc::SYS_mmap,
        numbers([0, 4096, READ | EXECUTE, ANONYMOUS, NO_FILE]),
    ),
    Attack::call(
        "map_writable_and_executable",
        STOPPED_BY,
        libc::SYS_mmap,
        numbers([0, 4096, READ | WRITE | EXECUTE, ANONYMOUS, NO_FILE]),
    ),
    Attack::call(
        "map_file_executable",
        STOPPED_BY,
        libc::SYS_mmap,
        numbers([0, 4096, READ | EXECUTE, libc::MAP_SHARED as u64, 3]),
    ),
    Attack::call(
        "map_file",
        STOPPED_BY,
        libc::SYS_mmap,
        numbers([0, 4096, READ, libc::MAP_PRIVATE as u64, 3]),
    ),
    Attack::call(
        "map_over_code",
        STOPPED_BY,
        libc::SYS_mmap,
        [
            Value::Code,
            Value::Number(4096),
            Value::Number(READ | WRITE),
            Value::Number(ANONYMOUS | libc::MAP_FIXED as u64),
            Value::Number(NO_FILE),
            Value::Number(0),
        ],
    ),
    Attack::call(
        "heap_executable",
        STOPPED_BY,
        libc::SYS_mprotect,
        values([
            Value::Heap,
            Value::Number(4096),
            Value::Number(READ | EXECUTE),
        ]),
    ),
    Attack::call(
        "shared_executable",
        STOPPED_BY,
        libc::SYS_mprotect,
        values([
            Value::Shared,
            Value::Number(4096),
            Value::Number(READ | EXECUTE),
        ]),
    ),
    Attack::call(
        "code_writable_and_executable",
        STOPPED_BY,
        libc::SYS_mprotect,
        values([
            Value::Code,
            Value::Number(4096),
            Value::Number(READ | WRITE | EXECUTE),
        ]),
    ),
    Attack::call(
        "protect_by_key",
        STOPPED_BY,
        libc::SYS_pkey_mprotect,
        values([
            Value::Heap,
            Value::Number(4096),
            Value::Number(READ | EXECUTE),
            Value::Number(0),
        ]),
    ),
    Attack::call(
        "move_over_code",
        STOPPED_BY,
        libc::SYS_mremap,
        [
            Value::Memory,
            Value::Number(4096),
            Value::Number(4096),
            Value::Number((libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64),
            Value::Code,
            Value::Number(0),
        ],
    ),
    Attack::call(
        "read_implies_execute",
        STOPPED_BY,
        libc::SYS_personality,
        numbers([0x0040_0000]),
    ),
    Attack::native(
        "rewrite_code",
        STOPPED_BY,
        Expected::Violation,
        rewrite_code,
    ),
    Attack::native(
        "run_heap",
        STOPPED_BY,
        Expected::Aborted("unexpected signal"),
        run_heap,
    ),
];

/// Makes code writable, which takes its right to be executed, changes it and
/// asks for the right back.
fn rewrite_code(inside: &mut Inside<'_>) -> String {
    let page = inside.resolve(Value::Code);
    // SAFETY: the code there ran once and never again.
    let opened = unsafe { system_call(libc::SYS_mprotect, [page, 4096, READ | WRITE, 0, 0, 0]) };
    if opened == 0 {
        // SAFETY: writable since the call before.
        unsafe { std::ptr::write_volatile(page as *mut u8, 0xc3) };
    }
    // SAFETY: as above.
    let closed = unsafe { system_call(libc::SYS_mprotect, [page, 4096, READ | EXECUTE, 0, 0, 0]) };
    format!("returned {opened}, then {closed}")
}

/// Jumps into the tenant's heap.
fn run_heap(inside: &mut Inside<'_>) -> String {
    let heap = inside.heap();
    // SAFETY: none: the heap is not executable, and that is the point.
    unsafe {
        std::ptr::write_volatile(heap, 0xc3);
        let entry: extern "C" fn() = std::mem::transmute(heap);
        entry();
    }
    "returned from the heap".into()
}
