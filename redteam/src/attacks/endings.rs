//! Ends that nobody asked for, and lies about them.

use std::sync::atomic::Ordering::Relaxed;

use lazaret_guest::abort::breakpoint;
use lazaret_wire::layout::{LAST_WORDS, LAST_WORDS_SIZE};

use super::host_calls::call;
use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;
use crate::system_call::system_call;

/// The host goes by the kernel's word, then by the worker's.
pub const STOPPED_BY: Guard = Guard::Ending;

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::native("exit", STOPPED_BY, Expected::Exited(0), |_| exit(0)),
    Attack::native("note_and_exit", STOPPED_BY, Expected::Exited(3), |inside| {
        let _ = call(inside, 0, b"a note".to_vec());
        exit(3)
    }),
    Attack::native(
        "exit_as_the_launcher_would",
        STOPPED_BY,
        Expected::Exited(127),
        |_| exit(127),
    ),
    Attack::native(
        "crash",
        STOPPED_BY,
        Expected::Aborted("unexpected signal"),
        crash,
    ),
    Attack::native("panic", STOPPED_BY, Expected::Aborted("panic"), |_| {
        panic!("on purpose")
    }),
    Attack::native(
        "overflow_stack",
        STOPPED_BY,
        Expected::Aborted("native stack overflow"),
        |inside| overflow(inside.number()),
    ),
    Attack::native(
        "fake_panic",
        STOPPED_BY,
        Expected::Aborted("panic"),
        |inside| fake(inside, 1),
    ),
    Attack::native(
        "fake_unknown_reason",
        STOPPED_BY,
        Expected::Aborted("unknown"),
        |inside| fake(inside, 0xdead_beef),
    ),
    Attack::native(
        "breakpoint_without_words",
        STOPPED_BY,
        Expected::Signal(libc::SIGTRAP),
        |_| breakpoint(),
    ),
    Attack::native(
        "illegal_instruction",
        STOPPED_BY,
        Expected::Aborted("unexpected signal"),
        illegal_instruction,
    ),
    Attack::native(
        "divide_by_zero",
        STOPPED_BY,
        Expected::Aborted("unexpected signal"),
        divide,
    ),
    Attack::native(
        "words_before_a_violation",
        STOPPED_BY,
        Expected::Violation,
        words_before_a_violation,
    ),
];

fn exit(code: u64) -> String {
    // SAFETY: ends the process.
    let result = unsafe { system_call(libc::SYS_exit_group, [code, 0, 0, 0, 0, 0]) };
    format!("returned {result}")
}

fn crash(_: &mut Inside<'_>) -> String {
    // SAFETY: none: nothing is mapped there, and that is the point.
    unsafe { std::ptr::write_volatile(0x10 as *mut u8, 1) };
    "wrote to nowhere".into()
}

fn illegal_instruction(_: &mut Inside<'_>) -> String {
    // SAFETY: none: `ud2` is no instruction, and that is the point.
    unsafe { std::arch::asm!("ud2") };
    "went on".into()
}

fn divide(_: &mut Inside<'_>) -> String {
    // SAFETY: none: the processor refuses to divide by zero.
    unsafe {
        std::arch::asm!("xor ecx, ecx", "div ecx", out("ecx") _, inout("eax") 1 => _, inout("edx") 0 => _)
    };
    "went on".into()
}

#[allow(unconditional_recursion, reason = "it is the point")]
fn overflow(depth: u64) -> String {
    let mut frame = [depth; 512];
    std::hint::black_box(&mut frame);
    let deeper = overflow(depth + 1);
    std::hint::black_box(&mut frame);
    deeper
}

/// Last words with wild length and bytes that are no text.
fn words(inside: &Inside<'_>, kind: u32) {
    let shared = inside.shared();
    shared.copy_in(LAST_WORDS + 8, &[0xfe; LAST_WORDS_SIZE - 8]);
    shared.u32(LAST_WORDS + 4).store(u32::MAX, Relaxed);
    shared.u32(LAST_WORDS).store(kind, Relaxed);
}

fn fake(inside: &mut Inside<'_>, kind: u32) -> String {
    words(inside, kind);
    breakpoint()
}

/// Says that it panics, and then tries to leave: that counts.
fn words_before_a_violation(inside: &mut Inside<'_>) -> String {
    words(inside, 1);
    // SAFETY: the filter kills the process first.
    let result = unsafe { system_call(libc::SYS_fork, [0; 6]) };
    format!("returned {result}")
}
