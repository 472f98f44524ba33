//! Stable memory, by 32- and 64-bit calls.

use super::super::context::Contexts;
use super::super::costs;
use super::super::state::Guest;
use super::super::stop::Stop;
use super::Type::{I32, I64};
use super::{Arguments, Import};
use crate::memory::region::CopyRefused;

/// Pages of 64 KiB that the 32-bit calls can reach.
const PAGES_32: u64 = 1 << 16;
const REFUSED_32: u64 = u32::MAX as u64;
const REFUSED_64: u64 = u64::MAX;

pub(super) const TABLE: &[Import] = &[
    Import {
        name: "stable_size",
        parameters: &[],
        result: Some(I32),
        allowed: Contexts::ALL,
        run: size_32,
    },
    Import {
        name: "stable_grow",
        parameters: &[I32],
        result: Some(I32),
        allowed: Contexts::ALL,
        run: grow_32,
    },
    Import {
        name: "stable_write",
        parameters: &[I32, I32, I32],
        result: None,
        allowed: Contexts::ALL,
        run: write_32,
    },
    Import {
        name: "stable_read",
        parameters: &[I32, I32, I32],
        result: None,
        allowed: Contexts::ALL,
        run: read_32,
    },
    Import {
        name: "stable64_size",
        parameters: &[],
        result: Some(I64),
        allowed: Contexts::ALL,
        run: |guest, _| Ok(guest.state().stable.pages()),
    },
    Import {
        name: "stable64_grow",
        parameters: &[I64],
        result: Some(I64),
        allowed: Contexts::ALL,
        run: |guest, &[pages, ..]| Ok(grow(guest, pages)?.unwrap_or(REFUSED_64)),
    },
    Import {
        name: "stable64_write",
        parameters: &[I64, I64, I64],
        result: None,
        allowed: Contexts::ALL,
        run: write,
    },
    Import {
        name: "stable64_read",
        parameters: &[I64, I64, I64],
        result: None,
        allowed: Contexts::ALL,
        run: read,
    },
];

/// The 32-bit calls trap once the memory is larger than they can say.
fn reachable(guest: &Guest<'_>) -> Result<u64, Stop> {
    match guest.state().stable.pages() {
        pages if pages > PAGES_32 => Err(guest.contract(format_args!(
            "stable memory has {pages} pages, more than 32-bit calls can reach; use stable64 calls"
        ))),
        pages => Ok(pages),
    }
}

fn size_32(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    reachable(guest)
}

fn grow_32(guest: &mut Guest<'_>, &[pages, ..]: &Arguments) -> Result<u64, Stop> {
    if reachable(guest)? + pages > PAGES_32 {
        guest.charge(costs::growing(pages))?;
        return Ok(REFUSED_32);
    }
    Ok(grow(guest, pages)?.unwrap_or(REFUSED_32))
}

fn write_32(guest: &mut Guest<'_>, arguments: &Arguments) -> Result<u64, Stop> {
    reachable(guest)?;
    write(guest, arguments)
}

fn read_32(guest: &mut Guest<'_>, arguments: &Arguments) -> Result<u64, Stop> {
    reachable(guest)?;
    read(guest, arguments)
}

fn grow(guest: &mut Guest<'_>, pages: u64) -> Result<Option<u64>, Stop> {
    guest.charge(costs::growing(pages))?;
    if let Some(size) = guest.state().stable.size_with(pages) {
        let before = guest.state().stable.region().size();
        guest.state_mut().may_grow(size.saturating_sub(before))?;
    }
    Ok(guest.state().stable.grow(pages)?)
}

fn write(guest: &mut Guest<'_>, &[to, from, length, ..]: &Arguments) -> Result<u64, Stop> {
    guest.charge(costs::copying(length))?;
    let (heap, stable) = (&guest.state().heap, guest.state().stable.region());
    heap.copy_to(from, stable, to, length)
        .map(|()| 0)
        .map_err(|refused| match refused {
            CopyRefused::Source => guest.beyond("heap", from, length, heap.size()),
            CopyRefused::Target => guest.beyond("stable memory", to, length, stable.size()),
        })
}

fn read(guest: &mut Guest<'_>, &[to, from, length, ..]: &Arguments) -> Result<u64, Stop> {
    guest.charge(costs::copying(length))?;
    let (heap, stable) = (&guest.state().heap, guest.state().stable.region());
    stable
        .copy_to(from, heap, to, length)
        .map(|()| 0)
        .map_err(|refused| match refused {
            CopyRefused::Source => guest.beyond("stable memory", from, length, stable.size()),
            CopyRefused::Target => guest.beyond("heap", to, length, heap.size()),
        })
}
