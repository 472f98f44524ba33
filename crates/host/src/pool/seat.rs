//! The places that there are for workers of tenants.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::metrics;

/// All workers that there may be are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "all {most} workers that this host may have were busy, and none became free within {waited:?}; nothing was changed: try again, or allow more of them (PoolOptions::workers)"
)]
pub struct AllBusy {
    /// How many there may be.
    pub most: usize,
    /// How long it was waited for.
    pub waited: Duration,
}

/// How many workers there are, and who waits for one to be idle or gone.
#[derive(Debug, Default)]
pub(super) struct Seats {
    state: Mutex<State>,
    /// Threads that wait.
    waiting: AtomicUsize,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Counts workers that became idle or left while somebody waited.
    changes: u64,
}

/// A worker's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Seats>);

impl Seat {
    /// Its worker could leave now. Costs a load if nobody waits for that.
    pub(crate) fn is_idle(&self) {
        if self.0.waiting.load(SeqCst) > 0 {
            self.0.change(|_| ());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.change(|state| state.taken -= 1);
        metrics::worker_gone();
    }
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if self.waiting.load(SeqCst) > 0 {
            state.changes += 1;
            self.changed.notify_one();
        }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().taken
    }

    /// A place, if fewer than `most` are taken.
    fn try_take(self: &Arc<Self>, most: usize) -> Option<Seat> {
        let mut state = self.lock();
        if state.taken >= most {
            return None;
        }
        state.taken += 1;
        drop(state);
        metrics::worker_born();
        Some(Seat(self.clone()))
    }

    /// A place; if all `most` are taken, `leave` is asked to have somebody leave,
    /// and says whether that was so. If nobody can, waits until `time` is over.
    pub(super) fn take(
        self: &Arc<Self>,
        most: usize,
        time: Duration,
        leave: impl Fn() -> bool,
    ) -> Result<Seat, AllBusy> {
        if let Some(seat) = self.try_take(most) {
            return Ok(seat);
        }
        let begin = Instant::now();
        // Before the first look, so that who becomes idle after it says so.
        self.waiting.fetch_add(1, SeqCst);
        let found = loop {
            let seen = self.lock().changes;
            let left = leave();
            if let Some(seat) = self.try_take(most) {
                break Ok(seat);
            }
            let waited = begin.elapsed();
            let Some(patience) = time.checked_sub(waited).filter(|left| !left.is_zero()) else {
                break Err(AllBusy { most, waited });
            };
            if left {
                // Somebody else was quicker.
                continue;
            }
            let state = self.lock();
            // What wakes one who gives up at that moment is lost to the others.
            let patience = patience.min(Duration::from_millis(100));
            drop(
                self.changed
                    .wait_timeout_while(state, patience, |state| state.changes == seen)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        };
        self.waiting.fetch_sub(1, SeqCst);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_all_taken_waits_until_one_is_free() {
        let seats = Arc::new(Seats::default());
        let nobody = || false;
        let first = seats.take(2, Duration::ZERO, nobody).unwrap();
        let _second = seats.take(2, Duration::ZERO, nobody).unwrap();
        let error = seats.take(2, Duration::ZERO, nobody).unwrap_err();
        assert_eq!(error.most, 2);
        assert!(error.to_string().contains("all 2 workers"), "{error}");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| seats.take(2, Duration::from_secs(60), nobody).is_ok());
            drop(first);
            assert!(waits.join().unwrap());
        });
        assert_eq!(seats.taken(), 1, "the thread's is gone again");
    }

    #[test]
    fn somebody_leaves_for_who_comes() {
        let seats = Arc::new(Seats::default());
        let idle = Mutex::new(vec![seats.take(1, Duration::ZERO, || false).unwrap()]);
        let leave = || idle.lock().unwrap().pop().is_some();
        let _seat = seats.take(1, Duration::ZERO, leave).unwrap();
        assert_eq!(seats.taken(), 1);
    }
}
