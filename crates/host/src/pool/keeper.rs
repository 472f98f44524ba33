//! The keeper of a pool: the thread that makes blank workers, lets them go, and
//! has idle workers leave.

use std::time::Duration;

use lazaret_wall::memory_pressure::MemoryPressure;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::demand::Supply;
use super::eviction::under_pressure;
use super::{Common, Reason, State, files};
use crate::metrics;

/// How long it makes no blank after it could not.
const BACK_OFF: Duration = Duration::from_secs(1);

/// How long it makes no blank after memory was short.
const SHORTAGE: Duration = Duration::from_secs(10);
/// How long what has left is given to help, before it is heard again that memory is
/// short.
const RELIEF: Duration = Duration::from_millis(500);

/// Into how many looks the time is divided after which a worker leaves, at most:
/// who has been idle for long enough by the next look may stay until then.
const LOOKS: u32 = 8;
/// Between two looks at least, however soon workers are to leave: a look costs some
/// time for each tenant.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether the keeper is to be woken, as there is something to do before it would
/// look by itself. At most one of those who ask is told so.
pub(super) fn calls(state: &mut State, now: Duration, most: usize) -> bool {
    let supply = match state.demand.supply(now, state.blanks.len(), most) {
        Supply::Rest => None,
        Supply::Make | Supply::Drop => Some(now),
        Supply::Wait(until) => Some(until),
    };
    let Some(wanted) = sooner(supply, state.sweep) else {
        return false;
    };
    let calls = state.alarm.is_none_or(|alarm| wanted < alarm);
    if calls {
        state.alarm = Some(wanted);
    }
    calls
}

fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// When to look again, after a look that left one who had waited for `longest`.
fn next_look(now: Duration, timeout: Duration, longest: Option<Duration>) -> Option<Duration> {
    let longest = longest?;
    let pause = (timeout / LOOKS).max(PAUSE);
    Some(now + timeout.saturating_sub(longest).max(pause))
}

/// What the keeper does until the pool ends.
pub(super) fn run(common: &Common) {
    let most = common.most;
    let mut not_before = Duration::ZERO;
    let mut ears = Ears::open();
    loop {
        if ears.is_short(common.now()) {
            let blanks = std::mem::take(&mut common.lock().blanks);
            let idle = common.sweep(Reason::Pressure, under_pressure).left;
            tracing::info!(
                idle,
                blank = blanks.len(),
                "memory is short: workers have left"
            );
            not_before = common.now() + SHORTAGE;
        }
        let mut state = common.lock();
        if state.ending {
            return;
        }
        state.blanks.retain(|blank| blank.is_alive());
        let now = common.now();
        // Awake: nobody needs to call.
        state.alarm = Some(now);
        metrics::blanks(state.blanks.len());
        if std::mem::take(&mut state.close_files) {
            drop(state);
            files::close(common.registry.open(), common.most_files);
            continue;
        }
        if let Some(timeout) = common.options.pool.idle
            && state.sweep.is_some_and(|at| at <= now)
        {
            // Whoever enters from here on says when to look.
            state.sweep = None;
            drop(state);
            let swept = common.sweep(Reason::Idle, |_| 0);
            let mut state = common.lock();
            let next = next_look(common.now(), timeout, swept.longest);
            let next = next.or_else(|| swept.any.then_some(common.now() + timeout.max(PAUSE)));
            state.sweep = sooner(state.sweep, next);
            continue;
        }
        let stock = state.blanks.len();
        let supply = match state.demand.supply(now, stock, most) {
            Supply::Drop => {
                let surplus = state.blanks.pop_front();
                drop(state);
                drop(surplus);
                continue;
            }
            Supply::Make if now >= not_before => {
                drop(state);
                match common.make() {
                    Ok(blank) => common.lock().blanks.push_back(blank),
                    Err(error) => {
                        tracing::debug!(%error, "no blank worker could be made");
                        not_before = common.now() + BACK_OFF;
                    }
                }
                continue;
            }
            Supply::Make => Some(not_before),
            Supply::Wait(until) => Some(until),
            Supply::Rest => None,
        };
        state.alarm = sooner(supply, state.sweep);
        let alarm = state.alarm;
        drop(state);
        ears.sleep(common, alarm);
    }
}

/// What the keeper hears while it sleeps.
struct Ears {
    pressure: MemoryPressure,
    /// Memory is short.
    short: bool,
    /// What is heard of it before then is the same shortage still.
    deaf_until: Duration,
}

impl Ears {
    fn open() -> Self {
        let (pressure, missing) = MemoryPressure::listen();
        if pressure.is_deaf() {
            tracing::debug!(?missing, "nobody says when memory is short");
        }
        Self {
            pressure,
            short: false,
            deaf_until: Duration::ZERO,
        }
    }

    /// Whether it was heard that memory is short, since the last time.
    fn is_short(&mut self, now: Duration) -> bool {
        if !std::mem::take(&mut self.short) {
            return false;
        }
        self.deaf_until = now + RELIEF;
        self.pressure.is_short()
    }

    /// Sleeps until it is woken, memory is short, or it is time.
    fn sleep(&mut self, common: &Common, alarm: Option<Duration>) {
        let now = common.now();
        let deaf = now < self.deaf_until;
        let until = sooner(alarm, deaf.then_some(self.deaf_until));
        let time = until.and_then(|until| Timespec::try_from(until.saturating_sub(now)).ok());
        let mut set = vec![PollFd::new(&common.wake, PollFlags::IN)];
        if !deaf {
            set.extend(self.pressure.polled());
        }
        if !rustix::event::poll(&mut set, time.as_ref()).is_ok_and(|ready| ready > 0) {
            return;
        }
        let (woken, told) = set.split_at(1);
        let woken = !woken[0].revents().is_empty();
        self.short = told
            .iter()
            .map(|source| source.revents())
            // One that is gone answers with both.
            .any(|told| {
                told.intersects(PollFlags::PRI | PollFlags::IN) && !told.contains(PollFlags::ERR)
            });
        let told = told.iter().any(|source| !source.revents().is_empty());
        drop(set);
        if woken {
            let mut count = [0; 8];
            let _ = rustix::io::read(&common.wake, &mut count);
        }
        if told {
            self.pressure.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_comes_when_the_next_is_due_and_not_too_often() {
        let seconds = Duration::from_secs;
        for (longest, expected) in [
            (None, None),
            (Some(0), Some(180)),
            (Some(30), Some(150)),
            // Not at once again for who is due a moment later.
            (Some(79), Some(110)),
        ] {
            let longest = longest.map(seconds);
            let expected = expected.map(seconds);
            assert_eq!(next_look(seconds(100), seconds(80), longest), expected);
        }
    }

    #[test]
    fn only_what_is_sooner_than_its_alarm_wakes_the_keeper() {
        let at = Duration::from_secs;
        let mut state = State::default();
        assert!(!calls(&mut state, at(1), 4), "there is nothing to do");
        state.sweep = Some(at(60));
        assert!(calls(&mut state, at(1), 4));
        assert!(!calls(&mut state, at(1), 4), "it is on its way");
        assert_eq!(state.alarm, Some(at(60)));
        state.demand.note(at(2));
        assert!(calls(&mut state, at(2), 4), "a blank is wanted sooner");
        assert!(state.alarm.unwrap() < at(3));
    }
}
