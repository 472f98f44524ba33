//! What others left behind: a tenant fills all that it has with a pattern, and
//! other workers look for that in all that they have or can get.
//!
//! The pattern is a word of eight bytes, over and over. Who looks for it is told
//! its product with an odd number, not the word itself, and so can't find what it
//! was told.

use std::hint::black_box;

use lazaret_wire::layout::{self, PAGE};
use lazaret_wire::message::{FromWorker, HostCall};

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;
use crate::system_call::system_call;

/// The kernel, which clears what it gives, and a host that keeps nothing of one
/// tenant where another could see it.
pub const STOPPED_BY: Guard = Guard::Pages;

/// What a word is multiplied with for who looks for it (from 2^64 and the golden
/// ratio; odd, so that it can be undone).
pub const SCRAMBLE: u64 = 0x9e37_79b9_7f4a_7c15;

const MIB: usize = 1 << 20;

/// The attacks. `plant WORD` fills everything with the word, `find PRODUCT
/// FROM-TO…` looks for it in these ranges of addresses and in what it can get.
pub const ATTACKS: &[Attack] = &[
    Attack::native("plant", STOPPED_BY, Expected::Reply("planted"), plant),
    Attack::native("find", STOPPED_BY, Expected::Reply("found 0 "), find),
];

fn fill(at: *mut u8, bytes: usize, word: u64) {
    for offset in (0..bytes).step_by(8) {
        // SAFETY: the callers own these bytes, and begin at a multiple of 8.
        unsafe { at.add(offset).cast::<u64>().write_volatile(word) };
    }
}

/// Fills a part of the stack, and comes back.
#[inline(never)]
fn stack(word: u64, depth: u32) -> u64 {
    let mut frame = [0u64; 1024];
    for slot in &mut frame {
        // SAFETY: a place on this stack.
        unsafe { std::ptr::write_volatile(slot, word) };
    }
    let below = match depth {
        0 => 0,
        _ => stack(word, depth - 1),
    };
    black_box(frame)[depth as usize % 1024] ^ below
}

/// Anonymous memory of `bytes`, or nothing if the kernel refuses.
fn map(bytes: usize) -> Option<*mut u8> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    // SAFETY: new memory, wherever the kernel likes.
    let at = unsafe {
        system_call(
            libc::SYS_mmap,
            [0, bytes as u64, protection, flags, u64::MAX, 0],
        )
    };
    (at > 0).then_some(at as *mut u8)
}

fn plant(inside: &mut Inside<'_>) -> String {
    let word = inside.number();
    // Memory of the process: kept, and given back.
    let mut vectors = 0;
    for keep in [true, false] {
        let mut bytes = vec![0u64; 16 * MIB / 8];
        bytes.fill(black_box(word));
        vectors += usize::from(black_box(&bytes).len() > 1);
        if keep {
            // As long as the worker.
            bytes.leak();
        }
    }
    if let Some(at) = map(16 * MIB) {
        fill(at, 16 * MIB, word);
        // SAFETY: mapped just now, and nobody else's.
        unsafe { system_call(libc::SYS_munmap, [at as u64, 16 * MIB as u64, 0, 0, 0, 0]) };
    }
    black_box(stack(word, 16));
    // The tenant's memories, beyond the first page, in which its sum is.
    let Some((_, canister)) = inside.tenant else {
        return "this is no tenant".into();
    };
    let sizes = canister.memory().sizes();
    let (heap, stable) = (inside.heap(), canister.memory().stable().region().base());
    // SAFETY: inside the heap.
    fill(unsafe { heap.add(PAGE) }, sizes.heap as usize - PAGE, word);
    fill(stable, sizes.stable as usize, word);
    // What the host copies: a host call and its argument.
    let argument: Vec<u8> = word.to_ne_bytes().repeat(8);
    inside.answer(&FromWorker::HostCall(HostCall {
        function: 0,
        argument,
    }));
    let _ = inside.exchange.next();
    // The wire, but for the bells. The answer to this call goes over it.
    let shared = inside.shared();
    let bytes = word.to_ne_bytes().repeat(PAGE / 8);
    let areas = [
        (layout::REQUEST, layout::REQUEST_SIZE),
        (layout::ANSWER, layout::ANSWER_SIZE),
        (layout::TRANSFER, layout::TRANSFER_PAGES * PAGE),
        (layout::LAST_WORDS, layout::LAST_WORDS_SIZE),
    ];
    for (from, size) in areas {
        for at in (from..from + size).step_by(PAGE) {
            shared.copy_in(at, &bytes);
        }
    }
    format!(
        "planted in {} bytes of heap and {} of stable memory, {vectors} vectors",
        sizes.heap, sizes.stable
    )
}

/// Whether a page can be read: the kernel reads a futex word before it compares it
/// (futex(2): EFAULT, or EAGAIN as the value isn't there; a word that is `value` by
/// chance times out at once).
fn readable(page: u64) -> bool {
    const WAIT: u64 = libc::FUTEX_WAIT as u64 | 128;
    let timeout = [0u64; 2];
    // SAFETY: a timeout of zero, and a word that is only read.
    let result = unsafe {
        system_call(
            libc::SYS_futex,
            [page, WAIT, 0x5eed_5eed, timeout.as_ptr() as u64, 0, 0],
        )
    };
    result != -i64::from(libc::EFAULT)
}

/// How often the word is in these bytes, at any byte.
fn count(at: *const u8, bytes: usize, product: u64) -> u64 {
    let mut found = 0;
    for offset in 0..bytes.saturating_sub(7) {
        // SAFETY: the callers checked that these pages can be read.
        let word = unsafe { at.add(offset).cast::<u64>().read_unaligned() };
        found += u64::from(word.wrapping_mul(SCRAMBLE) == product);
    }
    found
}

/// Looks at what is mapped, then at all that can be had.
fn find(inside: &mut Inside<'_>) -> String {
    let mut words = inside.argument.split_whitespace();
    let Some(product) = words.next().and_then(|word| word.parse().ok()) else {
        return "find what?".into();
    };
    let (mut found, mut looked) = (0, 0);
    for range in words {
        let Some((from, to)) = range.split_once('-') else {
            return format!("`{range}` is no range");
        };
        let address = |text| u64::from_str_radix(text, 16).unwrap_or(0);
        let mut page = address(from);
        while page < address(to) {
            if readable(page) {
                found += count(page as *const u8, PAGE, product);
                looked += PAGE;
            }
            page += PAGE as u64;
        }
    }
    // Until the limit of memory, with one write to each page: the kernel then
    // gives a page that was somebody's before. What remains is let go of at the
    // end, so that the worker can answer.
    let mut got = Vec::with_capacity(1 << 12);
    while let Some(at) = map(MIB) {
        for page in (0..MIB).step_by(PAGE) {
            // SAFETY: mapped just now.
            unsafe { at.add(page).write_volatile(1) };
        }
        found += count(at, MIB, product);
        looked += MIB;
        got.push(at as u64);
        if got.len() == got.capacity() {
            break;
        }
    }
    for at in &got {
        // SAFETY: mapped above, and nobody else's.
        unsafe { system_call(libc::SYS_munmap, [*at, MIB as u64, 0, 0, 0, 0]) };
    }
    format!(
        "found {found} in {looked} bytes, {} MiB of them new",
        got.len()
    )
}
