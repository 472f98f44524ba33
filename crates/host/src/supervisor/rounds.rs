//! The supervisor's rounds: each second it looks again at a few workers, one
//! after another, and tells others which live.

use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::Inner;

/// How often it goes.
const PERIOD: Duration = Duration::from_secs(1);
/// Within how many rounds it comes to every worker, if they are not too many.
const ROUNDS: usize = 60;
/// The most workers that it looks at in one round: a look costs 0.1 to 0.3 ms,
/// so that thousands of idle workers take less than a hundredth of a processor.
const MOST: usize = 30;

/// Where it is.
#[derive(Debug)]
pub(super) struct Rounds {
    next: Instant,
    /// The last worker that was looked at.
    last: u64,
    /// The last one that others were told of.
    told: u64,
}

/// At how many of these to look in one round.
fn share(workers: usize) -> usize {
    workers.div_ceil(ROUNDS).min(MOST)
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self {
            next: Instant::now() + PERIOD,
            last: 0,
            told: 0,
        }
    }

    /// How long the thread may sleep: as long as it likes if there is nobody.
    pub(super) fn time_left(&self, nobody: bool) -> Option<Timespec> {
        let left = self.next.saturating_duration_since(Instant::now());
        match nobody {
            true => None,
            false => Timespec::try_from(left).ok(),
        }
    }

    /// Goes, if it is time.
    pub(super) fn go(&mut self, supervisor: &Inner) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + PERIOD;
        if let Some(register) = &supervisor.register {
            let new: Vec<_> = {
                let watched = supervisor.watched();
                watched
                    .range(self.told + 1..)
                    .map(|(number, watch)| (*number, watch.clone()))
                    .collect()
            };
            for (number, watch) in new {
                self.told = number;
                watch.enter(register);
            }
        }
        let chosen: Vec<_> = {
            let watched = supervisor.watched();
            let count = share(watched.len());
            watched
                .range(self.last + 1..)
                .chain(watched.range(..=self.last))
                .take(count)
                .map(|(number, watch)| (*number, watch.clone()))
                .collect()
        };
        for (number, watch) in chosen {
            self.last = number;
            match watch.has_ended() {
                true => supervisor.forget(number),
                false => watch.check_posture(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_short_and_comes_to_everybody() {
        assert_eq!(share(0), 0);
        assert_eq!(share(1), 1);
        assert_eq!(share(60), 1);
        assert_eq!(share(61), 2);
        assert_eq!(share(5_000), MOST);
        for workers in 1..=ROUNDS * MOST {
            assert!(share(workers) * ROUNDS >= workers, "{workers}");
        }
    }
}
