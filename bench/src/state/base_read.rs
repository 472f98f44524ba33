//! A query that reads a heap which lies in base shards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::mm::{MapFlags, ProtFlags};

use super::{FIRST, MIB, PAGE, full, host};
use crate::Options;
use crate::error::BenchError;
use crate::sample::{MILLISECOND, Sample};
use crate::table::{Row, Target};
use crate::update::argument;

const KEY: &str = "state/base-read";
/// What is read: 100 MiB.
const PAGES: u64 = 25_600;

pub(super) fn row(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants(KEY) {
        return Ok(());
    }
    progress("a query that reads 100 MiB of a base");
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    let tenant = full(&host, "base", 256 * MIB)?;
    tenant.compact()?;
    let shards = shards(&directory.path().join("tenants/base"))?;
    let argument = argument(PAGES, PAGE);
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    for _ in 0..options.times(300) {
        // A worker that has read nothing yet, and is awake.
        tenant.sleep();
        for _ in 0..20 {
            tenant.query("read", &FIRST.to_le_bytes())?;
        }
        ours.time(|| tenant.query("sum", &argument))?;
        theirs.time(|| read(&shards))?;
    }
    rows.push(
        Row::new(
            KEY,
            "query reading a byte of each page of 100 MiB that lie in base shards, mapped anew, page cache warm",
            "ms",
        )
        .ours(ours.len(), ours.quantiles(MILLISECOND))
        .baseline(
            "a plain private mapping of the same files, read in the same way",
            theirs.quantiles(MILLISECOND),
        )
        .target(Target::Ratio(1.1))
        .note(format!(
            "a page: {:.3} us, baseline {:.3} us (the Internet Computer's figure is 0.93 us a page)",
            ours.median(MILLISECOND) * 1e3 / PAGES as f64,
            theirs.median(MILLISECOND) * 1e3 / PAGES as f64
        )),
    );
    Ok(())
}

fn shards(directory: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let fail = BenchError::system("looking for base shards");
    let mut shards = Vec::new();
    for entry in fs::read_dir(directory).map_err(&fail)? {
        let path = entry.map_err(&fail)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "shard")
        {
            shards.push(path);
        }
    }
    shards.sort();
    Ok(shards)
}

/// Maps the files and reads a byte of each page, as many as the query.
fn read(shards: &[PathBuf]) -> Result<u64, BenchError> {
    let fail = BenchError::system("mapping a base shard");
    let (mut left, mut sum) = (PAGES as usize, 0u64);
    for path in shards {
        let file = File::open(path).map_err(&fail)?;
        let length = file.metadata().map_err(&fail)?.len() as usize;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                &file,
                0,
            )
        }
        .map_err(|errno| fail(errno.into()))?;
        let pages = (length / PAGE as usize).min(left);
        for page in 0..pages {
            // SAFETY: inside the mapping; nobody changes a shard, and a read
            // that isn't elided is all that is wanted of it.
            sum += u64::from(unsafe { at.cast::<u8>().add(page * PAGE as usize).read_volatile() });
        }
        left -= pages;
        // SAFETY: the mapping just made, to which nothing refers any more.
        unsafe { rustix::mm::munmap(at, length) }.map_err(|errno| fail(errno.into()))?;
        if left == 0 {
            break;
        }
    }
    Ok(sum)
}
