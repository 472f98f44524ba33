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
/// at most it spins for about as long as two processes on two processors take
/// to wake each other. That is wasted if the peer is slow, and worse if the
/// scheduler has put both on one processor: then the peer can't answer before
/// the waiter sleeps. So the waiter learns: each vain spin halves the next, and
/// once it no longer spins it tries again every so often. Both sides count the same
/// exchanges and try in the same one: either alone would try in vain, as what it waits
/// for then begins with the other's wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spin {
    most: u32,
    now: u32,
}

impl Spin {
    /// Sleep at once.
    pub const NONE: Self = Self::at_most(0);
    /// For a peer that will answer within microseconds.
    pub const HOT: Self = Self::at_most(2_000);
    /// Less than this is not worth a spin.
    const LEAST: u32 = 16;
    /// One exchange in so many spins as long as it may, whatever it has learned.
    const TRY_AGAIN: u32 = 16;
    /// How many times as long it spins for a peer that it has woken: a wake-up takes about
    /// as long as the spin.
    const WAKING: u32 = 2;

    /// At most so many looks.
    pub const fn at_most(looks: u32) -> Self {
        Self {
            most: looks,
            now: looks,
        }
    }

    /// Whether it is tried in this exchange, whatever was learned.
    pub const fn tries(exchange: u32) -> bool {
        exchange.is_multiple_of(Self::TRY_AGAIN)
    }

    /// Forgets what was learned: the next spin is worth it.
    pub fn forget(&mut self) {
        self.now = self.most;
    }

    /// Looks until `look` sees something, and learns from it.
    fn spin<T>(&mut self, exchange: u32, look: impl Fn() -> Option<T>) -> Option<T> {
        if Self::tries(exchange) {
            self.forget();
        }
        for _ in 0..self.now {
            if let Some(seen) = look() {
                self.forget();
                return Some(seen);
            }
            std::hint::spin_loop();
        }
        self.now = if self.now / 2 < Self::LEAST {
            0
        } else {
            self.now / 2
        };
        None
    }
}

/// A sleep this long ends by itself, so that `stop` is looked at even if its
/// wake-up was missed.
const SLICE: Duration = Duration::from_millis(50);

/// Rings: stores `next` and wakes the sleeper if there is one. Whether there was.
pub fn ring(bell: &AtomicU32, sleeps: &AtomicU32, next: u32) -> bool {
    bell.store(next, SeqCst);
    let asleep = sleeps.load(SeqCst) != 0;
    if asleep {
        wake(bell);
    }
    asleep
}

/// Wakes whoever sleeps on `bell`, without ringing it.
pub fn wake(bell: &AtomicU32) {
    // An error is impossible for a mapped, aligned word and would change
    // nothing: the sleeper's slice ends by itself.
    let _ = futex::wake(bell, futex::Flags::empty(), 1);
}

/// Spins until `bell` leaves `old`, without a look at the clock. `None` if it
/// didn't: [`wait`] then. The exchange has the number of its request, as its answer may
/// have another: a blank worker answers once unasked.
pub fn spin(bell: &AtomicU32, old: u32, exchange: u32, spin: &mut Spin) -> Option<Rung> {
    spin.spin(exchange, || look(bell, old))
}

/// The same while the peer, which slept, wakes up. Nothing is learned from it of other
/// spins.
pub fn spin_for_woken(bell: &AtomicU32, old: u32, spin: &Spin) -> Option<Rung> {
    for _ in 0..spin.most.saturating_mul(Spin::WAKING) {
        if let Some(rung) = look(bell, old) {
            return Some(rung);
        }
        std::hint::spin_loop();
    }
    None
}

fn look(bell: &AtomicU32, old: u32) -> Option<Rung> {
    match bell.load(SeqCst) {
        value if value == old => None,
        value if value == old.wrapping_add(1) => Some(Rung::Next),
        value => Some(Rung::Wild(value)),
    }
}

/// Waits until `bell` leaves `old`, for at most `limit` after the spin.
pub fn wait(
    bell: &AtomicU32,
    sleeps: &AtomicU32,
    old: u32,
    spin: &mut Spin,
    limit: Option<Duration>,
    stop: &dyn Fn() -> bool,
) -> Rung {
    let look = || look(bell, old);
    if let Some(rung) = spin.spin(old.wrapping_add(1), look) {
        return rung;
    }
    // Only now, as a look at the clock costs as much as several at the bell. A
    // limit that the clock can't hold is none.
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
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
pub fn wait_forever(bell: &AtomicU32, sleeps: &AtomicU32, old: u32, spin: &mut Spin) -> Rung {
    let look = || look(bell, old);
    // Of the exchange that has just ended, which is the one that the host counts.
    if let Some(rung) = spin.spin(old, look) {
        return rung;
    }
    loop {
        sleeps.store(1, SeqCst);
        if let Some(rung) = look() {
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
        assert_eq!(
            wait(&bell, &sleeps, 7, &mut Spin::at_most(0), None, &|| false),
            Rung::Next
        );
    }

    #[test]
    fn a_wild_value_is_malformed() {
        let (bell, sleeps) = (AtomicU32::new(9), AtomicU32::new(0));
        assert_eq!(
            wait(&bell, &sleeps, 7, &mut Spin::at_most(0), None, &|| false),
            Rung::Wild(9)
        );
    }

    #[test]
    fn the_count_wraps() {
        let (bell, sleeps) = (AtomicU32::new(0), AtomicU32::new(0));
        assert_eq!(
            wait(
                &bell,
                &sleeps,
                u32::MAX,
                &mut Spin::at_most(0),
                None,
                &|| false
            ),
            Rung::Next
        );
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (bell, sleeps) = (AtomicU32::new(0), AtomicU32::new(0));
        assert_eq!(
            wait(
                &bell,
                &sleeps,
                0,
                &mut Spin::at_most(100),
                Some(Duration::from_millis(5)),
                &|| false
            ),
            Rung::Timeout
        );
    }

    #[test]
    fn vain_spins_become_shorter_and_a_fruitful_one_restores_them() {
        use std::cell::Cell;
        let looks = Cell::new(0u32);
        let count = |spin: &mut Spin, exchange: u32, answer: bool| {
            looks.set(0);
            let seen = spin.spin(exchange, || {
                looks.set(looks.get() + 1);
                answer.then_some(())
            });
            assert_eq!(seen.is_some(), answer && looks.get() > 0);
            looks.get()
        };
        let mut spin = Spin::at_most(100);
        assert_eq!(
            [1, 2, 3, 4].map(|exchange| count(&mut spin, exchange, false)),
            [100, 50, 25, 0]
        );
        // An answer can only be seen by who looks: in the next exchange in which both do.
        let fruitful = (5..).find(|exchange| count(&mut spin, *exchange, true) > 0);
        assert_eq!(fruitful, Some(Spin::TRY_AGAIN));
        assert_eq!(count(&mut spin, Spin::TRY_AGAIN + 1, false), 100);
        assert_eq!(count(&mut Spin::at_most(0), Spin::TRY_AGAIN, false), 0);
        let mut spin = Spin::at_most(100);
        for exchange in 1..9 {
            count(&mut spin, exchange, false);
        }
        spin.forget();
        assert_eq!(count(&mut spin, 9, false), 100);
    }

    #[test]
    fn both_sides_try_in_the_same_exchange() {
        let (bell, sleeps) = (AtomicU32::new(16), AtomicU32::new(0));
        let tired = || Spin { most: 9, now: 0 };
        // The host waits for answer 16, and the worker then for request 17.
        let mut host = tired();
        assert_eq!(spin(&bell, 15, 16, &mut host), Some(Rung::Next));
        bell.store(17, SeqCst);
        let mut worker = tired();
        assert_eq!(wait_forever(&bell, &sleeps, 16, &mut worker), Rung::Next);
        assert_eq!((host.now, worker.now), (9, 9));
        bell.store(15, SeqCst);
        assert_eq!(spin(&bell, 14, 15, &mut tired()), None);
        assert_eq!(spin_for_woken(&bell, 14, &tired()), Some(Rung::Next));
        assert_eq!(spin_for_woken(&bell, 15, &tired()), None);
    }

    #[test]
    fn a_sleeper_is_woken() {
        let (bell, sleeps) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait_forever(&bell, &sleeps, 0, &mut Spin::at_most(0)));
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
        assert_eq!(
            wait(&bell, &sleeps, 0, &mut Spin::at_most(0), None, &|| true),
            Rung::Stopped
        );
    }
}
