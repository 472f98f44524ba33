//! Tricks with the cards, by which a worker says what it wrote: setting all,
//! setting none, taking them away while the host reads and clears them.

use lazaret_guest::memory::Cards;
use lazaret_wire::layout::PAGE;
use lazaret_wire::message::FromWorker;

use super::own_memory::PAGES;
use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;
use crate::system_call::system_call;

/// The host's copying.
pub const STOPPED_BY: Guard = Guard::Pages;

/// The attacks, on a tenant whose writes are tracked by cards.
pub const ATTACKS: &[Attack] = &[
    Attack::native("set_all_cards", STOPPED_BY, Expected::Reply("set"), set_all),
    Attack::native(
        "set_no_card",
        STOPPED_BY,
        Expected::Reply("wrote"),
        set_none,
    ),
    Attack::native(
        "set_wild_cards",
        STOPPED_BY,
        Expected::Reply("set"),
        set_wild,
    ),
    Attack::native("unmap_cards", STOPPED_BY, Expected::Unreadable, unmap_cards),
    Attack::native("close_cards", STOPPED_BY, Expected::Unreadable, close_cards),
    Attack::native(
        "unmap_carded_pages",
        STOPPED_BY,
        Expected::Unreadable,
        unmap_pages,
    ),
    Attack::native(
        "pull_cards_away",
        STOPPED_BY,
        Expected::Reply("pulled"),
        pull_cards,
    ),
];

fn cards<'a>(inside: &Inside<'a>) -> &'a [Cards; 2] {
    match inside
        .tenant
        .and_then(|(_, canister)| canister.memory().cards())
    {
        Some(cards) => cards,
        None => panic!("the tenant has no cards"),
    }
}

/// The cards of the first pages of the heap: a page of them.
fn heap_cards(inside: &Inside<'_>) -> u64 {
    cards(inside)[0].region().base() as u64
}

fn on_cards(inside: &Inside<'_>, number: libc::c_long, protection: i32) -> i64 {
    // SAFETY: a page of cards, which nobody here has a reference to.
    unsafe {
        system_call(
            number,
            [heap_cards(inside), PAGE as u64, protection as u64, 0, 0, 0],
        )
    }
}

/// Marks as compiled code would.
fn mark(inside: &Inside<'_>) {
    cards(inside)[0].mark(PAGE as u64, (PAGES * PAGE) as u64);
}

fn write_pages(inside: &Inside<'_>, byte: u8) {
    for page in 1..=PAGES {
        // SAFETY: inside the heap of 16 MiB, which is writable under cards.
        unsafe { std::ptr::write_volatile(inside.heap().add(page * PAGE), byte) };
    }
}

/// Every page of both memories is said to be written, those beyond their sizes
/// too.
fn set_all(inside: &mut Inside<'_>) -> String {
    for cards in cards(inside) {
        let region = cards.region();
        // SAFETY: the whole of a region of cards; its pages open as they are
        // written.
        unsafe { std::ptr::write_bytes(region.base(), 1, region.size() as usize) };
    }
    "set".into()
}

/// What was written is not said: the tenant loses it, and nobody else
/// anything.
fn set_none(inside: &mut Inside<'_>) -> String {
    write_pages(inside, 5);
    "wrote".into()
}

/// Any value but 0 is a set card.
fn set_wild(inside: &mut Inside<'_>) -> String {
    let base = cards(inside)[0].region().base();
    for page in 0..PAGES {
        // SAFETY: cards of pages of the heap.
        unsafe { std::ptr::write_volatile(base.add(page), page as u8) };
    }
    "set".into()
}

fn unmap_cards(inside: &mut Inside<'_>) -> String {
    mark(inside);
    match on_cards(inside, libc::SYS_munmap, 0) {
        0 => "unmapped".into(),
        error => format!("returned {error}"),
    }
}

fn close_cards(inside: &mut Inside<'_>) -> String {
    mark(inside);
    match on_cards(inside, libc::SYS_mprotect, libc::PROT_NONE) {
        0 => "closed".into(),
        error => format!("returned {error}"),
    }
}

/// Pages that are said to be written are not there.
fn unmap_pages(inside: &mut Inside<'_>) -> String {
    mark(inside);
    let from = inside.heap() as u64 + PAGE as u64;
    // SAFETY: pages of the heap, which nobody uses before the worker is gone.
    let result =
        unsafe { system_call(libc::SYS_munmap, [from, (PAGES * PAGE) as u64, 0, 0, 0, 0]) };
    match result {
        0 => "unmapped".into(),
        error => format!("returned {error}"),
    }
}

/// Takes the cards away while the host reads and clears them, and gives them
/// back.
fn pull_cards(inside: &mut Inside<'_>) -> String {
    mark(inside);
    write_pages(inside, inside.number() as u8);
    inside.answer(&FromWorker::Done(inside.honest("pulled")));
    for _ in 0..200 {
        on_cards(inside, libc::SYS_mprotect, libc::PROT_NONE);
        on_cards(
            inside,
            libc::SYS_mprotect,
            libc::PROT_READ | libc::PROT_WRITE,
        );
    }
    let _ = inside.exchange.next();
    "pulled".into()
}
