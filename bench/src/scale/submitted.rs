//! Calls that are submitted: made by a few threads, several of a tenant in a turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use lazaret::{Host, QueuedCall, Tenant};

use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Sample};
use crate::table::Row;

/// Calls of a tenant that are submitted at once.
const TOGETHER: usize = 16;
/// Tenants of which calls wait at once.
const TENANTS: usize = 250;
/// Calls that are measured at each size.
const TIMES: usize = 100_000;

/// What calls took, by the number of tenants.
#[derive(Default)]
pub(super) struct Submitted(Vec<Measured>);

struct Measured {
    tenants: usize,
    submitted: Sample,
    called: Sample,
    threads: usize,
}

impl Submitted {
    pub(super) fn measure(
        &mut self,
        options: &Options,
        host: &Host,
        tenants: &[Tenant],
    ) -> Result<(), BenchError> {
        let mut measured = Measured {
            tenants: tenants.len(),
            submitted: Sample::default(),
            called: Sample::default(),
            threads: 0,
        };
        let at_once = tenants.len().min(TENANTS);
        let rounds = options.times(TIMES) / (at_once * TOGETHER);
        for group in tenants.chunks(at_once).cycle().take(rounds.max(3)) {
            let calls = group.len() * TOGETHER;
            let begin = Instant::now();
            submit(group)?;
            measured.submitted.push(each(begin, calls));
            measured.threads = measured.threads.max(host.scheduler().threads);
            let begin = Instant::now();
            for tenant in group {
                for _ in 0..TOGETHER {
                    tenant.query("empty", &[])?;
                }
            }
            measured.called.push(each(begin, calls));
        }
        self.0.push(measured);
        Ok(())
    }

    pub(super) fn rows(&self, options: &Options, rows: &mut Vec<Row>) {
        for measured in &self.0 {
            let key = format!("scale/submitted/{}", measured.tenants);
            if !options.wants(&key) {
                continue;
            }
            let median = measured.submitted.median(MICROSECOND);
            let row = Row::new(
                &key,
                format!(
                    "a query of {TOGETHER} that are submitted at once for each of {} tenants",
                    measured.tenants
                ),
                "us",
            )
            .ours(
                measured.submitted.len(),
                measured.submitted.quantiles(MICROSECOND),
            )
            .baseline(
                "the same, each called by one thread",
                measured.called.quantiles(MICROSECOND),
            )
            .note(format!(
                "{:.0} a second, by {} threads",
                1e6 / median,
                measured.threads
            ));
            rows.push(row);
        }
    }
}

/// What each of these calls took, on average.
fn each(begin: Instant, calls: usize) -> Duration {
    begin.elapsed() / u32::try_from(calls).unwrap_or(u32::MAX)
}

/// Submits calls of all of these, and waits for the last answer.
fn submit(tenants: &[Tenant]) -> Result<(), BenchError> {
    let left = Arc::new(AtomicUsize::new(tenants.len() * TOGETHER));
    let (tell, told) = channel();
    for tenant in tenants {
        for _ in 0..TOGETHER {
            let (left, tell) = (left.clone(), tell.clone());
            tenant.submit(QueuedCall::query("empty", []), move |reply| {
                // Nobody is woken for each.
                let last = left.fetch_sub(1, AcqRel) == 1;
                if last || reply.is_err() {
                    let _ = tell.send(reply.map(drop));
                }
            })?;
        }
    }
    drop(tell);
    for reply in told {
        reply?;
    }
    Ok(())
}
