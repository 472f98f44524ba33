//! One page of a large heap, all of which is in memory.

use super::{MIB, PAGE, full, host, write};
use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Sample};
use crate::table::{Row, Target};
use crate::update::argument;

const KEY: &str = "state/large-heap";
const BATCH: usize = 50;

pub(super) fn row(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants(KEY) {
        return Ok(());
    }
    let large = if options.quick { 256 } else { 4096 } * MIB;
    progress(&format!("one page of a heap of {} MiB", large / MIB));
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    let small = full(&host, "small", 16 * MIB)?;
    let tenant = full(&host, "large", large)?;
    let argument = argument(1, PAGE);
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    for _ in 0..options.times(4_000).div_ceil(BATCH) {
        for (tenant, sample) in [(&tenant, &mut ours), (&small, &mut theirs)] {
            for _ in 0..BATCH / 5 {
                write(tenant, 1, PAGE)?;
            }
            for _ in 0..BATCH {
                sample.time(|| tenant.update("write", &argument))?;
            }
        }
    }
    let tables = tenant
        .info()
        .worker
        .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmPTE:"))?;
            Some(line.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned());
    rows.push(
        Row::new(
            KEY,
            format!(
                "update writing 1 page of a heap of {} MiB that is all in memory",
                large / MIB
            ),
            "us",
        )
        .ours(ours.len(), ours.quantiles(MICROSECOND))
        .baseline(
            "the same in a heap of 16 MiB",
            theirs.quantiles(MICROSECOND),
        )
        .target(Target::Ratio(5.0))
        .note(format!("page tables of the worker (VmPTE): {tables}")),
    );
    Ok(())
}
