//! The clocks of a program, read through the vDSO: no system call.
//!
//! The C library is called on purpose: it reads clocks through the vDSO
//! (vdso(7)), also their resolution.
//!
//! A clock that is fine enough tells a cache hit from a miss, and so what others
//! on this machine have done. So a program gets the kernel's coarse clocks
//! (`CLOCK_REALTIME_COARSE` and `CLOCK_MONOTONIC_COARSE`, clock_gettime(2)), which
//! move on with the timer's tick: every 1 to 10 ms, 4 at `CONFIG_HZ=250`. Reading
//! them doesn't read the processor's cycle counter, which is then refused to the
//! whole worker (`lazaret_wall::measures::cycle_counter`). Whoever runs the program
//! can give it exact clocks, or ones that stand still.

use std::time::Duration;

use lazaret_wire::message::Clock;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// What a program is told of time, and what its waiting goes by. Clones are of
/// the same clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    kind: Clock,
    /// The kernel's monotonic clock when the program was loaded. How long the
    /// host has been up is nothing that it was given.
    origin: Duration,
    /// Real time then.
    real_origin: Duration,
}

impl Clocks {
    /// Clocks whose monotonic one is at 0 now.
    pub(super) fn start(kind: Clock) -> Self {
        let mut clocks = Self {
            kind,
            origin: Duration::ZERO,
            real_origin: Duration::ZERO,
        };
        clocks.origin = now(clocks.monotonic_id());
        clocks.real_origin = now(clocks.real_id());
        clocks
    }

    fn monotonic_id(self) -> libc::clockid_t {
        match self.kind {
            Clock::Exact => libc::CLOCK_MONOTONIC,
            Clock::Coarse | Clock::Frozen => libc::CLOCK_MONOTONIC_COARSE,
        }
    }

    fn real_id(self) -> libc::clockid_t {
        match self.kind {
            Clock::Exact => libc::CLOCK_REALTIME,
            Clock::Coarse | Clock::Frozen => libc::CLOCK_REALTIME_COARSE,
        }
    }

    /// Time since the clocks were started, which moves on also where the
    /// program's don't: what waiting goes by.
    pub(super) fn elapsed(&self) -> Duration {
        now(self.monotonic_id()).saturating_sub(self.origin)
    }

    /// What the program's monotonic clock shows.
    pub(super) fn monotonic(&self) -> Duration {
        match self.kind {
            Clock::Frozen => Duration::ZERO,
            Clock::Exact | Clock::Coarse => self.elapsed(),
        }
    }

    /// What the program's real time is, since 1970-01-01; 0 if the host's clock
    /// is set to before.
    pub(super) fn real(&self) -> Duration {
        match self.kind {
            Clock::Frozen => self.real_origin,
            Clock::Exact | Clock::Coarse => now(self.real_id()),
        }
    }

    /// Whether real time moves on, and can be set, while the program waits.
    pub(super) fn real_moves(&self) -> bool {
        self.kind != Clock::Frozen
    }
}

impl HostWallClock for Clocks {
    fn resolution(&self) -> Duration {
        resolution(self.real_id())
    }

    fn now(&self) -> Duration {
        self.real()
    }
}

impl HostMonotonicClock for Clocks {
    fn resolution(&self) -> u64 {
        nanoseconds(resolution(self.monotonic_id()))
    }

    fn now(&self) -> u64 {
        nanoseconds(self.monotonic())
    }
}

/// Whole nanoseconds, which 64 bits hold for 584 years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn now(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for a timespec for as long as the call
    // takes. Should it fail, the zeros stay.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    duration(time)
}

fn resolution(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1,
    };
    // SAFETY: as in `now`.
    unsafe { libc::clock_getres(clock, &raw mut time) };
    duration(time)
}

fn duration(time: libc::timespec) -> Duration {
    match (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(seconds), Ok(nanoseconds)) if nanoseconds < 1_000_000_000 => {
            Duration::new(seconds, nanoseconds)
        }
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_clocks_tick_and_frozen_ones_do_not() {
        let [exact, coarse, frozen] =
            [Clock::Exact, Clock::Coarse, Clock::Frozen].map(Clocks::start);
        let of = |clocks: &Clocks| HostMonotonicClock::resolution(clocks);
        // 1 to 10 ms, by the kernel's configuration.
        assert!(
            (1_000_000..=10_000_000).contains(&of(&coarse)),
            "{coarse:?}"
        );
        assert_eq!(of(&coarse), of(&frozen));
        assert!(of(&exact) < of(&coarse));
        let (real, before) = (frozen.real(), frozen.elapsed());
        // Every value that the coarse clock shows within a few ticks.
        let mut seen = vec![coarse.monotonic()];
        while seen.len() < 4 {
            let shown = coarse.monotonic();
            if seen.last() != Some(&shown) {
                seen.push(shown);
            }
        }
        for steps in seen.get(1..).unwrap_or_default().windows(2) {
            let [from, to] = steps else { continue };
            // Ticks may be missed, never shown in between.
            assert!(nanoseconds(*to - *from) * 2 > of(&coarse), "{seen:?}");
        }
        assert_eq!((frozen.monotonic(), frozen.real()), (Duration::ZERO, real));
        assert!(frozen.elapsed() > before, "waiting must come to an end");
    }
}
