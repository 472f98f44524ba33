//! Why a worker ended when nobody asked it to.

use std::fmt;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lazaret_guest::abort::Reason;
use lazaret_wall::launcher::{Event, ExitStatus, Usage};
use lazaret_wire::Shared;

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It made a system call that is not on its list (killed by the kernel).
    Violation,
    /// It ended itself for a reason that it stated: a panic, no memory, a
    /// stack overflow. Never a break-out.
    Aborted {
        /// Which, in words.
        reason: &'static str,
        /// What it said.
        text: String,
    },
    /// It ran out of memory.
    OutOfMemory {
        /// What is known.
        text: String,
    },
    /// It used up its processor time.
    CpuTime,
    /// A signal ended it that it can't have wanted: a crash, or somebody's kill.
    Signal(i32),
    /// It exited, which it is never asked to.
    Exited(i32),
    /// Its launcher ended, and it with it.
    LauncherEnded,
    /// It wrote something on the wire that makes no sense, and was killed.
    Malformed(String),
    /// It didn't answer in time, and was killed.
    Deadline(Duration),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation => f.write_str("it tried a system call that is not on its list (`lazaret audit` prints it) and was killed"),
            Self::Aborted { reason, text } => write!(f, "it ended itself: {reason}: {text}"),
            Self::OutOfMemory { text } => write!(f, "it ran out of memory: {text}"),
            Self::CpuTime => f.write_str("it used up its processor time"),
            Self::Signal(signal) => write!(f, "signal {signal} ended it"),
            Self::Exited(code) => write!(f, "it exited with code {code}, which it was not asked to"),
            Self::LauncherEnded => f.write_str("its launcher ended, and it with it"),
            Self::Malformed(what) => write!(f, "malformed wire data ({what}); it was killed"),
            Self::Deadline(limit) => write!(f, "no answer within {limit:?}; it was killed"),
        }
    }
}

impl Ending {
    /// Reads how a process ended together with what it last said.
    fn read(status: ExitStatus, (words, text): (u32, String)) -> Self {
        match status {
            ExitStatus::Signaled(libc::SIGSYS) => Self::Violation,
            ExitStatus::Signaled(libc::SIGXCPU) => Self::CpuTime,
            ExitStatus::Signaled(libc::SIGTRAP) if words != 0 => match Reason::from_number(words) {
                Some(Reason::OutOfMemory) => Self::OutOfMemory { text },
                Some(Reason::Panic) => Self::Aborted {
                    reason: "panic",
                    text,
                },
                Some(Reason::StackOverflow) => Self::Aborted {
                    reason: "native stack overflow",
                    text,
                },
                Some(Reason::Wire) => Self::Aborted {
                    reason: "unexpected request",
                    text,
                },
                Some(Reason::Signal) => Self::Aborted {
                    reason: "unexpected signal",
                    text,
                },
                _ => Self::Aborted {
                    reason: "unknown",
                    text,
                },
            },
            ExitStatus::Signaled(signal) => Self::Signal(signal),
            ExitStatus::Exited(code) => Self::Exited(code),
        }
    }
}

/// Where the end of one worker is noted, by the launcher's reader thread.
#[derive(Debug, Default)]
pub(crate) struct Death {
    event: Mutex<Option<Event>>,
    /// Whether there is one: looked at in every call.
    come: AtomicBool,
    noted: Condvar,
}

impl Death {
    fn lock(&self) -> MutexGuard<'_, Option<Event>> {
        self.event.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, event: Event) {
        *self.lock() = Some(event);
        self.come.store(true, Release);
        self.noted.notify_all();
    }

    pub(crate) fn has_come(&self) -> bool {
        self.come.load(Acquire)
    }

    /// Waits until the end is noted, for at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Event> {
        let (event, _) = self
            .noted
            .wait_timeout_while(self.lock(), limit, |event| event.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *event
    }

    /// What the worker used, once it has ended.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match *self.lock() {
            Some(Event::Exited(_, usage)) => Some(usage),
            _ => None,
        }
    }

    /// Why it ended.
    pub(crate) fn ending(&self, shared: &Shared) -> Option<Ending> {
        Some(match (*self.lock())? {
            Event::Exited(status, _) => Ending::read(status, shared.take_last_words()),
            Event::LauncherEnded => Ending::LauncherEnded,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_is_never_taken_for_a_break_out() {
        let ending = Ending::read(
            ExitStatus::Signaled(libc::SIGTRAP),
            (Reason::Panic as u32, "oh".into()),
        );
        assert!(
            matches!(
                ending,
                Ending::Aborted {
                    reason: "panic",
                    ..
                }
            ),
            "{ending:?}"
        );
        assert_eq!(
            Ending::read(ExitStatus::Signaled(libc::SIGSYS), (0, String::new())),
            Ending::Violation
        );
        // Words without the breakpoint prove nothing.
        let ending = Ending::read(
            ExitStatus::Signaled(libc::SIGSEGV),
            (Reason::Panic as u32, "oh".into()),
        );
        assert_eq!(ending, Ending::Signal(libc::SIGSEGV));
    }
}
