//! One worker, from the host's side: ask, wait, kill.

mod error;
mod newborn;
mod start;
mod woken;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lazaret_wall::receipt::{Pages, Receipt};
use lazaret_wire::codec::Message;
use lazaret_wire::message::{Call, Entry, FromWorker, ToWorker};
use lazaret_wire::{Rung, Shared, Spin, bell, layout};

use crate::ending::{Death, Ending};
use crate::incident::{Incident, Noted};
use crate::page_copy::Copier;
use crate::watch::Watch;

pub use error::WorkerError;
pub(crate) use newborn::{Birth, Newborn};
pub(crate) use start::Start;

/// How long a process that is ending may take until that is reported.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// A time limit over several waits. Its clock starts when it is first looked at.
#[derive(Debug)]
pub(crate) struct Deadline {
    limit: Duration,
    begin: Option<Instant>,
}

impl Deadline {
    /// At this time after the clock's start.
    pub(crate) fn after(limit: Duration) -> Self {
        Self { limit, begin: None }
    }

    /// Whether nothing is left. A clock that doesn't run yet isn't started.
    fn is_over(&self) -> bool {
        let gone = self.begin.map_or(Duration::ZERO, |begin| begin.elapsed());
        gone >= self.limit
    }

    /// What is left, from now on if the clock doesn't run yet.
    pub(crate) fn left(&mut self) -> Duration {
        match self.begin {
            None => {
                self.begin = Some(Instant::now());
                self.limit
            }
            Some(begin) => self.limit.saturating_sub(begin.elapsed()),
        }
    }
}

/// A locked, verified worker.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    death: Arc<Death>,
    watch: Arc<Watch>,
    pid: i32,
    requests: u32,
    answers: u32,
    buffer: Vec<u8>,
    receipt: Receipt,
    spin: Spin,
    /// Whether it slept when it was last asked.
    woken: bool,
    /// Whether it slept the time before, too.
    cold: bool,
    /// Whether it was in vain to spin for it when it was last woken.
    vain: bool,
    /// Whether another request is ready behind this one.
    more: bool,
}

/// What a worker is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// To do its work.
    Serve,
    /// To do again what another did before an incident: what happens then is
    /// for who asked, and not for the record.
    Replay,
}

impl Worker {
    /// Puts on its receipt how its pages are followed.
    pub(crate) fn note_pages(&mut self, tracker: &'static str, copier: Copier) {
        self.receipt.pages = Some(Pages {
            tracker,
            copied_by: copier.name(),
        });
    }

    /// What was verified about it.
    pub(crate) fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// What it ended for, if that is an incident.
    pub(crate) fn incident(&self) -> Option<Arc<Incident>> {
        self.watch.incident()
    }

    /// Its number on the host.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// What becomes known of its end.
    pub(crate) fn death(&self) -> Weak<Death> {
        Arc::downgrade(&self.death)
    }

    /// Its shared memory.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether it still runs, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        !self.death.has_come()
    }

    /// Spin before sleeping while waiting for this worker.
    pub(crate) fn set_spin(&mut self, spin: Spin) {
        self.spin = spin;
    }

    /// Says whether another request is ready behind the next one: then it is worth
    /// spinning for, on either side.
    pub(crate) fn expect_more(&mut self, more: bool) {
        if self.more != more {
            self.more = more;
            self.shared.u32(layout::MORE).store(more.into(), Relaxed);
            self.vain = false;
            self.spin.forget();
        }
    }

    /// Puts a request on the wire and rings.
    pub(crate) fn send(&mut self, request: &ToWorker) -> Result<(), WorkerError> {
        request.to_bytes(&mut self.buffer)?;
        self.put(match request {
            ToWorker::HostReturn(_) | ToWorker::Grown(_) => Noted::Answer,
            _ => Noted::Other,
        })
    }

    /// The same for a call that the caller keeps; `version` is of the memory
    /// that it runs on.
    pub(crate) fn send_call(&mut self, call: &Call, version: u64) -> Result<(), WorkerError> {
        ToWorker::call_to_bytes(call, &mut self.buffer)?;
        self.put(match call.entry {
            Entry::Update | Entry::Query => Noted::Call(version),
            _ => Noted::Other,
        })
    }

    fn put(&mut self, noted: Noted) -> Result<(), WorkerError> {
        let Self {
            shared,
            watch,
            buffer,
            requests,
            woken,
            cold,
            ..
        } = self;
        let slept = put(shared, watch, buffer, noted, requests)?;
        *cold = *woken && slept;
        *woken = slept;
        if *woken {
            crate::metrics::worker_woken();
        }
        Ok(())
    }

    /// Waits for the next answer as [`Worker::wait`] does, until a time that
    /// several waits have in common. Its clock starts only if the answer
    /// doesn't come at once.
    pub(crate) fn wait_until(&mut self, deadline: &mut Deadline) -> Result<FromWorker, Ending> {
        // A worker that is always quick to make another host call would else
        // never meet its deadline: who answers one starts the clock.
        if deadline.is_over() {
            return Err(self.ended_for(Ending::Deadline(deadline.limit)));
        }
        let rung = match self.woken {
            true => self.spin_for_woken(),
            false => {
                let bell = self.shared.u32(layout::ANSWER_BELL);
                bell::spin(bell, self.answers, self.requests, &mut self.spin)
            }
        };
        match rung {
            Some(rung) => self.take(rung, deadline.limit),
            None => self.sleep(deadline.left()),
        }
    }

    /// Spins for this worker, which slept. It may need this very processor to wake up, as
    /// others may: whether that pays was learned from all that were woken.
    fn spin_for_woken(&mut self) -> Option<Rung> {
        // But if both always sleep, neither can ever spin for the other: after one long
        // pause among short ones, or where another request is ready, the next is to find
        // the worker awake.
        let awake = !self.cold || self.more && !self.vain || Spin::tries(self.requests);
        if self.spin == Spin::NONE || !awake && !woken::spinning_pays() {
            return None;
        }
        let bell = self.shared.u32(layout::ANSWER_BELL);
        let rung = bell::spin_for_woken(bell, self.answers, &self.spin);
        self.vain = rung.is_none();
        if !awake {
            woken::learn(rung.is_some());
        }
        rung
    }

    /// Waits for the next answer, copies it out once and decodes the copy.
    /// Whatever is wrong with it, the worker is dead afterwards.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<FromWorker, Ending> {
        self.wait_until(&mut Deadline::after(limit))
    }

    fn sleep(&mut self, limit: Duration) -> Result<FromWorker, Ending> {
        let rung = self.sleep_for(limit);
        self.take(rung, limit)
    }

    fn sleep_for(&self, limit: Duration) -> Rung {
        bell::wait(
            self.shared.u32(layout::ANSWER_BELL),
            self.shared.u32(layout::HOST_SLEEPS),
            self.answers,
            &mut { Spin::NONE },
            Some(limit),
            &|| self.death.has_come(),
        )
    }

    /// The answer that was rung for.
    fn take(&mut self, rung: Rung, limit: Duration) -> Result<FromWorker, Ending> {
        match rung {
            Rung::Next => self.answers = self.answers.wrapping_add(1),
            Rung::Timeout => return Err(self.ended_for(Ending::Deadline(limit))),
            Rung::Stopped => {
                return Err(self.death.ending().unwrap_or(Ending::LauncherEnded));
            }
            Rung::Wild(value) => {
                return Err(self.malformed(&format!(
                    "answer bell {value}, expected {}",
                    self.answers.wrapping_add(1)
                )));
            }
        }
        if let Err(error) = self.shared.take_answer(&mut self.buffer) {
            return Err(self.malformed(&error.to_string()));
        }
        match FromWorker::from_bytes(&self.buffer) {
            Ok(message) => Ok(message),
            Err(error) => Err(self.malformed(&error.to_string())),
        }
    }

    /// Kills the worker for what it wrote.
    pub(crate) fn malformed(&self, what: &str) -> Ending {
        self.ended_for(Ending::Malformed(what.to_owned()))
    }

    /// Kills the worker for this, which goes on record.
    fn ended_for(&self, ending: Ending) -> Ending {
        self.watch.report(&ending);
        self.kill();
        ending
    }

    /// Why it ended, if that is what this error in reaching its memory comes of.
    pub(crate) fn has_ended_if(&self, error: &std::io::Error) -> Option<Ending> {
        // Its memory goes before its end is known.
        if error.raw_os_error() == Some(libc::ESRCH) {
            self.death.wait(LAST_STEPS);
        }
        self.death.ending()
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        self.watch.kill();
    }

    /// Ends it and waits until it is gone; what it used, if the kernel said.
    pub(crate) fn end(&self) -> Option<lazaret_wall::launcher::Usage> {
        self.kill();
        self.death.wait(LAST_STEPS);
        self.death.usage()
    }
}

/// Puts a request on the wire and rings; `requests` counts them.
fn put(
    shared: &Shared,
    watch: &Watch,
    request: &[u8],
    noted: Noted,
    requests: &mut u32,
) -> Result<bool, WorkerError> {
    shared.put_request(request)?;
    *requests = requests.wrapping_add(1);
    watch.note_request(*requests, noted, request);
    Ok(bell::ring(
        shared.u32(layout::REQUEST_BELL),
        shared.u32(layout::WORKER_SLEEPS),
        *requests,
    ))
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
