//! An empty query on a warm tenant, host to worker and back.

use crate::Options;
use crate::error::BenchError;
use crate::in_process::InProcess;
use crate::sample::{MICROSECOND, Sample};
use crate::table::{Row, Target};

const EMPTY: &str = include_str!("../../tests/fixtures/wat/empty.wat");

/// Calls of each side in one batch.
const BATCH: usize = 100;
/// Calls before each batch that don't count: the other side's batch is longer
/// than a worker spins, so it sleeps when ours begins, and either side that has
/// learned not to spin tries again within 16 calls.
const WARM: usize = 20;

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants_any(&["query", "query/absolute"]) {
        return Ok(());
    }
    progress("an empty query on a warm tenant");
    let directory = options.temporary()?;
    let host = options
        .host()
        .data_dir(directory.path())
        .relaxed_durability()
        .build()?;
    let tenant = host.install("empty", EMPTY, &[])?;
    let fresh = InProcess::new(EMPTY, "canister_query empty")?;
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    for _ in 0..options.times(20_000).div_ceil(BATCH) {
        for _ in 0..WARM {
            tenant.query("empty", &[])?;
        }
        for _ in 0..BATCH {
            ours.time(|| tenant.query("empty", &[]))?;
        }
        for _ in 0..WARM {
            fresh.call(&[])?;
        }
        for _ in 0..BATCH {
            theirs.time(|| fresh.call(&[]))?;
        }
    }
    let asleep = asleep(options, &tenant)?;
    let (n, quantiles) = (ours.len(), ours.quantiles(MICROSECOND));
    if options.wants("query") {
        let row = Row::new("query", "empty query, host to worker and back", "us")
            .ours(n, quantiles)
            .baseline(
                "wasmtime in-process, pooling allocator, fresh instance per call",
                theirs.quantiles(MICROSECOND),
            )
            .target(Target::Ratio(0.5))
            .note("both sides hot: batches of 100 alternate, 20 calls before each don't count");
        rows.push(row);
    }
    if options.wants("query/absolute") {
        let row = Row::new("query/absolute", "the same, absolute", "us")
            .ours(n, quantiles)
            .target(Target::Value(5.0))
            .note("for comparison: the Internet Computer's replica is committed to 201 us for a query and 166 us for an update (its own benchmarks, other hardware)")
            .note(format!("when the worker sleeps (called after 2 ms of silence): {:.1} us", asleep.median(MICROSECOND)));
        rows.push(row);
    }
    Ok(())
}

/// Calls to a worker that has gone to sleep.
fn asleep(options: &Options, tenant: &lazaret::Tenant) -> Result<Sample, BenchError> {
    let mut sample = Sample::default();
    for _ in 0..options.times(500) {
        std::thread::sleep(std::time::Duration::from_millis(2));
        sample.time(|| tenant.query("empty", &[]))?;
    }
    Ok(sample)
}
