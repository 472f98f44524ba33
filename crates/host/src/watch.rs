//! What the host knows of one worker besides its calls: whose it is, what it
//! was sent last, how it ended, and whether that is an incident.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lazaret_wall::Posture;
use lazaret_wall::launcher::{Event, ExitStatus};
use lazaret_wall::receipt::Receipt;
use lazaret_wall::supervisor::{ForbiddenCall, Listener, Notification, Stopped};
use lazaret_wire::Shared;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use crate::compile::Artefact;
use crate::ending::{Death, Ending, Violation};
use crate::incident::{Evidence, Incident, Noted, Recent, Stamp, Subject, What};
use crate::live_worker::{LiveWorker, Register};
use crate::program::Lessons;
use crate::supervisor::Recorder;
use crate::worker::Duty;
use lazaret_wall::process::is_exiting;

/// What was verified when it was locked.
#[derive(Debug)]
struct Verified {
    receipt: Receipt,
    posture: Posture,
    may_open: bool,
}

/// What a worker is for.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) subject: Subject,
    pub(crate) duty: Duty,
    /// What is learned from it, if anything: then the host decides on its calls.
    pub(crate) lessons: Option<Arc<Lessons>>,
    /// The code that it runs, if it is a module's.
    pub(crate) code: Option<Arc<Artefact>>,
    /// Its limit of processor time.
    pub(crate) cpu_seconds: Option<u64>,
}

/// One worker, as it is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Nothing as long as it is blank.
    about: OnceLock<About>,
    recorder: Arc<Recorder>,
    shared: Arc<Shared>,
    death: Arc<Death>,
    recent: Mutex<Recent>,
    verified: OnceLock<Verified>,
    entered: OnceLock<i32>,
    process: OnceLock<(i32, OwnedFd)>,
    listener: OnceLock<Listener>,
    /// Its end is the host's own wish.
    asked: AtomicBool,
    /// There is an incident of it, or will be: one is enough.
    told: AtomicBool,
    incident: OnceLock<Arc<Incident>>,
}

impl Watch {
    pub(crate) fn new(recorder: Arc<Recorder>, shared: Arc<Shared>, death: Arc<Death>) -> Self {
        Self {
            about: OnceLock::new(),
            recorder,
            shared,
            death,
            recent: Mutex::default(),
            verified: OnceLock::new(),
            entered: OnceLock::new(),
            process: OnceLock::new(),
            listener: OnceLock::new(),
            asked: AtomicBool::new(false),
            told: AtomicBool::new(false),
            incident: OnceLock::new(),
        }
    }

    /// What it is for, from now on.
    pub(crate) fn set_about(&self, about: About) {
        let _ = self.about.set(about);
    }

    fn subject(&self) -> Subject {
        self.about.get().map_or_else(
            || Subject {
                tenant: None,
                worker: "blank".to_owned(),
                module: None,
            },
            |about| about.subject.clone(),
        )
    }

    /// Which process it is.
    pub(crate) fn set_process(&self, pid: i32, pidfd: OwnedFd) {
        let _ = self.process.set((pid, pidfd));
    }

    /// What was verified of its wall, and what must stay so. Whether it may open
    /// files meanwhile.
    pub(crate) fn set_receipt(&self, receipt: Receipt, posture: Posture, may_open: bool) {
        let _ = self.verified.set(Verified {
            receipt,
            posture,
            may_open,
        });
    }

    /// Whether its process is there no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.death.has_come()
    }

    /// Tells others of it, unless it has ended.
    pub(crate) fn enter(&self, register: &Register) {
        let Some(live) = self.live() else {
            return;
        };
        let _ = self.entered.set(live.pid);
        if let Err(error) = register.enter(&live) {
            tracing::debug!(pid = live.pid, %error, "a worker is not among those that live");
        }
        if self.has_ended() {
            register.leave(live.pid);
        }
    }

    /// Under which number others know of it, if they do.
    pub(crate) fn entered(&self) -> Option<i32> {
        self.entered.get().copied()
    }

    /// What others may know of it while it lives.
    fn live(&self) -> Option<LiveWorker> {
        let (Some(verified), Some((pid, _))) = (self.verified.get(), self.process.get()) else {
            return None;
        };
        LiveWorker::new(
            *pid,
            self.subject(),
            &verified.receipt,
            verified.posture.clone(),
            verified.may_open,
        )
    }

    /// Looks at it again: one that isn't as it was verified is ended, and that
    /// is on record.
    pub(crate) fn check_posture(&self) {
        let (Some(verified), Some((pid, pidfd))) = (self.verified.get(), self.process.get()) else {
            return;
        };
        let now = match Posture::look(*pid) {
            Ok(now) => now,
            Err(why) => return tracing::debug!(pid, why, "a worker can't be looked at"),
        };
        let differences = verified.posture.differences(&now, verified.may_open);
        if differences.is_empty() {
            return;
        }
        // Of one that is just ending nothing is left to see, and once it has
        // ended the number may be somebody else's.
        let ended = rustix::event::poll(
            &mut [PollFd::new(pidfd, PollFlags::IN)],
            Some(&Timespec::default()),
        );
        if self.asked.load(Acquire) || is_exiting(*pid) || !matches!(ended, Ok(0)) {
            return;
        }
        if let Some(stamp) = self.first() {
            let what = What::PostureChanged {
                differences: differences.clone(),
            };
            let evidence = Evidence {
                mappings: now.mappings,
                ..Evidence::default()
            };
            self.record(stamp, what, evidence);
        }
        self.death
            .caused_by(Ending::Changed(differences.join("; ")));
        self.asked.store(true, Release);
        self.signal();
    }

    /// Where its filter tells of forbidden calls.
    pub(crate) fn set_listener(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.get()
    }

    /// What it ended for, if that is an incident.
    pub(crate) fn incident(&self) -> Option<Arc<Incident>> {
        self.incident.get().cloned()
    }

    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        self.process.get().map(|(_, pidfd)| pidfd)
    }

    /// Notes a request that it is about to be sent.
    pub(crate) fn note_request(&self, number: u32, noted: Noted, request: &[u8]) {
        self.recent().note(number, noted, request);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, as the host wants it.
    pub(crate) fn kill(&self) {
        self.asked.store(true, Release);
        self.signal();
    }

    fn signal(&self) {
        if let Some(pidfd) = self.pidfd() {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Its process has ended, or its launcher: says so to whoever waits, and
    /// puts on record what nobody asked for.
    pub(crate) fn ended(&self, event: Event) {
        let mut ending = match event {
            // The kernel ends who is over its processor time by SIGXCPU, which
            // pid 1 of a namespace ignores, and a second later by SIGKILL.
            Event::Exited(ExitStatus::Signaled(libc::SIGKILL), usage, _)
                if self
                    .about
                    .get()
                    .and_then(|about| about.cpu_seconds)
                    .is_some_and(|limit| {
                        usage.user_us.saturating_add(usage.system_us) / 1_000_000 >= limit
                    }) =>
            {
                Ending::CpuTime
            }
            Event::Exited(status, _, kill) => {
                Ending::read(status, kill, self.shared.take_last_words())
            }
            Event::LauncherEnded => {
                // Without a PID namespace only the kernel's word ties them together.
                self.signal();
                Ending::LauncherEnded
            }
        };
        if !self.asked.load(Acquire)
            && let Some(incident) = self.report(&ending)
            && let Ending::Violation(violation) = &mut ending
        {
            violation.incident = Some(incident);
        }
        self.death.note(event, ending);
    }

    /// Puts on record that the worker is ended for this, if that is an
    /// incident and the first of it. Returns its name.
    pub(crate) fn report(&self, ending: &Ending) -> Option<String> {
        let what = what(ending)?;
        let stamp = self.first()?;
        let id = stamp.id.clone();
        self.record(stamp, what, Evidence::default());
        Some(id)
    }

    /// A call has stopped it that its filter doesn't list. That it may go on is
    /// for those only that are learned from.
    pub(crate) fn notified(&self, listener: &Listener, notification: &Notification) {
        let lessons = self.about.get().and_then(|about| about.lessons.as_ref());
        if let (Some(lessons), Some((pid, _))) = (lessons, self.process.get())
            && lessons.note(*pid, &notification.call)
        {
            match listener.go_on(notification) {
                Ok(()) => return,
                // It was killed meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                Err(error) => {
                    tracing::error!(%error, "a worker can't go on that is learned from");
                    return self.kill();
                }
            }
        }
        self.forbidden(notification.call.clone());
    }

    /// A forbidden call has stopped it: puts it on record with all that can be
    /// seen, and ends it.
    pub(crate) fn forbidden(&self, call: ForbiddenCall) {
        let stamp = self.first();
        let violation = Violation {
            call: Some(call.clone()),
            incident: stamp.as_ref().map(|stamp| stamp.id.clone()),
        };
        let Some((pid, _)) = self.process.get() else {
            return;
        };
        Stopped::look_and_kill(*pid, |seen| {
            // All of it is on record before anybody hears of its end.
            if let Some(stamp) = stamp {
                let evidence = Evidence {
                    stack: self.recorder.symbols().frames(
                        &seen,
                        self.about.get().and_then(|about| about.code.as_deref()),
                    ),
                    system_call: seen.system_call,
                    registers: seen.registers,
                    mappings: seen.mappings,
                    remarks: seen.remarks,
                    ..Evidence::default()
                };
                self.record(stamp, What::ForbiddenCall { call: Some(call) }, evidence);
            }
            self.death.caused_by(Ending::Violation(Box::new(violation)));
            self.asked.store(true, Release);
            self.signal();
        });
    }

    /// The stamp of its incident, unless there is one already.
    fn first(&self) -> Option<Stamp> {
        (!self.told.swap(true, AcqRel)).then(Stamp::now)
    }

    fn record(&self, stamp: Stamp, what: What, evidence: Evidence) {
        let (requests, ran_on) = {
            let recent = self.recent();
            (recent.list(), recent.ran_on())
        };
        let evidence = Evidence {
            pid: self.process.get().map_or(0, |(pid, _)| *pid),
            requests,
            ran_on,
            receipt: self
                .verified
                .get()
                .and_then(|verified| serde_json::to_value(&verified.receipt).ok()),
            ..evidence
        };
        let subject = self.subject();
        let incident = Arc::new(Incident::new(stamp, subject, what, evidence));
        let _ = self.incident.set(incident.clone());
        if self
            .about
            .get()
            .is_none_or(|about| about.duty == Duty::Serve)
        {
            self.recorder.record(incident);
        }
    }
}

/// What an ending that nobody asked for is, on record. That a launcher ended is
/// no worker's doing.
fn what(ending: &Ending) -> Option<What> {
    let limit = |limit: &str, detail: String| What::Limit {
        limit: limit.to_owned(),
        detail,
    };
    Some(match ending {
        Ending::Violation(violation) => What::ForbiddenCall {
            call: violation.call.clone(),
        },
        Ending::Malformed(problem) => What::MalformedWire {
            problem: problem.clone(),
        },
        Ending::Aborted {
            reason: Ending::CANARY,
            text,
        } => What::CanaryTouched { said: text.clone() },
        Ending::Aborted {
            reason: Ending::UNEXPECTED_SIGNAL,
            text,
        } => What::Crash {
            signal: libc::SIGTRAP,
            said: Some(text.clone()),
        },
        Ending::Aborted { reason, text } => What::Aborted {
            reason: (*reason).to_owned(),
            said: text.clone(),
        },
        Ending::OutOfMemory { text, .. } => limit("memory", text.clone()),
        Ending::Changed(how) => What::PostureChanged {
            differences: vec![how.clone()],
        },
        Ending::CpuTime => limit("processor time", "RLIMIT_CPU".to_owned()),
        Ending::Deadline(time) => limit("time", format!("no answer within {time:?}")),
        Ending::Killed => What::Killed {
            signal: libc::SIGKILL,
        },
        Ending::Signal(signal @ (libc::SIGKILL | libc::SIGTERM)) => {
            What::Killed { signal: *signal }
        }
        Ending::Signal(signal) => What::Crash {
            signal: *signal,
            said: None,
        },
        Ending::Exited(code) => What::UnaskedExit { code: *code },
        Ending::LauncherEnded => return None,
    })
}
