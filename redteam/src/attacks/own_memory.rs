//! Tricks with the tenant's own memory, which the host copies pages from and
//! to: taking it away, replacing it, lying about what was written. They are on a
//! tenant that the kernel's tracker watches.

use std::sync::atomic::Ordering::Relaxed;

use lazaret_wire::layout::{CHUNKS_SIZE, ENTERED, HEAP_CHUNKS, PAGE, STABLE_CHUNKS};
use lazaret_wire::message::FromWorker;

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;
use crate::system_call::system_call;

/// The host's copying.
pub const STOPPED_BY: Guard = Guard::Pages;

const NONE: u64 = libc::PROT_NONE as u64;
const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;

/// Pages that attacks write, from the heap's second page on.
pub const PAGES: usize = 1024;

/// The attacks. `pull_away` races with the host, so it may go either way; its
/// expectation is that of a host that is faster.
pub const ATTACKS: &[Attack] = &[
    Attack::native("unmap_heap", STOPPED_BY, Expected::Reply("unmapped"), unmap),
    Attack::native("close_heap", STOPPED_BY, Expected::Unreadable, close),
    Attack::native("replace_heap", STOPPED_BY, Expected::Unreadable, replace),
    Attack::native("pull_away", STOPPED_BY, Expected::Reply("pulled"), pull),
    Attack::native("count_pages", STOPPED_BY, Expected::Reply(""), count),
    Attack::native(
        "all_chunks_entered",
        STOPPED_BY,
        Expected::Reply("entered"),
        enter_all,
    ),
    Attack::native(
        "all_chunks_of_full_memories_entered",
        STOPPED_BY,
        Expected::Reply("entered"),
        enter_all_of_more,
    ),
    Attack::native(
        "no_chunk_entered",
        STOPPED_BY,
        Expected::Reply("hidden"),
        hide,
    ),
];

/// Writes a byte to each of many pages, the sum's not among them.
fn write_pages(inside: &Inside<'_>, byte: u8) {
    for page in 1..=PAGES {
        // SAFETY: inside the heap of 16 MiB; the handler opens closed chunks.
        unsafe { std::ptr::write_volatile(inside.heap().add(page * PAGE), byte) };
    }
}

fn protect(inside: &Inside<'_>, protection: u64) -> i64 {
    let from = inside.heap() as u64 + PAGE as u64;
    // SAFETY: pages of the heap, which nobody uses until they are opened again.
    unsafe {
        system_call(
            libc::SYS_mprotect,
            [from, (PAGES * PAGE) as u64, protection, 0, 0, 0],
        )
    }
}

fn unmap_pages(inside: &Inside<'_>) -> i64 {
    let from = inside.heap() as u64 + PAGE as u64;
    // SAFETY: as in `protect`.
    unsafe { system_call(libc::SYS_munmap, [from, (PAGES * PAGE) as u64, 0, 0, 0, 0]) }
}

/// What was written is gone before the host looks: nothing is there to commit.
fn unmap(inside: &mut Inside<'_>) -> String {
    write_pages(inside, 1);
    match unmap_pages(inside) {
        0 => "unmapped".into(),
        error => format!("returned {error}"),
    }
}

/// What was written is there, and can't be read.
fn close(inside: &mut Inside<'_>) -> String {
    write_pages(inside, 2);
    match protect(inside, NONE) {
        0 => "closed".into(),
        error => format!("returned {error}"),
    }
}

/// Memory that no tracker watches, where the heap was.
fn replace(inside: &mut Inside<'_>) -> String {
    write_pages(inside, 3);
    unmap_pages(inside);
    let from = inside.heap() as u64 + PAGE as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    // SAFETY: a mapping at an address that is free, as a hint.
    let at = unsafe {
        system_call(
            libc::SYS_mmap,
            [from, (PAGES * PAGE) as u64, READ_WRITE, flags, u64::MAX, 0],
        )
    };
    if at as u64 != from {
        return format!("the hint was not taken: {at:#x}");
    }
    write_pages(inside, 3);
    "replaced".into()
}

/// Takes the memory away while the host copies it, and gives it back.
fn pull(inside: &mut Inside<'_>) -> String {
    write_pages(inside, inside.number() as u8);
    inside.answer(&FromWorker::Done(inside.honest("pulled")));
    for _ in 0..200 {
        protect(inside, NONE);
        protect(inside, READ_WRITE);
    }
    // The next request is answered by the loop that called; it is an honest
    // one's, so the attack waits for it and says so.
    let _ = inside.exchange.next();
    "pulled".into()
}

/// No attack: how many of the pages begin with the byte that `pull_away` wrote.
fn count(inside: &mut Inside<'_>) -> String {
    let byte = inside.number() as u8;
    // SAFETY: inside the heap of 16 MiB.
    let begins =
        |page: &usize| unsafe { std::ptr::read_volatile(inside.heap().add(page * PAGE)) } == byte;
    (1..=PAGES).filter(begins).count().to_string()
}

/// Every chunk of both memories is said to be entered.
fn enter_all(inside: &mut Inside<'_>) -> String {
    mark_all(inside);
    "entered".into()
}

fn mark_all(inside: &Inside<'_>) {
    let shared = inside.shared();
    shared.copy_in(HEAP_CHUNKS, &[0xff; CHUNKS_SIZE]);
    shared.copy_in(STABLE_CHUNKS, &[0xff; CHUNKS_SIZE]);
    shared.u32(ENTERED).store(u32::MAX, Relaxed);
}

/// The same, with memories as large as their limits, though this worker's own
/// are not: the tenant has got what it may have, zeros.
fn enter_all_of_more(inside: &mut Inside<'_>) -> String {
    mark_all(inside);
    let mut done = inside.honest("entered");
    let had = done.sizes.heap + done.sizes.stable;
    // The limits of the tests' host, which grants so much to whoever asks.
    done.sizes.heap = 64 << 20;
    done.sizes.stable = 64 << 20;
    let wanted = done.sizes.heap + done.sizes.stable - had;
    inside.answer(&FromWorker::Grow(wanted));
    let _ = inside.exchange.next();
    inside.answer(&FromWorker::Done(done));
    inside.wait_for_the_end()
}

/// Hides what was written: the tenant loses it, and nobody else anything.
fn hide(inside: &mut Inside<'_>) -> String {
    write_pages(inside, 4);
    let shared = inside.shared();
    shared.copy_in(HEAP_CHUNKS, &[0; CHUNKS_SIZE]);
    shared.u32(ENTERED).store(0, Relaxed);
    "hidden".into()
}
