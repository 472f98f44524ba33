//! The tenants that have workers, and how those leave.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::counts::Counts;
use super::eviction::{Idle, leaving};
use crate::metrics;
use crate::tenant::Shared;

/// The time by the kernel's last tick: for what happens with every call.
pub(crate) fn coarse_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}

/// Why workers leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nobody called for a while.
    Idle,
    /// There are as many as there may be.
    Count,
    /// Memory is short.
    Pressure,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Count => "count",
            Self::Pressure => "pressure",
        }
    }
}

/// The tenants that have workers. They stay open as long as that is so, whether
/// anybody has a handle of them or not.
#[derive(Debug, Default)]
pub(super) struct Residents(Mutex<Vec<Arc<Shared>>>);

/// What came of a look at all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Swept {
    /// Workers that have left.
    pub(super) left: usize,
    /// How long the one that waited longest has waited, of those that stay.
    pub(super) longest: Option<Duration>,
    /// Whether any tenant still has a worker, be it a busy one.
    pub(super) any: bool,
}

impl Residents {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tenant has a worker, and had none.
    pub(super) fn enter(&self, tenant: Arc<Shared>) {
        self.lock().push(tenant);
    }

    /// A tenant is removed.
    pub(super) fn forget(&self, tenant: &Shared) {
        let mut gone = Vec::new();
        self.lock().retain(|resident| {
            let stays = !std::ptr::eq(Arc::as_ptr(resident), tenant);
            if !stays {
                gone.push(resident.clone());
            }
            stays
        });
    }

    /// Has workers leave: all that have waited for `timeout`, and of the others as
    /// many as `needed` says, given the number that are idle.
    pub(super) fn sweep(
        &self,
        timeout: Option<Duration>,
        reason: Reason,
        needed: impl FnOnce(usize) -> usize,
        counts: &Counts,
    ) -> Swept {
        let now = coarse_now();
        let (mut whose, mut idle, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        self.lock().retain(|tenant| {
            let before = idle.len();
            tenant.idle_workers(|pid, since, cost| {
                whose.push((tenant.clone(), pid, since));
                idle.push(Idle {
                    waited: now.saturating_sub(since),
                    priority: tenant.priority(),
                    cost,
                });
            });
            let stays = idle.len() > before || !tenant.has_left();
            if !stays {
                // If this is the last of it, it is closed, which may take a while.
                empty.push(tenant.clone());
            }
            stays
        });
        drop(empty);
        let needed = needed(idle.len());
        let chosen = leaving(&idle, timeout, needed);
        let mut swept = Swept::default();
        let mut stays = vec![true; idle.len()];
        for index in chosen {
            let (tenant, pid, since) = &whose[index];
            stays[index] = false;
            let reason = match timeout.is_some_and(|timeout| idle[index].waited >= timeout) {
                true => Reason::Idle,
                false => reason,
            };
            // A call may have come for it meanwhile.
            match tenant.evict(*pid, *since) {
                Some(worker) => {
                    metrics::evicted(reason);
                    counts.left[reason as usize].fetch_add(1, Relaxed);
                    drop(worker);
                    swept.left += 1;
                }
                None => {
                    metrics::called_back();
                    counts.called_back.fetch_add(1, Relaxed);
                }
            }
        }
        swept.any = !self.lock().is_empty();
        let staying = idle.iter().zip(stays).filter(|(_, stays)| *stays);
        swept.longest = staying.map(|(idle, _)| idle.waited).max();
        swept
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }
}
