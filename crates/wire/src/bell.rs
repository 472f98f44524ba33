//! Bells: futex words in shared memory that count messages.
//!
//! The ringer stores the next number and wakes the other side if it said that
//! it sleeps; the waiter spins for a while and then sleeps. While both sides
//! are hot, no system call is made. Every sleep has a time limit: a peer that
//! lies about its bells delays only the call at hand.
//!
//! Only `FUTEX_WAIT` and `FUTEX_WAKE` are used, and a worker's filter allows
//! no other: with `FUTEX_REQUEUE` a worker could move the host's waiter to an
//! address of its choice (kernel: `kernel/futex/requeue.c`).

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::thread::futex;

/// How a wait for a bell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// The bell has the next number.
    Next,
    /// The time is over, and the bell has its old number.
    Timeout,
    /// The caller's `stop` said so.
    Stopped,
    /// The bell has a number that is neither the old nor the next: malformed.
    Wild(u32),
}

/// How many times a waiter looks at the bell before it sleeps.
///
/// A look costs a `pause` (some 10 to 40 ns, depending on the processor), so
/// the default spins for about as long as two processes on two processors
/// take to wake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spin(pub u32);

impl Spin {
    /// Sleep at once.
    pub const NONE: Self = Self(0);
    /// For a peer that will answer within microseconds.
    pub const HOT: Self = Self(2_000);
}

/// A sleep this long ends by itself, so that `stop` is looked at even if its
/// wake-up was missed.
const SLICE: Duration = Duration::from_millis(50);

/// Rings: stores `next` and wakes the sleeper if there is one.
pub fn ring(bell: &AtomicU32, sleeps: &AtomicU32, next: u32) {
    bell.store(next, SeqCst);
    if sleeps.load(SeqCst) != 0 {
        wake(bell);
    }
}

/// Wakes whoever sleeps on `bell`, without ringing it.
pub fn wake(bell: &AtomicU32) {
    // An error is impossible for a mapped, aligned word and would change
    // nothing: the sleeper's slice ends by itself.
    let _ = futex::wake(bell, futex::Flags::empty(), 1);
}

/// Waits until `bell` leaves `old`, for at most until `deadline`.
pub fn wait(
    bell: &AtomicU32,
    sleeps: &AtomicU32,
    old: u32,
    spin: Spin,
    deadline: Option<Instant>,
    stop: &dyn Fn() -> bool,
) -> Rung {
    let look = || match bell.load(SeqCst) {
        value if value == old => None,
        value if value == old.wrapping_add(1) => Some(Rung::Next),
        value => Some(Rung::Wild(value)),
    };
    for _ in 0..spin.0 {
        if let Some(rung) = look() {
            return rung;
        }
        std::hint::spin_loop();
    }
    loop {
        if let Some(rung) = look() {
            return rung;
        }
        if stop() {
            // The peer may have rung as its last act.
            return look().unwrap_or(Rung::Stopped);
        }
        // The clock is read only where there is a deadline: a worker may have
        // no clock at all.
        let slice = match deadline {
            None => SLICE,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return Rung::Timeout,
                Some(left) => left.min(SLICE),
            },
        };
        sleeps.store(1, SeqCst);
        let timeout = rustix::fs::Timespec {
            tv_sec: slice.as_secs() as i64,
            tv_nsec: i64::from(slice.subsec_nanos()),
        };
        // EAGAIN, EINTR and ETIMEDOUT all mean the same: look again.
        let _ = futex::wait(bell, futex::Flags::empty(), old, Some(&timeout));
        sleeps.store(0, SeqCst);
    }
}

/// Waits for ever, as a worker does between requests. It needs no clock.
pub fn wait_forever(bell: &AtomicU32, sleeps: &AtomicU32, old: u32, spin: Spin) -> Rung {
    let look = |value: u32| match value {
        value if value == old => None,
        value if value == old.wrapping_add(1) => Some(Rung::Next),
        value => Some(Rung::Wild(value)),
    };
    for _ in 0..spin.0 {
        if let Some(rung) = look(bell.load(SeqCst)) {
            return rung;
        }
        std::hint::spin_loop();
    }
    loop {
        sleeps.store(1, SeqCst);
        if let Some(rung) = look(bell.load(SeqCst)) {
            sleeps.store(0, SeqCst);
            return rung;
        }
        let _ = futex::wait(bell, futex::Flags::empty(), old, None);
        sleeps.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_bell_is_seen_at_once() {
        let (bell, sleeps) = (AtomicU32::new(7), AtomicU32::new(0));
        ring(&bell, &sleeps, 8);
        assert_eq!(wait(&bell, &sleeps, 7, Spin::NONE, None, &|| false), Rung::Next);
    }

    #[test]
    fn a_wild_value_is_malformed() {
        let (bell, sleeps) = (AtomicU32::new(9), AtomicU32::new(0));
        assert_eq!(wait(&bell, &sleeps, 7, Spin::NONE, None, &|| false), Rung::Wild(9));
    }

    #[test]
    fn the_count_wraps() {
        let (bell, sleeps) = (AtomicU32::new(0), AtomicU32::new(0));
        assert_eq!(wait(&bell, &sleeps, u32::MAX, Spin::NONE, None, &|| false), Rung::Next);
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (bell, sleeps) = (AtomicU32::new(0), AtomicU32::new(0));
        let deadline = Instant::now() + Duration::from_millis(5);
        assert_eq!(wait(&bell, &sleeps, 0, Spin::HOT, Some(deadline), &|| false), Rung::Timeout);
    }

    #[test]
    fn a_sleeper_is_woken() {
        let (bell, sleeps) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait_forever(&bell, &sleeps, 0, Spin::NONE));
            while sleeps.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            ring(&bell, &sleeps, 1);
            assert_eq!(waiter.join().unwrap(), Rung::Next);
        });
    }

    #[test]
    fn a_dead_peer_ends_the_wait() {
        let (bell, sleeps) = (AtomicU32::new(0), AtomicU32::new(0));
        assert_eq!(wait(&bell, &sleeps, 0, Spin::NONE, None, &|| true), Rung::Stopped);
    }
}
