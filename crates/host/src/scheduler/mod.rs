//! Calls that wait for their turn, and the few threads that make them.
//!
//! A call takes a thread for as long as it runs, as it is answered where it was asked.
//! Thousands of tenants would be thousands of threads, most of which wait for each other's
//! processor. So a call can be submitted instead: it waits in its tenant's [`queue`], and
//! tenants with calls take turns, in the order in which they came, on half as many threads
//! as there are processors: a short call keeps two busy.
//!
//! In a turn several calls of a tenant are made, one after the other: its worker, woken for
//! the first, is still awake for the others. A turn ends after so many calls or so long, so
//! that a tenant with many calls doesn't delay one with few.
//!
//! A call that takes long doesn't hold up the others either: after ten milliseconds its
//! thread counts as waiting, as most of its like are (for a worker that computes, a disk,
//! or a worker's place), and another one takes turns in its stead. For that one more thread
//! looks on, while there is anything to look at.

mod queue;
mod turns;

use std::num::NonZeroUsize;
use std::sync::Arc;

pub(crate) use queue::CallQueue;
use queue::Queued;
pub use queue::{QueueFull, QueuedCall};
use turns::{Turn, Turns};

use crate::tenant::{CallError, Reply, Tenant};

/// How submitted calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchedulerOptions {
    /// How many threads make calls at once, beside those whose calls take long.
    pub running: NonZeroUsize,
    /// How many threads may make calls in all, so that those that take long don't hold up
    /// the others. One more looks on.
    pub threads: NonZeroUsize,
    /// How many calls of one tenant may wait.
    pub queue: NonZeroUsize,
}

impl Default for SchedulerOptions {
    /// Half as many as there are processors, as a short call keeps two busy: its worker's,
    /// and that of whoever waits for it. 256 in all; 1,024 calls of a tenant wait.
    fn default() -> Self {
        let size = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            running: size(std::thread::available_parallelism().map_or(1, |most| most.get() / 2)),
            threads: size(256),
            queue: size(1024),
        }
    }
}

/// What the scheduler is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SchedulerState {
    /// Threads that make calls, or could.
    pub threads: usize,
    /// Those of them that make a call.
    pub running: usize,
    /// Those of them whose call takes long.
    pub long: usize,
    /// Turns that wait: at most one for each tenant's updates, and a few for its queries.
    pub waiting: usize,
}

/// A host's scheduler.
#[derive(Debug)]
pub(crate) struct Scheduler {
    turns: Arc<Turns>,
    queue: usize,
}

impl Scheduler {
    pub(crate) fn new(options: SchedulerOptions) -> Self {
        Self {
            turns: Arc::new(Turns::new(options)),
            queue: options.queue.get(),
        }
    }

    /// Has a call made when its turn comes.
    ///
    /// # Errors
    /// [`CallError::QueueFull`], and [`CallError::Thread`] if there is no thread for it and
    /// none can be had.
    pub(crate) fn submit(
        &self,
        tenant: &Tenant,
        call: QueuedCall,
        answered: impl FnOnce(Result<Reply, CallError>) + Send + 'static,
    ) -> Result<(), CallError> {
        let kind = call.kind;
        let queued = Queued {
            call,
            answered: Box::new(answered),
        };
        let (queue, queries) = (tenant.queue(), tenant.most_queries());
        if !queue.push(queued, self.queue, queries)? {
            return Ok(());
        }
        let turn = Turn {
            tenant: tenant.clone(),
            kind,
        };
        match self.turns.wait_for(turn) {
            Ok(()) => Ok(()),
            Err((turn, error)) => {
                // It is the first, as there is no thread that takes any.
                let own = queue.pop(kind);
                self.refuse(turn);
                drop(own);
                Err(CallError::Thread(error).or_shortage())
            }
        }
    }

    /// No thread could be had for a turn: those who came behind its call meanwhile wait for
    /// one too, or are told.
    fn refuse(&self, mut turn: Turn) {
        while turn.tenant.queue().end_turn(turn.kind, false) {
            let error = match self.turns.wait_for(turn) {
                Ok(()) => return,
                Err((back, error)) => {
                    turn = back;
                    error
                }
            };
            if let Some((queued, _)) = turn.tenant.queue().pop(turn.kind) {
                let error = CallError::Thread(error).or_shortage();
                turns::tell(queued.answered, Err(error));
            }
        }
    }

    /// What it is at.
    pub(crate) fn state(&self) -> SchedulerState {
        self.turns.state()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.turns.end();
    }
}
