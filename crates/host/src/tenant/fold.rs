//! Compaction beside the calls: a thread writes the logs into the base while
//! updates and queries go on.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use lazaret_image::FoldJob;
use lazaret_wire::layout::MAX_MAPPED_RUNS;

use super::Shared;
use super::lane::Lane;
use crate::host::Inner;

/// Commits between two looks at whether folding pays.
const LOOK_EVERY: u32 = 64;

/// What a tenant's lane remembers of its compaction.
#[derive(Debug, Default)]
pub(super) struct Folding {
    commits: u32,
    /// Ends the thread that is at it, when the tenant is let go.
    stop: Arc<AtomicBool>,
    running: bool,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Folding {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // The job holds the lock on the directory, and whoever lets a tenant go
        // may open it again at once. It may be the thread itself that does.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that compacts memory panicked");
        }
    }
}

impl Lane {
    /// Has the image folded if that pays, by a thread of its own.
    pub(super) fn consider_fold(&mut self, host: &Inner, tenant: &Arc<Shared>) {
        self.folding.commits += 1;
        if self.folding.running || self.folding.commits < LOOK_EVERY {
            return;
        }
        self.folding.commits = 0;
        if !self.image.should_fold(MAX_MAPPED_RUNS) {
            return;
        }
        let job = match self.image.begin_fold() {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(tenant = tenant.name, %error, "the memory could not be compacted");
                return;
            }
        };
        let (stop, weak) = (self.folding.stop.clone(), Arc::downgrade(tenant));
        let rate = host.options.compaction;
        let thread = std::thread::Builder::new().name("lazaret-fold".to_owned());
        match thread.spawn(move || fold(job, rate, &stop, &weak)) {
            Ok(thread) => {
                self.folding.running = true;
                self.folding.thread = Some(thread);
            }
            // The job is dropped, and what it began with it.
            Err(error) => {
                tracing::warn!(tenant = tenant.name, %error, "no thread to compact memory with");
            }
        }
    }
}

fn fold(mut job: FoldJob, rate: Option<NonZeroU64>, stop: &AtomicBool, tenant: &Weak<Shared>) {
    let outcome = job.run(rate.map(lazaret_image::BytesPerSecond), stop);
    // Nobody needs it any more; dropping the job removes what it wrote.
    let Some(tenant) = tenant.upgrade() else {
        return;
    };
    let mut lane = tenant.lane();
    lane.folding.running = false;
    if !lane.removed && !stop.load(Relaxed) {
        match outcome.and_then(|()| lane.image.finish_fold(&mut job)) {
            Ok(folded) => tracing::debug!(tenant = tenant.name, ?folded, "memory was compacted"),
            Err(error) => {
                tracing::warn!(tenant = tenant.name, %error, "the memory could not be compacted");
            }
        }
    }
    drop(lane);
    // Removes the old files, which takes a while: not in the lane. And before
    // the tenant, which may end here.
    drop(job);
    // Snapshots may be the only ones now to hold the old files.
    if tenant.disk.quota().is_some() {
        let mut lane = tenant.lane();
        tenant.disk.apply(&mut lane.image);
    }
    drop(tenant);
}
