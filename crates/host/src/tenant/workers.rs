//! The workers of one tenant. All are alike: each holds the tenant's memory at
//! some version, and is brought to the newest before it runs a call.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lazaret_image::Version;

use super::live::Live;

/// The workers that wait for a call, and how many run queries.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Live>,
    queries: usize,
    /// Workers of an earlier generation have another module or another past.
    generation: u64,
}

/// Leave to run a query, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Workers);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.lock().queries -= 1;
        self.0.ended.notify_one();
    }
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `most` queries run. `None` if that takes longer
    /// than `time`.
    pub(crate) fn query_slot(&self, most: usize, time: Duration) -> Option<Slot<'_>> {
        let mut state = self.lock();
        // Without a look at the clock in the usual case.
        if state.queries >= most.max(1) {
            let deadline = Instant::now().checked_add(time);
            while state.queries >= most.max(1) {
                let left =
                    deadline.map_or(time, |end| end.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    return None;
                }
                state = self
                    .ended
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
        state.queries += 1;
        Some(Slot(self))
    }

    /// An idle worker: one at `newest` if there is any, and of those the one
    /// that was used last, as its memory is in the processor's caches.
    pub(crate) fn take(&self, newest: Version) -> Option<Live> {
        let mut state = self.lock();
        state.idle.retain(Live::is_alive);
        let at = state
            .idle
            .iter()
            .rposition(|live| live.version() == newest)
            .or(state.idle.len().checked_sub(1))?;
        Some(state.idle.remove(at))
    }

    /// Keeps a worker for the next call, unless it is of another time.
    pub(crate) fn give(&self, live: Live) {
        let mut state = self.lock();
        if live.generation == state.generation && live.is_alive() {
            state.idle.push(live);
        }
    }

    /// The generation of workers that are started now.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Lets go of all workers, also of those that run now, once they end.
    pub(crate) fn retire(&self) {
        let retired = {
            let mut state = self.lock();
            state.generation += 1;
            std::mem::take(&mut state.idle)
        };
        drop(retired);
    }

    /// Numbers of the idle workers' processes.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let state = self.lock();
        let alive = state.idle.iter().filter(|live| live.is_alive());
        alive.map(|live| live.worker().pid()).collect()
    }
}
