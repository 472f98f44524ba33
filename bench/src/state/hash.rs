//! The hash of a state, some of whose pages were written since it was hashed.

use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::{FIRST, MIB, PAGE, full, host, write};
use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Sample};
use crate::table::{Row, Target};

/// How many pages, how often.
const SIZES: [(u64, usize, &str); 3] = [
    (1, 2_000, "state/hash/1"),
    (100, 1_000, "state/hash/100"),
    (10_000, 50, "state/hash/10000"),
];

pub(super) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants_any(&SIZES.map(|(.., key)| key)) {
        return Ok(());
    }
    let heap = if options.quick { 64 } else { 1024 } * MIB;
    progress(&format!("hashes of a state of {} MiB", heap / MIB));
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    let tenant = full(&host, "hashed", heap)?;
    tenant.compact()?;
    // All of it, once.
    tenant.state_hash()?;
    for (pages, times, key) in SIZES {
        if !options.wants(key) {
            continue;
        }
        progress(&format!("the hash after {pages} pages were written"));
        let stride = (heap - FIRST) / pages / PAGE * PAGE;
        // The argument lies in a page of its own.
        let mut bytes = vec![1; ((pages + 1) * PAGE) as usize];
        let fail = BenchError::system("reading pages of a plain file");
        let mut file = tempfile::tempfile_in(directory.path()).map_err(&fail)?;
        file.write_all(&bytes).map_err(&fail)?;
        let (mut ours, mut theirs, mut read) =
            (Sample::default(), Sample::default(), Sample::default());
        for _ in 0..options.times(times) {
            write(&tenant, pages, stride)?;
            ours.time(|| tenant.state_hash())?;
            read.time(|| file.read_exact_at(&mut bytes, 0))
                .map_err(&fail)?;
            theirs.time(|| black_box(blake3::hash(&bytes)));
        }
        rows.push(
            Row::new(
                key,
                format!(
                    "state hash of {} MiB after {pages} pages were written",
                    heap / MIB
                ),
                "us",
            )
            .ours(ours.len(), ours.quantiles(MICROSECOND))
            .baseline(
                "blake3 over as many pages that lie one after the other in memory, one thread",
                theirs.quantiles(MICROSECOND),
            )
            .target(Target::Ratio(1.5))
            .note(floor(&theirs, &read, &path(options))),
        );
    }
    host.remove("hashed")?;
    Ok(())
}

/// What ours does besides, and can't do without.
fn floor(blake3: &Sample, read: &Sample, path: &Sample) -> String {
    let us = |sample: &Sample| sample.median(MICROSECOND);
    format!(
        "floor: {:.1} us, of which blake3 {:.1}, reading as many pages from the page cache {:.1}, and the {LEVELS} nodes above one page, each of which needs the one below it, {:.1}; ours also compares each page with its checksum and hashes the nodes above all of them",
        us(blake3) + us(read) + us(path),
        us(blake3),
        us(read),
        us(path)
    )
}

/// Nodes from a page of a full heap of 1 GiB to the state's hash.
const LEVELS: usize = 9;

/// The least that hashing the nodes above one page takes: none can be hashed
/// before the one below it.
fn path(options: &Options) -> Sample {
    let mut node = [0; 128];
    let mut sample = Sample::default();
    for _ in 0..options.times(1_000) {
        sample.time(|| {
            for _ in 0..LEVELS {
                let hash = blake3::keyed_hash(&[1; 32], &node);
                node.as_chunks_mut().0[0] = *hash.as_bytes();
            }
            black_box(&node);
        });
    }
    sample
}
