//! Which idle workers leave.

use std::cmp::Reverse;
use std::time::Duration;

/// How much a tenant's workers are wanted, among those that were idle for about as
/// long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Priority {
    /// They leave before others.
    Low,
    /// As all others.
    #[default]
    Normal,
    /// They leave after others.
    High,
}

impl Priority {
    /// All of them, from the lowest.
    pub const ALL: &[Self] = &[Self::Low, Self::Normal, Self::High];
}

/// An idle worker, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Idle {
    /// How long it has waited for a call.
    pub(super) waited: Duration,
    /// Its tenant's.
    pub(super) priority: Priority,
    /// How long it took to start.
    pub(super) cost: Duration,
}

impl Idle {
    /// Who has waited for twice as long goes first, whatever it is; of those that
    /// have waited for about as long, to some seconds, whoever is wanted least, and
    /// then whoever is cheapest to bring back.
    fn order(&self) -> impl Ord + use<> {
        let doublings = (self.waited.as_secs() / 8 + 1).ilog2();
        // What differs by less than a millisecond differs by chance.
        let cost = self.cost.as_millis();
        (
            Reverse(doublings),
            self.priority,
            cost,
            Reverse(self.waited),
        )
    }
}

/// Which of these leave, in order: all who have waited for `timeout`, and more, if
/// those are not `needed` many.
pub(super) fn leaving(idle: &[Idle], timeout: Option<Duration>, needed: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..idle.len()).collect();
    order.sort_by_key(|index| idle[*index].order());
    let (due, others): (Vec<usize>, Vec<usize>) = order
        .into_iter()
        .partition(|index| timeout.is_some_and(|timeout| idle[*index].waited >= timeout));
    let more = needed.saturating_sub(due.len());
    due.into_iter()
        .chain(others.into_iter().take(more))
        .collect()
}

/// How many have to leave, so that of `most` workers some are free again: a few at
/// a time, as to look at all of them for each one would take longer than its start.
pub(super) fn surplus(workers: usize, most: usize) -> usize {
    let headroom = (most / 64).max(1);
    match workers >= most {
        true => workers - most + headroom,
        false => 0,
    }
}

/// How many of the idle ones leave when memory is short: the kernel says so again
/// if that didn't help.
pub(super) fn under_pressure(idle: usize) -> usize {
    idle.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(seconds: u64, priority: Priority, cost_ms: u64) -> Idle {
        Idle {
            waited: Duration::from_secs(seconds),
            priority,
            cost: Duration::from_millis(cost_ms),
        }
    }

    #[test]
    fn who_waited_longest_leaves_first_then_who_is_wanted_least_then_the_cheapest() {
        use Priority::{High, Low, Normal};
        type Case<'a> = (&'a [Idle], Option<u64>, usize, &'a [usize]);
        let table: &[Case<'_>] = &[
            (&[], Some(60), 3, &[]),
            // The timeout alone.
            (
                &[idle(59, Low, 1), idle(60, High, 9), idle(90, Normal, 1)],
                Some(60),
                0,
                &[2, 1],
            ),
            (&[idle(1_000, Low, 1)], None, 0, &[]),
            // More are needed than are due.
            (
                &[idle(5, Normal, 1), idle(70, Normal, 1), idle(20, Normal, 1)],
                Some(60),
                2,
                &[1, 2],
            ),
            // About as long: by priority, then by cost, then by the exact time.
            (
                &[
                    idle(5, High, 1),
                    idle(4, Normal, 9),
                    idle(6, Normal, 2),
                    idle(3, Low, 50),
                    idle(3, Normal, 2),
                ],
                None,
                9,
                &[3, 2, 4, 1, 0],
            ),
            // Twice as long: first, though it is wanted more and dearer.
            (&[idle(3, Low, 1), idle(8, High, 90)], None, 1, &[1]),
        ];
        for (workers, timeout, needed, expected) in table {
            let timeout = timeout.map(Duration::from_secs);
            assert_eq!(
                leaving(workers, timeout, *needed),
                *expected,
                "{workers:?} {timeout:?} {needed}"
            );
        }
    }

    #[test]
    fn some_leave_before_there_are_too_many_and_a_quarter_when_memory_is_short() {
        for (workers, most, expected) in [
            (0, 1, 0),
            (1, 1, 1),
            (1, 2, 0),
            (9, 10, 0),
            (10, 10, 1),
            (12, 10, 3),
            (4_999, 5_000, 0),
            (5_000, 5_000, 78),
        ] {
            assert_eq!(surplus(workers, most), expected, "{workers} of {most}");
        }
        for (idle, expected) in [(0, 0), (1, 1), (4, 1), (5, 2), (5_000, 1_250)] {
            assert_eq!(under_pressure(idle), expected);
        }
    }
}
