//! Snapshots and forks.

use super::{MIB, full, host};
use crate::Options;
use crate::error::BenchError;
use crate::sample::{MILLISECOND, Sample};
use crate::table::{Row, Target};

const KEYS: [&str; 2] = ["state/snapshot", "state/fork"];

pub(super) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants_any(&KEYS) {
        return Ok(());
    }
    let large = if options.quick { 64 } else { 1024 } * MIB;
    progress(&format!("snapshots and forks of {} MiB", large / MIB));
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    let tenants = [full(&host, "large", large)?, full(&host, "small", MIB)?];
    for tenant in &tenants {
        tenant.compact()?;
    }
    let mut samples = [
        [Sample::default(), Sample::default()],
        [Sample::default(), Sample::default()],
    ];
    let [snapshots, forks] = &mut samples;
    for _ in 0..options.times(100) {
        for (which, name) in ["large", "small"].into_iter().enumerate() {
            snapshots[which].time(|| host.snapshot(name, "s"))?;
            host.delete_snapshot(name, "s")?;
            let fork = forks[which].time(|| host.fork(name, "fork", None))?;
            drop(fork);
            host.remove("fork")?;
        }
    }
    // What is added where nobody has the tenant open.
    drop(tenants);
    let mut opening = [Sample::default(), Sample::default()];
    for _ in 0..options.times(50) {
        for (sample, name) in opening.iter_mut().zip(["large", "small"]) {
            sample.time(|| host.tenant(name))?;
        }
    }
    let opening = opening.map(|sample| sample.median(MILLISECOND));
    let what = ["snapshot", "fork, opened"];
    for ((key, what), [ours, theirs]) in KEYS.iter().zip(what).zip(&samples) {
        if options.wants(key) {
            rows.push(
                Row::new(
                    key,
                    format!("{what}, of a tenant with {} MiB, on disk", large / MIB),
                    "ms",
                )
                .ours(ours.len(), ours.quantiles(MILLISECOND))
                .baseline(
                    "the same of a tenant with 1 MiB",
                    theirs.quantiles(MILLISECOND),
                )
                .target(Target::Ratio(1.5))
                .note(format!(
                    "the tenant is open; if it isn't, opening it adds {:.2} ms, and {:.2} ms for 1 MiB",
                    opening[0], opening[1]
                )),
            );
        }
    }
    Ok(())
}
