//! The least that a round trip between two processes can take here: two
//! processes that spin on one word of shared memory, and nothing else.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Sample};
use crate::table::Row;

/// Tells the other process to end; never a count.
const END: u32 = u32::MAX;
/// How often either side looks before it gives up: some seconds.
const PATIENCE: u32 = 200_000_000;

pub(crate) fn row(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants("query/floor") {
        return Ok(());
    }
    progress("a bare round trip between two processes");
    let sample = round_trips(options.times(20_000) as u32)?;
    rows.push(
        Row::new("query/floor", "bare round trip of two spinning processes", "us")
            .ours(sample.len(), sample.quantiles(MICROSECOND))
            .note("the physical limit of any call to another process: one word each way over the processors' caches, nothing copied, nothing run"),
    );
    Ok(())
}

/// One page that a child shares.
struct Words(NonNull<u8>);

impl Words {
    fn map() -> Result<Self, BenchError> {
        let flags = MapFlags::SHARED;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }
        .map_err(|errno| BenchError::system("mapping a shared page")(errno.into()))?;
        NonNull::new(at.cast()).map(Self).ok_or_else(|| {
            BenchError::system("mapping a shared page")(std::io::ErrorKind::Other.into())
        })
    }

    /// Two words, a cache line pair apart: the question's and the answer's.
    fn words(&self) -> (&AtomicU32, &AtomicU32) {
        // SAFETY: both lie in the mapped page, aligned, and it stays mapped as
        // long as self is borrowed.
        unsafe {
            (
                AtomicU32::from_ptr(self.0.as_ptr().cast()),
                AtomicU32::from_ptr(self.0.as_ptr().add(128).cast()),
            )
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this length; nobody borrows it.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), 4096) };
    }
}

/// Spins until `word` is not `old`.
fn await_change(word: &AtomicU32, old: u32) -> Option<u32> {
    for _ in 0..PATIENCE {
        match word.load(Ordering::Acquire) {
            value if value == old => std::hint::spin_loop(),
            value => return Some(value),
        }
    }
    None
}

/// What the child does: answers every question with the same number.
fn echo(question: &AtomicU32, answer: &AtomicU32) {
    let mut last = 0;
    while let Some(value) = await_change(question, last).filter(|value| *value != END) {
        answer.store(value, Ordering::Release);
        last = value;
    }
}

fn round_trips(count: u32) -> Result<Sample, BenchError> {
    let shared = Words::map()?;
    let (question, answer) = shared.words();
    // SAFETY: the child only loads and stores two words and ends, without
    // anything that could want a lock of a thread that it doesn't have.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(BenchError::system("fork")(std::io::Error::last_os_error()));
    }
    if child == 0 {
        echo(question, answer);
        // SAFETY: ends the process and runs nothing of the parent's.
        unsafe { libc::_exit(0) };
    }
    let mut sample = Sample::default();
    let mut silent = false;
    for number in 1..=count {
        let answered = sample.time(|| {
            question.store(number, Ordering::Release);
            await_change(answer, number - 1)
        });
        if answered != Some(number) {
            silent = true;
            break;
        }
    }
    question.store(END, Ordering::Release);
    let mut status = 0;
    // SAFETY: waits for the child that was just made; the pointer is to a local.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    match silent {
        false => Ok(sample),
        true => Err(BenchError::system("bare round trip")(
            std::io::ErrorKind::TimedOut.into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_question_is_answered_once() {
        assert_eq!(super::round_trips(50).unwrap().len(), 50);
    }
}
