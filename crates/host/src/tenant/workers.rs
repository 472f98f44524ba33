//! The workers of one tenant. All are alike: each holds the tenant's memory at
//! some version, and is brought to the newest before it runs a call.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lazaret_image::Version;

use super::live::Live;
use crate::pool::coarse_now;

/// The workers that wait for a call, and how many run queries.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    #[expect(
        clippy::vec_box,
        reason = "each is moved out and in with every call, and is large"
    )]
    idle: Vec<Box<Live>>,
    queries: usize,
    /// Threads that wait for one to end.
    waiting: usize,
    /// Workers of an earlier generation have another module or another past.
    generation: u64,
}

fn best(state: &mut State, newest: Version) -> Option<Box<Live>> {
    state.idle.retain(|live| live.is_alive());
    let at = state
        .idle
        .iter()
        .rposition(|live| live.version() == newest)
        .or(state.idle.len().checked_sub(1))?;
    Some(state.idle.remove(at))
}

fn keep(state: &mut State, mut live: Box<Live>) {
    if live.generation == state.generation && live.is_alive() {
        live.idle_since = coarse_now();
        live.seat.is_idle();
        state.idle.push(live);
    }
}

/// Leave to run a query, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(Option<&'a Workers>);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(workers) = self.0.take() {
            workers.end_query(&mut workers.lock());
        }
    }
}

impl Slot<'_> {
    /// Ends it, and keeps its worker.
    pub(crate) fn give(mut self, live: Box<Live>) {
        if let Some(workers) = self.0.take() {
            let mut state = workers.lock();
            workers.end_query(&mut state);
            keep(&mut state, live);
        }
    }
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_query(&self, state: &mut State) {
        state.queries -= 1;
        // A condition variable makes a system call whether anybody waits or not.
        if state.waiting > 0 {
            self.ended.notify_one();
        }
    }

    /// Begins a query if fewer than `most` run, with an idle worker if there is
    /// one ([`Workers::take`]).
    pub(crate) fn begin_query(
        &self,
        most: usize,
        newest: Version,
    ) -> Option<(Slot<'_>, Option<Box<Live>>)> {
        let mut state = self.lock();
        (state.queries < most.max(1)).then(|| {
            state.queries += 1;
            (Slot(Some(self)), best(&mut state, newest))
        })
    }

    /// Waits until fewer than `most` queries run, for at most `time`; whether
    /// that came. Somebody else may be quicker to begin one then.
    pub(crate) fn await_slot(&self, most: usize, time: Duration) -> bool {
        let mut state = self.lock();
        state.waiting += 1;
        let (mut state, waited) = self
            .ended
            .wait_timeout_while(state, time, |state| state.queries >= most.max(1))
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        !waited.timed_out()
    }

    /// An idle worker: one at `newest` if there is any, and of those the one
    /// that was used last, as its memory is in the processor's caches.
    pub(crate) fn take(&self, newest: Version) -> Option<Box<Live>> {
        best(&mut self.lock(), newest)
    }

    /// Keeps a worker for the next call, unless it is of another time.
    pub(crate) fn give(&self, live: Box<Live>) {
        keep(&mut self.lock(), live);
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

    /// Tells of each idle worker its number, since when it is idle, and how long its
    /// start took.
    pub(crate) fn idle(&self, mut tell: impl FnMut(i32, Duration, Duration)) {
        let mut state = self.lock();
        state.idle.retain(|live| live.is_alive());
        for live in &state.idle {
            tell(live.worker().pid(), live.idle_since, live.start_time);
        }
    }

    /// Takes this worker away if it has been idle since then, and no call came.
    pub(crate) fn evict(&self, pid: i32, idle_since: Duration) -> Option<Box<Live>> {
        let mut state = self.lock();
        let at = state
            .idle
            .iter()
            .position(|live| live.worker().pid() == pid && live.idle_since == idle_since)?;
        Some(state.idle.remove(at))
    }

    /// Numbers of the idle workers' processes.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let state = self.lock();
        let alive = state.idle.iter().filter(|live| live.is_alive());
        alive.map(|live| live.worker().pid()).collect()
    }
}
