//! The clocks of a program, read through the vDSO: no system call.
//!
//! The C library is called on purpose: it reads clocks through the vDSO
//! (vdso(7)), also their resolution.

use std::time::Duration;

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// Real time since 1970-01-01.
#[derive(Debug)]
pub(super) struct Wall;

/// Time since the program was loaded, as in the engine's own clock: how long
/// the host has been up is nothing that it was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Monotonic {
    origin: Duration,
}

impl Monotonic {
    /// A clock that starts at 0 now.
    pub(super) fn start() -> Self {
        Self {
            origin: now(libc::CLOCK_MONOTONIC),
        }
    }

    /// Time since the clock was started.
    pub(super) fn elapsed(&self) -> Duration {
        now(libc::CLOCK_MONOTONIC).saturating_sub(self.origin)
    }
}

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        resolution(libc::CLOCK_REALTIME)
    }

    fn now(&self) -> Duration {
        now(libc::CLOCK_REALTIME)
    }
}

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        nanoseconds(resolution(libc::CLOCK_MONOTONIC))
    }

    fn now(&self) -> u64 {
        nanoseconds(self.elapsed())
    }
}

/// Real time since 1970-01-01; 0 if the host's clock is set to before.
pub(super) fn real_time() -> Duration {
    now(libc::CLOCK_REALTIME)
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
