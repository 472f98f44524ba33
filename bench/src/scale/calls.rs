//! Calls to many tenants in turns: none is hot when its turn comes.

use std::time::Instant;

use lazaret::Tenant;

use super::crossings::{Where, through_futexes, through_sockets};
use super::plot::Curve;
use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Sample};
use crate::table::{Row, Target};

/// Calls that are measured at each size.
const TIMES: usize = 20_000;

/// The most threads of the baseline that sleep.
const SLEEPERS: usize = 200;

/// How long calls took, by the number of tenants.
#[derive(Default)]
pub(super) struct Calls(Vec<Measured>);

struct Measured {
    tenants: usize,
    queries: Sample,
    updates: Sample,
    /// A second, by one thread and by two.
    rates: [f64; 2],
    sockets: Sample,
    /// Woken on another processor, and wherever the kernel likes.
    futexes: [Sample; 2],
}

impl Calls {
    pub(super) fn measure(
        &mut self,
        options: &Options,
        tenants: &[Tenant],
    ) -> Result<(), BenchError> {
        let times = options.times(TIMES);
        let (mut queries, mut updates) = (Sample::default(), Sample::default());
        for tenant in tenants.iter().cycle().take(times) {
            queries.time(|| tenant.query("empty", &[]))?;
        }
        for tenant in tenants.iter().cycle().take(times) {
            updates.time(|| tenant.update("empty_update", &[]))?;
        }
        let one = rate(tenants, times)?;
        let two = std::thread::scope(|scope| -> Result<f64, BenchError> {
            let (first, second) = tenants.split_at(tenants.len() / 2);
            let halves = match first.is_empty() {
                true => [second, second],
                false => [first, second],
            };
            let threads = halves.map(|half| scope.spawn(move || rate(half, times / 2)));
            let mut sum = 0.0;
            for thread in threads {
                sum += thread.join().unwrap_or(Ok(0.0))?;
            }
            Ok(sum)
        })?;
        let sleepers = tenants.len().min(SLEEPERS);
        self.0.push(Measured {
            tenants: tenants.len(),
            queries,
            updates,
            rates: [one, two],
            sockets: through_sockets(options.times(2_000))?,
            futexes: [
                through_futexes(sleepers, options.times(20_000), Where::Apart)?,
                through_futexes(sleepers, options.times(20_000), Where::Anywhere)?,
            ],
        });
        Ok(())
    }

    pub(super) fn rows(&self, options: &Options, rows: &mut Vec<Row>) {
        for measured in &self.0 {
            for (call, sample) in [("query", &measured.queries), ("update", &measured.updates)] {
                let key = format!("scale/{call}/{}", measured.tenants);
                if !options.wants(&key) {
                    continue;
                }
                let what = format!(
                    "empty {call} to each of {} tenants in turns",
                    measured.tenants
                );
                let ours = sample.quantiles(MICROSECOND);
                let sockets = measured.sockets.quantiles(MICROSECOND);
                let mut row = Row::new(&key, what, "us").ours(sample.len(), ours);
                row = match measured.tenants {
                    // It is hot: its worker still spins.
                    1 => row
                        .baseline("a byte there and back through a socket pair", sockets)
                        .target(Target::Ratio(0.1)),
                    many => row
                        .baseline(
                            &format!(
                                "a bare futex's wake-up there and back between two processors, {} threads that sleep in turns",
                                many.min(SLEEPERS)
                            ),
                            measured.futexes[0].quantiles(MICROSECOND),
                        )
                        .target(Target::Ratio(1.5)),
                };
                if call == "query" {
                    let [one, two] = measured.rates;
                    row = row.note(format!("a second: {one:.0} by one thread, {two:.0} by two"));
                    let anywhere = measured.futexes[1].quantiles(MICROSECOND);
                    if let Some(anywhere) = anywhere.filter(|_| measured.tenants > 1) {
                        row = row.note(format!(
                            "the bare futex where the kernel may have all threads on one processor: {:.1} us p50",
                            anywhere.p50
                        ));
                    }
                }
                rows.push(row);
            }
        }
    }
}

impl Calls {
    /// Microseconds by the number of tenants: queries and updates.
    pub(super) fn curves(&self) -> [Curve; 2] {
        let samples: [fn(&Measured) -> &Sample; 2] =
            [|measured| &measured.queries, |measured| &measured.updates];
        samples.map(|sample| {
            let point = |measured: &Measured| {
                Some((measured.tenants, sample(measured).quantiles(MICROSECOND)?))
            };
            self.0.iter().filter_map(point).collect()
        })
    }
}

/// Queries a second of one thread.
fn rate(tenants: &[Tenant], times: usize) -> Result<f64, BenchError> {
    let begin = Instant::now();
    for tenant in tenants.iter().cycle().take(times) {
        tenant.query("empty", &[])?;
    }
    Ok(times as f64 / begin.elapsed().as_secs_f64())
}
