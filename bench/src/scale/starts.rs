//! The start of a worker beside a crowd: from the pool, and without.

use std::time::{Duration, Instant};

use lazaret::{Host, Tenant};

use super::plot::Curve;
use crate::Options;
use crate::error::BenchError;
use crate::sample::{MILLISECOND, Sample};
use crate::start::{Pair, gone};
use crate::table::{Row, Target};

/// Starts that are measured, of each kind.
const TIMES: usize = 200;

/// Two hosts, one with a pool, and how long starts took beside crowds.
pub(super) struct Starts {
    pair: Pair,
    measured: Vec<(usize, [Sample; 2])>,
}

impl Starts {
    pub(super) fn new(options: &Options) -> Result<Self, BenchError> {
        let hosts = [1, 0].map(|blanks| options.host().pool(|pool| pool.blanks = blanks));
        Ok(Self {
            pair: Pair::new(options, hosts)?,
            measured: Vec::new(),
        })
    }

    pub(super) fn measure(&mut self, options: &Options, crowd: usize) -> Result<(), BenchError> {
        let mut samples = [Sample::default(), Sample::default()];
        for _ in 0..options.times(TIMES) {
            for ((host, tenant), sample) in self.pair.hosts.iter().zip(&mut samples) {
                let pooled = std::ptr::eq(host, &self.pair.hosts[0].0);
                start(pooled, host, tenant, sample)?;
            }
        }
        self.measured.push((crowd, samples));
        Ok(())
    }

    pub(super) fn rows(&self, options: &Options, rows: &mut Vec<Row>) {
        for (at, (key, what, target)) in [
            ("pool", "from the pool", Target::Value(1.0)),
            ("cold", "without the pool", Target::Value(4.0)),
        ]
        .into_iter()
        .enumerate()
        {
            let first = self.measured.first().map(|(_, samples)| &samples[at]);
            for (crowd, samples) in &self.measured {
                let key = format!("scale/start/{key}/{crowd}");
                if !options.wants(&key) {
                    continue;
                }
                let what = format!("start of a worker {what}, beside {crowd} idle ones");
                let mut row = Row::new(&key, what, "ms")
                    .ours(samples[at].len(), samples[at].quantiles(MILLISECOND));
                if let Some(first) = first {
                    row = row.baseline(
                        "the same beside the smallest crowd",
                        first.quantiles(MILLISECOND),
                    );
                }
                // To reach: so many milliseconds, and 1.2 times the first.
                rows.push(row.target(target));
            }
        }
    }
}

impl Starts {
    /// Milliseconds by the size of the crowd: from the pool, and without.
    pub(super) fn curves(&self) -> [Curve; 2] {
        [0, 1].map(|at| {
            let point = |(crowd, samples): &(usize, [Sample; 2])| {
                Some((*crowd, samples[at].quantiles(MILLISECOND)?))
            };
            self.measured.iter().filter_map(point).collect()
        })
    }
}

/// A start and the first answer; of a host with a pool once a blank worker waits.
fn start(
    pooled: bool,
    host: &Host,
    tenant: &Tenant,
    sample: &mut Sample,
) -> Result<(), BenchError> {
    let worker = tenant.info().worker;
    tenant.sleep();
    gone(worker)?;
    let begin = Instant::now();
    while pooled && host.pool().blanks == 0 && begin.elapsed() < Duration::from_millis(100) {
        std::thread::sleep(Duration::from_micros(100));
    }
    sample.time(|| tenant.query("empty", &[]))?;
    Ok(())
}
