//! The least that it costs to ask another thread, in ways that others use and in ours.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use rustix::thread::futex;

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

/// A word changed and a wake-up there and back, to each of so many threads in turns that
/// all sleep.
pub(super) fn through_futexes(threads: usize, times: usize) -> Result<Sample, BenchError> {
    let fail = BenchError::system("threads that sleep");
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
