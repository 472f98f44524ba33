//! Why a worker ended when nobody asked it to.

use std::fmt;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lazaret_guest::abort::Reason;
use lazaret_wall::cgroup::MemoryKill;
use lazaret_wall::launcher::{Event, ExitStatus, Usage};
use lazaret_wall::supervisor::ForbiddenCall;

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It tried a system call that is not on its list, which did not happen.
    Violation(Box<Violation>),
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
        /// Whether it was not its own limit: the machine, or a control group above its
        /// own, had none left.
        of_host: bool,
    },
    /// It no longer looked from outside as it did when its wall was verified.
    Changed(String),
    /// It used up its processor time.
    CpuTime,
    /// Somebody killed it, and not for memory: its control group counted no such
    /// kill.
    Killed,
    /// A signal ended it that it can't have wanted: a crash, or somebody's kill.
    /// SIGKILL where no control group tells whether it was for memory.
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
            Self::Violation(violation) => violation.fmt(f),
            Self::Aborted { reason, text } => write!(f, "it ended itself: {reason}: {text}"),
            Self::OutOfMemory { text, .. } => write!(f, "it ran out of memory: {text}"),
            Self::Changed(how) => write!(f, "it no longer looked as it was verified: {how}"),
            Self::CpuTime => f.write_str("it used up its processor time"),
            Self::Killed => {
                f.write_str("SIGKILL ended it, not for memory: its control group counted no kill")
            }
            Self::Signal(signal) => write!(f, "signal {signal} ended it"),
            Self::Exited(code) => {
                write!(f, "it exited with code {code}, which it was not asked to")
            }
            Self::LauncherEnded => f.write_str("its launcher ended, and it with it"),
            Self::Malformed(what) => write!(f, "malformed wire data ({what}); it was killed"),
            Self::Deadline(limit) => write!(f, "no answer within {limit:?}; it was killed"),
        }
    }
}

/// A forbidden call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Violation {
    /// Which it was, where the kernel could tell.
    pub call: Option<ForbiddenCall>,
    /// The name of the incident on record, with the evidence.
    pub incident: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.call {
            Some(call) => write!(f, "it tried {call}, which is not on its list")?,
            None => f.write_str("it tried a system call that is not on its list")?,
        }
        f.write_str(" (`lazaret audit` prints it), and was killed")?;
        match &self.incident {
            Some(incident) => write!(f, "; incident {incident}"),
            None => Ok(()),
        }
    }
}

impl Ending {
    /// The reason of a worker that was stopped by a fault outside of guest
    /// code.
    pub(crate) const CANARY: &'static str = "canary page touched";
    pub(crate) const UNEXPECTED_SIGNAL: &'static str = "unexpected signal";

    /// Whether it had no part in it: somebody killed it or its launcher, or there was no
    /// memory left on the host.
    pub fn was_not_its_own(&self) -> bool {
        match self {
            Self::Killed | Self::Signal(libc::SIGKILL) | Self::LauncherEnded => true,
            Self::OutOfMemory { of_host, .. } => *of_host,
            _ => false,
        }
    }

    /// Reads how a process ended together with what it last said.
    pub(crate) fn read(status: ExitStatus, kill: MemoryKill, (words, text): (u32, String)) -> Self {
        match status {
            ExitStatus::Signaled(libc::SIGKILL) => match kill {
                MemoryKill::Unknown => Self::Signal(libc::SIGKILL),
                MemoryKill::No => Self::Killed,
                MemoryKill::Yes { limit, at_limit } => Self::OutOfMemory {
                    of_host: !at_limit,
                    text: match at_limit {
                        true => format!(
                            "the kernel killed it at its control group's limit of {limit} bytes"
                        ),
                        false => "the kernel killed it as the machine, or a control group above its own, had no memory left; more of it, or fewer workers (`lazaret doctor` tells how many fit), try again".to_owned(),
                    },
                },
            },
            ExitStatus::Signaled(libc::SIGSYS) => Self::Violation(Box::default()),
            ExitStatus::Signaled(libc::SIGXCPU) => Self::CpuTime,
            ExitStatus::Signaled(libc::SIGTRAP) if words != 0 => match Reason::from_number(words) {
                Some(Reason::OutOfMemory) => Self::OutOfMemory {
                    text,
                    of_host: false,
                },
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
                Some(Reason::Canary) => Self::Aborted {
                    reason: Self::CANARY,
                    text,
                },
                Some(Reason::Signal) => Self::Aborted {
                    reason: Self::UNEXPECTED_SIGNAL,
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

/// What is known of a worker's end.
#[derive(Debug, Default)]
struct Known {
    end: Option<(Event, Ending)>,
    /// What the host is ending it for, if it is for more than it was waited for.
    cause: Option<Ending>,
}

/// Where the end of one worker is noted, by the launcher's reader thread.
#[derive(Debug, Default)]
pub(crate) struct Death {
    known: Mutex<Known>,
    /// Whether it has ended: looked at in every call.
    come: AtomicBool,
    noted: Condvar,
}

impl Death {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has ended so.
    pub(crate) fn note(&self, event: Event, ending: Ending) {
        self.lock().end = Some((event, ending));
        self.come.store(true, Release);
        self.noted.notify_all();
    }

    /// It is going to be ended for this.
    pub(crate) fn caused_by(&self, cause: Ending) {
        self.lock().cause = Some(cause);
    }

    pub(crate) fn has_come(&self) -> bool {
        self.come.load(Acquire)
    }

    /// Waits until the end is noted, for at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        drop(
            self.noted
                .wait_timeout_while(self.lock(), limit, |known| known.end.is_none()),
        );
    }

    /// What the worker used, once it has ended.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self.lock().end {
            Some((Event::Exited(_, usage, _), _)) => Some(usage),
            _ => None,
        }
    }

    /// Why it ended, once it has.
    pub(crate) fn ending(&self) -> Option<Ending> {
        let known = self.lock();
        let (event, ending) = known.end.as_ref()?;
        Some(match (&known.cause, event) {
            (Some(cause), Event::Exited(..)) => cause.clone(),
            _ => ending.clone(),
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
            MemoryKill::No,
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
            Ending::read(
                ExitStatus::Signaled(libc::SIGSYS),
                MemoryKill::No,
                (0, String::new())
            ),
            Ending::Violation(Box::default())
        );
        // Words without the breakpoint prove nothing.
        let ending = Ending::read(
            ExitStatus::Signaled(libc::SIGSEGV),
            MemoryKill::Unknown,
            (Reason::Panic as u32, "oh".into()),
        );
        assert_eq!(ending, Ending::Signal(libc::SIGSEGV));
    }

    #[test]
    fn a_kill_for_memory_is_known_where_it_was_counted() {
        let ending = |kill| {
            let killed = ExitStatus::Signaled(libc::SIGKILL);
            Ending::read(killed, kill, (0, String::new()))
        };
        assert_eq!(ending(MemoryKill::Unknown), Ending::Signal(libc::SIGKILL));
        assert_eq!(ending(MemoryKill::No), Ending::Killed);
        let words = |at_limit| {
            ending(MemoryKill::Yes {
                limit: 77,
                at_limit,
            })
            .to_string()
        };
        assert!(words(true).contains("limit of 77 bytes"));
        assert!(words(false).contains("the machine"));
    }
}
