//! Many starts at once.

use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use lazaret::Tenant;

use super::Crowd;
use crate::Options;
use crate::error::BenchError;
use crate::sample::Quantiles;
use crate::table::{Row, Target};

/// How many at once.
const MANY: usize = 200;

/// Launchers of the other host.
const LAUNCHERS: usize = 2;

pub(super) fn rows(
    options: &Options,
    crowd: &Crowd,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    let many = MANY.min(crowd.tenants.len());
    if options.wants("scale/at-once") {
        progress(&format!("{many} starts at once"));
        let what = format!("{many} starts at once, time of all divided by them");
        let row = row("scale/at-once", what, &crowd.tenants[..many])?;
        rows.push(row.target(Target::Ratio(1.5)));
    }
    if options.wants("scale/at-once/launchers") {
        progress(&format!("{many} starts at once, by {LAUNCHERS} launchers"));
        let mut other = Crowd::with(options, |pool| {
            pool.launchers = NonZeroUsize::new(LAUNCHERS).unwrap_or(NonZeroUsize::MIN);
        })?;
        other.grow(many, progress)?;
        let what = format!("the same, by {LAUNCHERS} launchers in turns");
        rows.push(row("scale/at-once/launchers", what, &other.tenants)?);
    }
    Ok(())
}

fn row(key: &str, what: String, tenants: &[Tenant]) -> Result<Row, BenchError> {
    let many = tenants.len();
    let (serial, at_once) = measure(tenants)?;
    let each = |time: Duration| {
        let value = time.as_secs_f64() * 1e3 / many as f64;
        Some(Quantiles {
            p50: value,
            p99: value,
        })
    };
    Ok(Row::new(key, what, "ms")
        .ours(many, each(at_once))
        .baseline("as many one after another", each(serial)))
}

/// How long it takes to start a worker for each, one after another and at once.
fn measure(tenants: &[Tenant]) -> Result<(Duration, Duration), BenchError> {
    let asleep = || {
        let workers: Vec<i32> = tenants
            .iter()
            .filter_map(|tenant| tenant.info().worker)
            .collect();
        tenants.iter().for_each(Tenant::sleep);
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
    let gate = Barrier::new(tenants.len() + 1);
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
    Ok((serial, at_once))
}
