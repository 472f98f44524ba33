//! The least that it costs to ask another thread, in ways that others use and in ours.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use rustix::thread::{CpuSet, futex, sched_getaffinity, sched_setaffinity};

use crate::error::BenchError;
use crate::sample::Sample;

/// A byte there and back through a socket pair.
pub(super) fn through_sockets(times: usize) -> Result<Sample, BenchError> {
    let fail = BenchError::system("a socket pair");
    let mut sample = Sample::default();
    let (ours, theirs) = UnixDatagram::pair().map_err(&fail)?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while theirs.recv(&mut byte).is_ok_and(|read| read == 1) {
                if theirs.send(&byte).is_err() {
                    return;
                }
            }
        });
        let mut byte = [1];
        for _ in 0..times {
            let crossed = sample.time(|| {
                ours.send(&byte)?;
                ours.recv(&mut byte)
            });
            crossed.map_err(&fail)?;
        }
        // Nothing in it: the end.
        ours.send(&[]).map_err(&fail).map(drop)
    })?;
    Ok(sample)
}

/// Two words of one who sleeps until it is asked.
#[derive(Default)]
struct Sleeper {
    asked: AtomicU32,
    answered: AtomicU32,
}

/// Waits until a word isn't this any more.
fn sleep_on(word: &AtomicU32, value: u32) {
    while word.load(SeqCst) == value {
        // Interrupted, or changed meanwhile: looked at again.
        let _ = futex::wait(word, futex::Flags::PRIVATE, value, None);
    }
}

fn wake(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}

/// Where whoever sleeps is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// On another processor than whoever wakes it, which sleeps by then: with the wake-up of
    /// an idle processor in either direction.
    Apart,
    /// Wherever the kernel likes: as a rule one processor does for all.
    Anywhere,
}

/// This thread's processors while it stays on one of them; given back when this is dropped.
struct Stays(CpuSet);

impl Drop for Stays {
    fn drop(&mut self) {
        // It may have become fewer; then the kernel knows better.
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Has this thread stay on its first processor; the second. Nothing if it has no two.
fn stay() -> std::io::Result<Option<(Stays, CpuSet)>> {
    let all = sched_getaffinity(None)?;
    let mut numbers = (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number));
    let (Some(first), Some(second)) = (numbers.next(), numbers.next()) else {
        return Ok(None);
    };
    let [first, second] = [first, second].map(|number| {
        let mut one = CpuSet::new();
        one.set(number);
        one
    });
    sched_setaffinity(None, &first)?;
    Ok(Some((Stays(all), second)))
}

/// A word changed and a wake-up there and back, to each of so many threads in turns that
/// all sleep. Nothing if there is no such place.
pub(super) fn through_futexes(
    threads: usize,
    times: usize,
    place: Where,
) -> Result<Sample, BenchError> {
    let fail = BenchError::system("threads that sleep");
    let stays = match place {
        Where::Anywhere => None,
        Where::Apart => match stay().map_err(&fail)? {
            Some(stays) => Some(stays),
            None => return Ok(Sample::default()),
        },
    };
    let second = stays.as_ref().map(|(_, second)| *second);
    let sleepers: Vec<Sleeper> = (0..threads).map(|_| Sleeper::default()).collect();
    let (mut sample, over) = (Sample::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let end = |started: &[Sleeper]| {
            over.store(true, SeqCst);
            for sleeper in started {
                sleeper.asked.fetch_add(1, SeqCst);
                wake(&sleeper.asked);
            }
        };
        for (at, sleeper) in sleepers.iter().enumerate() {
            let builder = std::thread::Builder::new().stack_size(64 << 10);
            let over = &over;
            let started = builder.spawn_scoped(scope, move || {
                if let Some(second) = &second {
                    // One that can't stays where it was born: that is quicker, if anything.
                    let _ = sched_setaffinity(None, second);
                }
                let mut seen = 0;
                loop {
                    sleep_on(&sleeper.asked, seen);
                    seen = sleeper.asked.load(SeqCst);
                    if over.load(SeqCst) {
                        return;
                    }
                    sleeper.answered.store(seen, SeqCst);
                    wake(&sleeper.answered);
                }
            });
            if let Err(error) = started {
                end(&sleepers[..at]);
                return Err(fail(error));
            }
        }
        for sleeper in sleepers.iter().cycle().take(times) {
            let before = sleeper.answered.load(SeqCst);
            sample.time(|| {
                sleeper.asked.fetch_add(1, SeqCst);
                wake(&sleeper.asked);
                sleep_on(&sleeper.answered, before);
            });
        }
        end(&sleepers);
        Ok(())
    })?;
    Ok(sample)
}
