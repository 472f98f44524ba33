//! How long a tenant is held back whose workers end in its calls, one after another.
//!
//! To start a worker and to put an incident on record takes time that others could
//! have. A tenant whose calls crash has to wait between them, longer each time; one
//! call that goes well, and all is forgotten. Nobody else waits.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use crate::pool::coarse_now;

/// So many crashes in a row cost nothing: somebody may have killed a worker.
const FREE: u32 = 3;
/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(20);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);

/// How long to wait after so many crashes in a row.
fn wait(crashes: u32) -> Duration {
    match crashes.checked_sub(FREE) {
        None | Some(0) => Duration::ZERO,
        Some(more) => {
            let doublings = 1u32.checked_shl(more - 1).unwrap_or(u32::MAX);
            FIRST.saturating_mul(doublings).min(LONGEST)
        }
    }
}

/// The tenant's workers ended in its last calls, and it has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "its worker ended in each of the last {crashes} calls, so the tenant is held back for another {left:?}; nothing was changed, try again then"
)]
pub struct HeldBack {
    /// How many calls in a row.
    pub crashes: u32,
    /// For how long.
    pub left: Duration,
}

/// What is known of a tenant's crashes.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    state: Mutex<State>,
    /// Whether there are any: all that a call that goes well looks at.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    crashes: u32,
    until: Duration,
}

impl BackOff {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call's worker has ended.
    pub(super) fn crashed(&self) {
        let mut state = self.lock();
        state.crashes = state.crashes.saturating_add(1);
        state.until = coarse_now() + wait(state.crashes);
        self.any.store(true, Relaxed);
    }

    /// A call's worker has answered.
    pub(super) fn answered(&self) {
        if self.any.load(Relaxed) {
            *self.lock() = State::default();
            self.any.store(false, Relaxed);
        }
    }

    /// Whether a worker may be started now.
    pub(super) fn check(&self) -> Result<(), HeldBack> {
        if !self.any.load(Relaxed) {
            return Ok(());
        }
        let state = self.lock();
        let left = state.until.saturating_sub(coarse_now());
        match left.is_zero() {
            true => Ok(()),
            false => Err(HeldBack {
                crashes: state.crashes,
                left,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_fourth_crash_on() {
        let millis = |crashes| wait(crashes).as_millis();
        assert_eq!([0, 1, 3].map(millis), [0, 0, 0]);
        assert_eq!([4, 5, 6, 10].map(millis), [20, 40, 80, 1_280]);
        assert_eq!([15, 40, u32::MAX].map(millis), [30_000; 3]);
    }

    #[test]
    fn an_answer_forgets_all() {
        let back_off = BackOff::default();
        for _ in 0..3 {
            back_off.crashed();
            assert_eq!(back_off.check(), Ok(()));
        }
        for _ in 0..9 {
            back_off.crashed();
        }
        let held = back_off.check().unwrap_err();
        assert_eq!(held.crashes, 12);
        assert!(held.left > Duration::from_secs(1), "{held}");
        back_off.answered();
        assert_eq!(back_off.check(), Ok(()));
        back_off.crashed();
        assert_eq!(back_off.check(), Ok(()));
    }
}
