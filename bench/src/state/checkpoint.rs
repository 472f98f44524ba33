//! Checkpoints of a tenant some of whose pages were written.

use std::fs::File;
use std::io::Write;

use super::{FIRST, MIB, PAGE, full, host, write};
use crate::Options;
use crate::error::BenchError;
use crate::page_cache::PageCache;
use crate::sample::{MICROSECOND, Sample};
use crate::table::{Row, Target};

/// How many pages, how often.
const SIZES: [(u64, usize, &str); 3] = [
    (1, 1_000, "state/checkpoint/1"),
    (100, 500, "state/checkpoint/100"),
    (10_000, 30, "state/checkpoint/10000"),
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
    progress(&format!("checkpoints of {} MiB", heap / MIB));
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    let tenant = full(&host, "checkpointed", heap)?;
    tenant.compact()?;
    for (pages, times, key) in SIZES {
        if !options.wants(key) {
            continue;
        }
        progress(&format!("a checkpoint of {pages} pages"));
        let times = options.times(times);
        let stride = (heap - FIRST) / pages / PAGE * PAGE;
        let mut plain = Plain::in_directory(directory.path(), pages)?;
        let mut page_cache = PageCache::hold(directory.path(), pages, times + 1)?;
        let (mut ours, mut theirs) = (Sample::default(), Sample::default());
        let (mut commit, mut pause) = (Sample::default(), Sample::default());
        write(&tenant, pages, stride)?;
        tenant.checkpoint()?;
        for _ in 0..times {
            page_cache.free(1)?;
            commit.time(|| write(&tenant, pages, stride))?;
            let made = ours.time(|| tenant.checkpoint())?;
            pause.push(made.pause);
            theirs.time(|| plain.append())?;
        }
        rows.push(
            Row::new(
                key,
                format!("checkpoint of {pages} dirty pages of {} MiB", heap / MIB),
                "us",
            )
            .ours(ours.len(), ours.quantiles(MICROSECOND))
            .baseline(
                "writing that many pages to the end of one plain file, and fdatasync",
                theirs.quantiles(MICROSECOND),
            )
            .target(Target::Ratio(1.3))
            .note(format!(
                "of the baseline: write {:.1}, fdatasync {:.1} us; the update before it, which wrote the pages to the page cache: {:.1} us",
                plain.write.median(MICROSECOND),
                plain.sync.median(MICROSECOND),
                commit.median(MICROSECOND)
            ))
            .note(format!(
                "updates are kept waiting: p50 {:.2}, p99 {:.1} us (once in 16 MiB it is recorded what is on disk: two more syncs)",
                pause.median(MICROSECOND),
                pause.quantiles(MICROSECOND).map_or(0.0, |found| found.p99)
            )),
        );
    }
    host.remove("checkpointed")?;
    Ok(())
}

/// The file that pages are appended to, without Lazaret.
struct Plain {
    file: File,
    bytes: Vec<u8>,
    write: Sample,
    sync: Sample,
}

impl Plain {
    fn in_directory(directory: &std::path::Path, pages: u64) -> Result<Self, BenchError> {
        let file =
            tempfile::tempfile_in(directory).map_err(BenchError::system("making a plain file"))?;
        Ok(Self {
            file,
            // The argument lies in a page of its own.
            bytes: vec![1; ((pages + 1) * PAGE) as usize],
            write: Sample::default(),
            sync: Sample::default(),
        })
    }

    fn append(&mut self) -> Result<(), BenchError> {
        let Self { file, bytes, .. } = self;
        let written = self.write.time(|| file.write_all(bytes));
        written
            .and_then(|()| self.sync.time(|| file.sync_data()))
            .map_err(BenchError::system("writing and syncing a plain file"))
    }
}
