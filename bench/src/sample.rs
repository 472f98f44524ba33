//! Samples and their quantiles.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Two quantiles of a sample, in the unit of their row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// What one in a hundred exceeds.
    pub p99: f64,
}

/// Times that were measured, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<u64>);

impl Sample {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0
            .push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Runs `what` and notes how long it took.
    pub(crate) fn time<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = what();
        self.push(begin.elapsed());
        result
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Quantiles in units of `unit`; nothing of nothing.
    pub(crate) fn quantiles(&self, unit: Duration) -> Option<Quantiles> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let unit = unit.as_nanos() as f64;
        // Nearest rank: a value that was measured, never one between two.
        let at = |quantile: f64| {
            let rank = (quantile * sorted.len() as f64).ceil() as usize;
            sorted
                .get(rank.saturating_sub(1))
                .map(|time| *time as f64 / unit)
        };
        Some(Quantiles {
            p50: at(0.5)?,
            p99: at(0.99)?,
        })
    }

    /// The median in units of `unit`, 0 of nothing.
    pub(crate) fn median(&self, unit: Duration) -> f64 {
        self.quantiles(unit).map_or(0.0, |quantiles| quantiles.p50)
    }
}

pub(crate) const MICROSECOND: Duration = Duration::from_micros(1);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let mut sample = Sample::default();
        assert_eq!(sample.quantiles(MICROSECOND), None);
        (1..=200)
            .rev()
            .for_each(|n| sample.push(Duration::from_micros(n)));
        assert_eq!(
            sample.quantiles(MICROSECOND),
            Some(Quantiles {
                p50: 100.0,
                p99: 198.0
            })
        );
        assert_eq!(sample.median(MILLISECOND), 0.1);
    }
}
