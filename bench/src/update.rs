//! An update that writes N pages of a large heap, committed.

use lazaret::{Reply, Tenant};

use crate::Options;
use crate::error::BenchError;
use crate::in_process::InProcess;
use crate::page_cache::PageCache;
use crate::sample::{MICROSECOND, Sample};
use crate::table::{Row, Target};

pub(crate) const PAGES: &str = include_str!("../../tests/fixtures/wat/pages.wat");

/// Where the guest's first written page lies, and where its heap ends.
const FIRST: u64 = 65_536;
const END: u64 = 256 << 20;
pub(crate) const PAGE: u64 = 4096;

/// How many pages, how often, and in batches of how many.
struct Size {
    pages: u64,
    relaxed: usize,
    durable: usize,
    batch: usize,
    keys: [&'static str; 2],
}

const SIZES: [Size; 3] = [
    Size {
        pages: 1,
        relaxed: 4_000,
        durable: 400,
        batch: 50,
        keys: ["update/1", "update/1/durable"],
    },
    Size {
        pages: 100,
        relaxed: 2_000,
        durable: 200,
        batch: 20,
        keys: ["update/100", "update/100/durable"],
    },
    Size {
        pages: 10_000,
        relaxed: 25,
        durable: 15,
        batch: 1,
        keys: ["update/10000", "update/10000/durable"],
    },
];

/// The guest's argument: how many pages, and how far apart.
pub(crate) fn argument(count: u64, stride: u64) -> Vec<u8> {
    [count.to_le_bytes(), stride.to_le_bytes()].concat()
}

/// As far apart as so many pages can be in the heap, at page boundaries.
fn stride(pages: u64) -> u64 {
    (END - FIRST) / pages / PAGE * PAGE
}

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !SIZES.iter().any(|size| options.wants_any(&size.keys)) {
        return Ok(());
    }
    let fresh = InProcess::new(PAGES, "canister_update write")?;
    for (index, durable) in [false, true].into_iter().enumerate() {
        for size in SIZES.iter().filter(|size| options.wants(size.keys[index])) {
            let durability = if durable {
                "on disk"
            } else {
                "in the page cache"
            };
            progress(&format!(
                "an update that writes {} pages, committed {durability}",
                size.pages
            ));
            // A directory for each: a log that has grown says nothing about
            // the next size.
            let directory = options.temporary()?;
            let builder = options.host().data_dir(directory.path());
            let host = if durable {
                builder.build()?
            } else {
                builder.relaxed_durability().build()?
            };
            let tenant = host.install("pages", PAGES, &[])?;
            let times = options.times(if durable { size.durable } else { size.relaxed });
            // One update before each batch, and the very first.
            let updates = times + times.div_ceil(size.batch) + 1;
            let (mut page_cache, plain) =
                PageCache::hold_timed(directory.path(), size.pages, updates)?;
            let row = measure(size, durable, times, &tenant, &fresh, &mut page_cache)?;
            rows.push(row.note(format!(
                "a plain write of as many bytes to a new file takes {:.1} us; before each batch as much of the page cache is freed as it will need, or a hypervisor that gives memory at its first use would be measured",
                plain.median(MICROSECOND)
            )));
            // What is removed isn't put on disk when the host goes.
            host.remove("pages")?;
        }
    }
    Ok(())
}

/// The parts of an update that the host tells apart.
#[derive(Default)]
struct Parts {
    run: Sample,
    scan: Sample,
    write: Sample,
    sync: Sample,
}

impl Parts {
    fn push(&mut self, reply: &Reply) {
        if let Some(commit) = &reply.committed {
            self.run.push(commit.run_time);
            self.scan.push(commit.scan_time);
            self.write.push(commit.write_time);
            self.sync.push(commit.sync_time);
        }
    }
}

fn measure(
    size: &Size,
    durable: bool,
    times: usize,
    tenant: &Tenant,
    fresh: &InProcess,
    page_cache: &mut PageCache,
) -> Result<Row, BenchError> {
    let argument = argument(size.pages, stride(size.pages));
    let expected = size.pages.to_le_bytes();
    let check = |who: &'static str, found: Vec<u8>| match found == expected {
        true => Ok(()),
        false => Err(BenchError::Answer {
            who,
            found,
            expected: expected.to_vec(),
        }),
    };
    // The worker's start is not part of the first update.
    tenant.query("read", &FIRST.to_le_bytes())?;
    let mut first = Sample::default();
    first.time(|| tenant.update("write", &argument))?;
    let (mut ours, mut theirs, mut parts) =
        (Sample::default(), Sample::default(), Parts::default());
    let mut left = times;
    while left > 0 {
        let batch = left.min(size.batch);
        left -= batch;
        page_cache.free(batch + 1)?;
        check("the tenant", tenant.update("write", &argument)?.bytes)?;
        for _ in 0..batch {
            let reply = ours.time(|| tenant.update("write", &argument))?;
            parts.push(&reply);
            check("the tenant", reply.bytes)?;
        }
        check("the in-process instance", fresh.call(&argument)?)?;
        for _ in 0..batch {
            let reply = theirs.time(|| fresh.call(&argument))?;
            check("the in-process instance", reply)?;
        }
    }
    Ok(row(size, durable, [&ours, &theirs, &first], &parts))
}

fn row(size: &Size, durable: bool, [ours, theirs, first]: [&Sample; 3], parts: &Parts) -> Row {
    let what = format!(
        "update writing {} scattered page{} of 256 MiB, {}",
        size.pages,
        if size.pages == 1 { "" } else { "s" },
        if durable {
            "committed on disk (fdatasync)"
        } else {
            "committed to the page cache"
        }
    );
    let us = |sample: &Sample| sample.median(MICROSECOND);
    let mut row = Row::new(size.keys[usize::from(durable)], what, "us")
        .ours(ours.len(), ours.quantiles(MICROSECOND))
        .baseline("wasmtime in-process, pooling allocator, fresh instance that writes the same pages and keeps nothing", theirs.quantiles(MICROSECOND))
        .note(format!(
            "parts at p50: run {:.1}, find the pages {:.1}, copy and write {:.1}, sync {:.1} us",
            us(&parts.run),
            us(&parts.scan),
            us(&parts.write),
            us(&parts.sync)
        ))
        // The argument lies in a page of its own.
        .note(format!("per page: {:.2} us, baseline {:.2} us", us(ours) / (size.pages + 1) as f64, us(theirs) / (size.pages + 1) as f64))
        .note(format!(
            "the very first such update, which enters every chunk of {} KiB that it touches: {:.1} us",
            lazaret::wire::layout::CHUNK >> 10,
            first.median(MICROSECOND)
        ));
    if !durable && size.pages >= 100 {
        row = row.target(Target::Ratio(1.2));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_spread_over_the_whole_heap() {
        for size in &SIZES {
            let last = FIRST + (size.pages - 1) * stride(size.pages);
            assert!(last < END && stride(size.pages).is_multiple_of(PAGE));
            assert!(
                size.pages == 1 || last > END * 9 / 10,
                "{} pages end at {last}",
                size.pages
            );
        }
    }
}
