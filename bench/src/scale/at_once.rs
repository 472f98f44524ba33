//! Many starts at once.

use std::sync::Barrier;
use std::time::Instant;

use super::Crowd;
use crate::Options;
use crate::error::BenchError;
use crate::sample::Quantiles;
use crate::table::{Row, Target};

/// How many at once.
const MANY: usize = 200;

pub(super) fn row(
    options: &Options,
    crowd: &Crowd,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants("scale/at-once") {
        return Ok(());
    }
    let many = MANY.min(crowd.tenants.len());
    progress(&format!("{many} starts at once"));
    let tenants = &crowd.tenants[..many];
    let asleep = || {
        let workers: Vec<i32> = tenants
            .iter()
            .filter_map(|tenant| tenant.info().worker)
            .collect();
        tenants.iter().for_each(lazaret::Tenant::sleep);
        workers
            .into_iter()
            .try_for_each(|worker| crate::start::gone(Some(worker)))
    };
    asleep()?;
    let begin = Instant::now();
    for tenant in tenants {
        tenant.query("empty", &[])?;
    }
    let serial = begin.elapsed();
    asleep()?;
    let gate = Barrier::new(many + 1);
    let at_once = std::thread::scope(|scope| -> Result<_, BenchError> {
        let calls: Vec<_> = tenants
            .iter()
            .map(|tenant| {
                let gate = &gate;
                scope.spawn(move || {
                    gate.wait();
                    tenant.query("empty", &[])
                })
            })
            .collect();
        gate.wait();
        let begin = Instant::now();
        for call in calls {
            call.join().map_err(|_| {
                BenchError::system("a thread that calls")(std::io::ErrorKind::Other.into())
            })??;
        }
        Ok(begin.elapsed())
    })?;
    let each = |time: std::time::Duration| {
        let value = time.as_secs_f64() * 1e3 / many as f64;
        Some(Quantiles {
            p50: value,
            p99: value,
        })
    };
    rows.push(
        Row::new(
            "scale/at-once",
            format!("{many} starts at once, time of all divided by them"),
            "ms",
        )
        .ours(many, each(at_once))
        .baseline("as many one after another", each(serial))
        .target(Target::Ratio(1.5)),
    );
    Ok(())
}
