//! The first call of a tenant that has no worker.

use lazaret::Tenant;

use super::{FIRST, MIB, all_pages, full, host, write};
use crate::Options;
use crate::error::BenchError;
use crate::sample::{MILLISECOND, Quantiles, Sample};
use crate::table::{Row, Target};

const KEYS: [&str; 4] = [
    "state/cold/64",
    "state/cold/1024",
    "state/cold/4096",
    "state/cold/fragmented",
];

pub(super) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants_any(&KEYS) {
        return Ok(());
    }
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    progress("the first call of a cold tenant");
    let small = full(&host, "small", MIB)?;
    small.compact()?;
    for (key, size, target) in [
        // Whatever the state's size.
        (KEYS[0], 64, Target::Value(5.0)),
        (KEYS[1], 1024, Target::Ratio(1.5)),
        (KEYS[2], 4096, Target::Ratio(1.5)),
    ] {
        // A quick run shows that it works, at a sixteenth of the size.
        let size = if options.quick { size / 16 } else { size };
        if !options.wants(key) {
            continue;
        }
        progress(&format!("the first call of a cold tenant of {size} MiB"));
        let tenant = full(&host, &format!("t{size}"), size * MIB)?;
        tenant.compact()?;
        let (ours, theirs) = measure(options, &tenant, &small)?;
        rows.push(
            row(
                key,
                format!("first call of a cold tenant, state of {size} MiB"),
                ours,
                theirs,
            )
            .target(target),
        );
    }
    if options.wants(KEYS[3]) {
        let size = if options.quick { 16 } else { 256 };
        progress("the first call of a cold tenant in pieces");
        let tenant = full(&host, "pieces", size * MIB)?;
        tenant.compact()?;
        write(&tenant, all_pages(size * MIB) / 2, 8192)?;
        let (ours, theirs) = measure(options, &tenant, &small)?;
        rows.push(
            row(
                KEYS[3],
                format!("the same, {size} MiB with every other page changed since the base"),
                ours,
                theirs,
            )
            .note("bounded by compaction, which is held off here"),
        );
    }
    Ok(())
}

type Measured = (usize, Option<Quantiles>);

fn measure(
    options: &Options,
    tenant: &Tenant,
    small: &Tenant,
) -> Result<(Measured, Measured), BenchError> {
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    for _ in 0..options.times(200) {
        for (tenant, sample) in [(tenant, &mut ours), (small, &mut theirs)] {
            tenant.sleep();
            sample.time(|| tenant.query("read", &FIRST.to_le_bytes()))?;
        }
    }
    let measured = |sample: &Sample| (sample.len(), sample.quantiles(MILLISECOND));
    Ok((measured(&ours), measured(&theirs)))
}

fn row(key: &str, what: String, ours: Measured, theirs: Measured) -> Row {
    Row::new(key, what, "ms")
        .ours(ours.0, ours.1)
        .baseline("the same of a tenant with 1 MiB", theirs.1)
}
