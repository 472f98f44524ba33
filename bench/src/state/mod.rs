//! What keeping state costs: pages that are written again and again, large
//! heaps, cold tenants, snapshots, checkpoints, hashes.

mod base_read;
mod branch;
mod checkpoint;
pub(crate) mod cold;
mod hash;
mod hot_pages;
mod large_heap;

use std::num::NonZeroU64;
use std::path::Path;

use lazaret::{Host, Tenant};

use crate::Options;
use crate::error::BenchError;
use crate::table::Row;
use crate::update::{PAGE, PAGES, argument};

/// The first page that the guest writes when it is asked to write some.
pub(crate) const FIRST: u64 = 65_536;
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    hot_pages::rows(options, progress, rows)?;
    large_heap::row(options, progress, rows)?;
    base_read::row(options, progress, rows)?;
    cold::rows(options, progress, rows)?;
    branch::rows(options, progress, rows)?;
    checkpoint::rows(options, progress, rows)?;
    hash::rows(options, progress, rows)
}

/// The module of `update::PAGES` with a heap of so many bytes, at most 4 GiB.
fn module(heap: u64) -> String {
    let pages = heap >> 16;
    PAGES
        .replace("4096 4096)", &format!("{pages} {pages})"))
        .replace("268435455", &format!("{}", heap - 1))
}

/// A host whose compaction doesn't go on by itself: a row that wants one asks
/// for it, and no other is disturbed.
pub(crate) fn host(options: &Options, directory: &Path) -> Result<Host, BenchError> {
    Ok(options
        .host()
        .data_dir(directory)
        .relaxed_durability()
        .compaction_rate(NonZeroU64::new(1))
        .build()?)
}

/// How many pages fill a heap, but for those before the first.
fn all_pages(heap: u64) -> u64 {
    (heap - FIRST) / PAGE
}

/// A tenant whose heap holds something in every page.
pub(crate) fn full(host: &Host, name: &str, heap: u64) -> Result<Tenant, BenchError> {
    let tenant = host.install(name, module(heap), &[])?;
    write(&tenant, all_pages(heap), PAGE)?;
    Ok(tenant)
}

/// Writes to `count` pages, `stride` bytes apart.
fn write(tenant: &Tenant, count: u64, stride: u64) -> Result<(), BenchError> {
    let reply = tenant.update("write", &argument(count, stride))?;
    let expected = count.to_le_bytes();
    match reply.bytes == expected {
        true => Ok(()),
        false => Err(BenchError::Answer {
            who: "the tenant",
            found: reply.bytes,
            expected: expected.to_vec(),
        }),
    }
}
