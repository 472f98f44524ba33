//! Where incidents go: to the log, the record on disk, and whoever asked to be
//! told.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::incident::{Incident, Running, Severity, Store};
use crate::metrics;
use crate::quarantine::Quarantine;
use crate::stack::Symbols;

/// How many incidents a host remembers, whether or not it keeps them on disk.
const REMEMBERED: usize = 64;

/// How many wait to be written down at most; each may hold tens of kilobytes.
const WAITING: usize = 1024;

/// And of what of each can be large, the requests, so many bytes are held at once
/// in either place: a request may have two megabytes.
const BYTES: usize = 64 << 20;

/// What of an incident can be large, in bytes.
fn weight(incident: &Incident) -> usize {
    let requests = incident.evidence.requests.iter();
    requests.map(|request| request.bytes.len()).sum()
}

/// Is told of every incident.
pub(crate) struct IncidentObserver(pub(crate) Box<dyn Fn(&Incident) + Send + Sync>);

impl std::fmt::Debug for IncidentObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IncidentObserver")
    }
}

/// Takes incidents and brings them where they belong.
pub(crate) struct Recorder {
    wake: Arc<OwnedFd>,
    store: Option<Store>,
    quarantine: Arc<Quarantine>,
    observers: Vec<IncidentObserver>,
    hooks: Vec<Running>,
    symbols: Symbols,
    queue: Mutex<Vec<Arc<Incident>>>,
    remembered: Mutex<VecDeque<Arc<Incident>>>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    pub(crate) fn new(
        wake: Arc<OwnedFd>,
        store: Option<Store>,
        quarantine: Arc<Quarantine>,
        observers: Vec<IncidentObserver>,
        hooks: Vec<Running>,
        symbols: Symbols,
    ) -> Self {
        Self {
            wake,
            store,
            quarantine,
            observers,
            hooks,
            symbols,
            queue: Mutex::default(),
            remembered: Mutex::default(),
        }
    }

    /// Takes an incident; it is written down soon.
    pub(crate) fn record(&self, incident: Arc<Incident>) {
        self.quarantine.count(&incident, self.store.as_ref());
        metrics::incident(&incident);
        {
            let mut remembered = lock(&self.remembered);
            remembered.push_back(incident.clone());
            // At least the last one.
            while remembered.len() > 1
                && (remembered.len() > REMEMBERED
                    || remembered.iter().map(|one| weight(one)).sum::<usize>() > BYTES)
            {
                remembered.pop_front();
            }
        }
        let mut queue = lock(&self.queue);
        let waits = queue.iter().map(|one| weight(one)).sum::<usize>();
        if queue.len() < WAITING && waits <= BYTES {
            queue.push(incident);
        } else {
            metrics::incident_lost();
            tracing::error!(
                id = incident.id,
                "an incident is not kept: they come faster than the disk takes them"
            );
        }
        drop(queue);
        wake(&self.wake);
    }

    /// Where the names on a worker's stack are looked up.
    pub(crate) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The last ones, oldest first.
    pub(crate) fn remembered(&self) -> Vec<Arc<Incident>> {
        lock(&self.remembered).iter().cloned().collect()
    }

    /// Brings all that were taken where they belong.
    pub(super) fn write_all(&self) {
        for incident in std::mem::take(&mut *lock(&self.queue)) {
            self.write(&incident);
        }
    }

    fn write(&self, incident: &Incident) {
        if let Some(store) = &self.store
            && let Err(error) = store.write(incident)
        {
            metrics::incident_lost();
            // The log is then the only record.
            let whole = serde_json::to_string(incident).unwrap_or_default();
            tracing::error!(id = incident.id, %error, incident = whole, "an incident could not be kept");
        }
        for IncidentObserver(observer) in &self.observers {
            observer(incident);
        }
        for hook in &self.hooks {
            hook.tell(incident);
        }
        // Last, as whoever reads the log may be slow.
        log(incident);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log(incident: &Incident) {
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                id = incident.id,
                severity = %incident.severity,
                tenant = incident.subject.tenant,
                layer = incident.layer,
                "{}",
                incident.explanation
            )
        };
    }
    match incident.severity {
        Severity::Low => event!(info),
        Severity::Medium => event!(warn),
        Severity::High | Severity::Critical => event!(error),
    }
}

/// Wakes the supervisor's thread. It fails only if that is awake anyway.
pub(super) fn wake(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}
