//! The places that there are for workers of tenants.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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
    taken: Mutex<usize>,
    /// Threads that wait.
    waiting: AtomicUsize,
    free: Condvar,
}

/// A worker's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Seats>);

impl Seat {
    /// Its worker could leave now. Costs a load if nobody waits for that.
    pub(crate) fn is_idle(&self) {
        if self.0.waiting.load(Relaxed) > 0 {
            drop(self.0.lock());
            self.0.free.notify_one();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = {
            let mut taken = self.0.lock();
            *taken -= 1;
            *taken
        };
        metrics::workers(taken);
        if self.0.waiting.load(Relaxed) > 0 {
            self.0.free.notify_one();
        }
    }
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        *self.lock()
    }

    /// A place, if fewer than `most` are taken.
    fn try_take(self: &Arc<Self>, most: usize) -> Option<Seat> {
        let mut taken = self.lock();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        metrics::workers(*taken);
        drop(taken);
        Some(Seat(self.clone()))
    }

    /// A place; if all `most` are taken, `leave` is asked to have somebody leave,
    /// and says whether that was so. If nobody can, waits for `time` at most.
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
        self.waiting.fetch_add(1, Relaxed);
        let found = loop {
            let left = leave();
            if let Some(seat) = self.try_take(most) {
                break Ok(seat);
            }
            if left {
                continue;
            }
            let waited = begin.elapsed();
            let Some(patience) = time.checked_sub(waited).filter(|left| !left.is_zero()) else {
                break Err(AllBusy { most, waited });
            };
            // Somebody may have become idle since the look, without a word to who
            // didn't wait yet: another look soon.
            let patience = patience.min(Duration::from_millis(10));
            let guard = self.lock();
            drop(
                self.free
                    .wait_timeout(guard, patience)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        };
        self.waiting.fetch_sub(1, Relaxed);
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
