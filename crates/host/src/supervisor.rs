//! The thread that looks after all workers of a host: it hears of forbidden
//! calls, looks at workers again now and then ([`rounds`]), and writes incidents
//! down, so that no caller waits for a disk.
//!
//! It starts with the first worker and sleeps in epoll(7); no call of a tenant
//! passes through it.

mod recorder;
mod rounds;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll};

use crate::live_worker::Register;
use crate::watch::Watch;
use rounds::Rounds;

pub(crate) use recorder::{IncidentObserver, Recorder};

/// How long a host that is dropped waits for its supervisor to write down what
/// it has taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// The mark of the event that wakes the thread.
const WAKE: u64 = 0;

/// The supervisor of a host.
#[derive(Debug)]
pub(crate) struct Supervisor {
    inner: Arc<Inner>,
    /// Nothing is sent but its end.
    thread: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
}

#[derive(Debug)]
struct Inner {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    watched: Mutex<BTreeMap<u64, Arc<Watch>>>,
    next: AtomicU64,
    ending: AtomicBool,
    recorder: Arc<Recorder>,
    /// Where others can read which workers live.
    register: Option<Register>,
}

impl Supervisor {
    /// One that records with `recorder`, which it makes of what wakes it.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(crate) fn new(
        register: Option<Register>,
        recorder: impl FnOnce(Arc<OwnedFd>) -> Recorder,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Arc::new(rustix::event::eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?);
        epoll::add(
            &epoll,
            &*wake,
            epoll::EventData::new_u64(WAKE),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            inner: Arc::new(Inner {
                epoll,
                recorder: Arc::new(recorder(wake.clone())),
                wake,
                watched: Mutex::default(),
                next: AtomicU64::new(WAKE + 1),
                ending: AtomicBool::new(false),
                register,
            }),
            thread: Mutex::default(),
        })
    }

    /// Where incidents go.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.inner.recorder
    }

    /// Looks after a worker from now on, whose listener is known if it has one,
    /// and what was verified of it.
    ///
    /// # Errors
    /// If the kernel refuses to watch, or there is no thread for it.
    pub(crate) fn watch(&self, watch: &Arc<Watch>) -> io::Result<()> {
        self.start()?;
        let number = self.inner.next.fetch_add(1, Relaxed);
        // Known before it is heard of.
        let first = {
            let mut watched = self.inner.watched();
            let first = watched.is_empty();
            watched.insert(number, watch.clone());
            first
        };
        if first {
            // It slept without a thought of rounds.
            recorder::wake(&self.inner.wake);
        }
        let Some(listener) = watch.listener() else {
            return Ok(());
        };
        let added = epoll::add(
            &self.inner.epoll,
            listener,
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN,
        );
        if added.is_err() {
            self.inner.watched().remove(&number);
        }
        Ok(added?)
    }

    /// Has its thread ready. Whatever is in the way is told to who needs it.
    pub(crate) fn prepare(&self) {
        if let Err(error) = self.start() {
            tracing::debug!(%error, "the supervisor of workers can't start yet");
        }
    }

    fn start(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let inner = self.inner.clone();
            let (ended, done) = sync_channel(1);
            let handle = std::thread::Builder::new()
                .name("lazaret-supervisor".into())
                .spawn(move || {
                    inner.run();
                    // Nobody waits who has lost patience.
                    let _ = ended.send(());
                })?;
            *thread = Some((handle, done));
        }
        Ok(())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.inner.ending.store(true, Release);
        recorder::wake(&self.inner.wake);
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((thread, done)) = thread.take() {
            // It may be held up by an observer, or by a log that nobody reads.
            match done.recv_timeout(PATIENCE) {
                Err(RecvTimeoutError::Timeout) => return,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    let _ = thread.join();
                }
            }
        }
        // What came when there was no thread, or after its last look.
        self.inner.recorder.write_all();
        let left: Vec<u64> = self.inner.watched().keys().copied().collect();
        for number in left {
            self.inner.forget(number);
        }
    }
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Watch>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        let mut rounds = Rounds::new();
        loop {
            events.clear();
            let time = rounds.time_left(self.watched().is_empty());
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                time.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // Nothing can be heard any more: forbidden calls stay
                    // where they are, and end with their call's time limit.
                    tracing::error!(%error, "the supervisor of workers can't wait any more");
                    return;
                }
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        let mut count = [0; 8];
                        let _ = rustix::io::read(&*self.wake, &mut count);
                    }
                    number => self.look_at(number, event.flags),
                }
            }
            self.recorder.write_all();
            rounds.go(self);
            if self.ending.load(Acquire) {
                return;
            }
        }
    }

    fn look_at(&self, number: u64, flags: epoll::EventFlags) {
        let Some(watch) = self.watched().get(&number).cloned() else {
            return;
        };
        let Some(listener) = watch.listener() else {
            return;
        };
        if flags.contains(epoll::EventFlags::IN) {
            match listener.receive() {
                Ok(notification) => watch.notified(listener, &notification),
                // It was killed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(%error, "a filter's listener can't be read: its worker is ended");
                    watch.kill();
                }
            }
        }
        // All who could tell have gone, or it can't be listened to.
        if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            let _ = epoll::delete(&self.epoll, listener.as_fd());
            self.forget(number);
        }
    }

    /// Looks after a worker no more, which has ended.
    fn forget(&self, number: u64) {
        if let Some(watch) = self.watched().remove(&number)
            && let (Some(register), Some(pid)) = (&self.register, watch.entered())
        {
            register.leave(pid);
        }
    }
}
