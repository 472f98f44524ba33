//! How many blank workers to have ready, by how many were wanted lately.

use std::collections::VecDeque;
use std::time::Duration;

/// Starts within this time count as being at once.
const SPAN: Duration = Duration::from_millis(100);
/// For how long a demand is remembered.
const MEMORY: Duration = Duration::from_secs(60);
/// How long after a start its blank is replaced, so that making one doesn't take a
/// processor from the worker that is just being set up.
const REST: Duration = Duration::from_millis(2);
/// The same where one at a time is wanted: a process that makes one short call and
/// ends makes no blank that nobody needs.
const FIRST_REST: Duration = Duration::from_millis(50);

/// When workers were wanted: all times are since the pool's beginning.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Beginnings of spans in which any were wanted, and how many.
    spans: VecDeque<(Duration, usize)>,
    last: Option<Duration>,
}

/// What to do about blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supply {
    /// There are too many.
    Drop,
    /// There are too few.
    Make,
    /// Look again then, unless something happens before.
    Wait(Duration),
    /// Nothing, until something happens.
    Rest,
}

impl Demand {
    /// A worker is wanted.
    pub(super) fn note(&mut self, now: Duration) {
        self.last = Some(now);
        match self.spans.back_mut() {
            Some((begin, count)) if now.saturating_sub(*begin) < SPAN => *count += 1,
            _ => self.spans.push_back((now, 1)),
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Duration) {
        let old = |(begin, _): &(Duration, usize)| now.saturating_sub(*begin) >= MEMORY;
        while self.spans.front().is_some_and(old) {
            self.spans.pop_front();
        }
    }

    /// How many blanks there should be: as many as were wanted at once, at most,
    /// in the time that is remembered.
    fn wanted(&self, most: usize) -> usize {
        let most_at_once = self.spans.iter().map(|(_, count)| *count).max();
        most_at_once.unwrap_or(0).min(most)
    }

    /// What to do now that there are `stock` blanks, of `most` at most.
    pub(super) fn supply(&mut self, now: Duration, stock: usize, most: usize) -> Supply {
        self.forget(now);
        let wanted = self.wanted(most);
        let (Some((oldest, _)), Some(last)) = (self.spans.front(), self.last) else {
            return match stock {
                0 => Supply::Rest,
                _ => Supply::Drop,
            };
        };
        if stock > wanted {
            return Supply::Drop;
        }
        if stock == wanted {
            return match stock {
                0 => Supply::Rest,
                _ => Supply::Wait(*oldest + MEMORY),
            };
        }
        let rest = match (stock, wanted) {
            (_, 1) => FIRST_REST,
            // Whoever comes next would have none.
            (0, _) => Duration::ZERO,
            _ => REST,
        };
        match now.saturating_sub(last) >= rest {
            true => Supply::Make,
            false => Supply::Wait(last + rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of these starts, in milliseconds, what there is to do at `now` with `stock`
    /// blanks of four.
    fn supply(starts: &[u64], now: u64, stock: usize) -> String {
        let now = Duration::from_millis(now);
        let mut demand = Demand::default();
        for start in starts {
            demand.note(Duration::from_millis(*start));
        }
        match demand.supply(now, stock, 4) {
            Supply::Rest => "rest".to_owned(),
            Supply::Drop => "drop".to_owned(),
            Supply::Make => "make".to_owned(),
            Supply::Wait(until) => format!("wait {}", (until - now).as_millis()),
        }
    }

    #[test]
    fn there_are_as_many_blanks_as_were_wanted_at_once() {
        let table: &[(&[u64], u64, usize, &str)] = &[
            (&[], 0, 0, "rest"),
            (&[], 0, 1, "drop"),
            // The first is replaced when it is clear that the process goes on.
            (&[10], 10, 0, "wait 50"),
            (&[10], 60, 0, "make"),
            (&[10], 60, 1, "wait 59950"),
            (&[10], 60, 2, "drop"),
            // Three at once want three more.
            (&[10, 11, 12], 12, 0, "make"),
            (&[10, 11, 12], 12, 1, "wait 2"),
            (&[10, 11, 12], 14, 1, "make"),
            (&[10, 11, 12], 14, 3, "wait 59996"),
            (&[10, 11, 12], 14, 4, "drop"),
            // One after another, far apart, want one.
            (&[10, 200, 400, 600], 600, 0, "wait 50"),
            (&[10, 200, 400, 600], 700, 1, "wait 59310"),
            // Never more than there may be.
            (&[10; 9], 20, 3, "make"),
            (&[10; 9], 20, 4, "wait 59990"),
            // What was long ago is forgotten.
            (&[10, 11, 12], 60_009, 3, "wait 1"),
            (&[10, 11, 12], 60_010, 3, "drop"),
            (&[10, 11, 12, 60_000], 60_010, 3, "drop"),
            (&[10, 11, 12, 60_000], 60_010, 1, "wait 59990"),
        ];
        for (starts, now, stock, expected) in table {
            let found = supply(starts, *now, *stock);
            assert_eq!(found, *expected, "{starts:?} at {now} with {stock}");
        }
    }
}
