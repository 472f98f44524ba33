//! The lane of a tenant's updates: one after another, each a version.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazaret_image::Image;
use lazaret_wire::message::{Done, Entry, MAX_RUNS, Outcome, Sizes};

use super::call::{Asked, Commit, Incoming, Reply, reply};
use super::error::CallError;
use super::fold::Folding;
use super::live::Live;
use super::meta::Meta;
use super::{Shared, memory_sizes, replay};
use crate::budget::total;
use crate::host::Inner;
use crate::tracker::Written;

/// What only one call at a time may change.
pub(crate) struct Lane {
    pub(super) image: Image,
    /// The state at the image's version, besides its pages.
    pub(super) meta: Arc<Meta>,
    pub(super) removed: bool,
    /// Where the tenant is.
    pub(super) directory: PathBuf,
    pub(super) folding: Folding,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// An error if the tenant is gone.
    pub(super) fn check_removed(&self, name: &str) -> Result<(), CallError> {
        match self.removed {
            true => Err(CallError::Removed(name.to_owned())),
            false => Ok(()),
        }
    }

    /// Runs an update and commits what it did.
    pub(super) fn update(
        &mut self,
        host: &Inner,
        tenant: &Arc<Shared>,
        call: &Incoming<'_>,
    ) -> Result<Reply, CallError> {
        self.check_removed(&tenant.name)?;
        let limits = &host.options.limits;
        let mut growth = tenant.reserve(memory_sizes(&self.image))?;
        let time = call.options.time.unwrap_or(limits.time);
        let mut live = self.worker(host, tenant, time)?;
        live.worker.expect_more(call.more);
        let asked = Asked {
            entry: Entry::Update,
            method: call.method,
            argument: call.argument,
            options: call.options,
            fuel: limits.update_fuel,
        };
        live.ask(&asked, &tenant.principal);
        let (fuel, version) = (live.request.fuel, live.version);
        let begin = Instant::now();
        let done = match tenant.run(host, &mut live, &mut growth, time) {
            Ok(done) => done,
            Err(error) => {
                if let Some(incident) = live.worker().incident() {
                    replay::keep(host, tenant, self, &incident);
                }
                return Err(error);
            }
        };
        let run_time = begin.elapsed();
        let fuel_used = fuel - done.fuel_left.min(fuel);
        let commit = self
            .settle(host, tenant, live, &done)?
            .map(|commit| Commit { run_time, ..commit });
        if commit.is_some() {
            host.pool.opened_files();
            growth.settle(total(memory_sizes(&self.image)));
            self.consider_fold(host, tenant);
        }
        reply(done.outcome, fuel_used, version, commit).map_err(|error| error.or_refused(&growth))
    }

    /// A worker at the newest version. If there is none and the host may have no
    /// more, waits for `time` at most.
    pub(super) fn worker(
        &mut self,
        host: &Inner,
        tenant: &Arc<Shared>,
        time: Duration,
    ) -> Result<Box<Live>, CallError> {
        if let Some(live) = tenant.idle_worker() {
            return Ok(live);
        }
        // Folding goes on beside the calls, so this is rare: a worker can't be
        // told of that many.
        if self.image.view().plan().runs.len() > MAX_RUNS {
            self.fold(&tenant.disk)?;
        }
        tenant.start_worker(host, time)
    }

    /// Commits what a call did, or puts it back. The worker goes on, unless it
    /// holds what the image doesn't.
    pub(super) fn settle(
        &mut self,
        host: &Inner,
        tenant: &Shared,
        mut live: Box<Live>,
        done: &Done,
    ) -> Result<Option<Commit>, CallError> {
        let commit = match done.outcome {
            Outcome::Reply(_) | Outcome::Reject(_) | Outcome::NoReply => {
                let after = self.after(done);
                self.commit(host, tenant, &mut live, after, done.sizes)?
            }
            Outcome::Trap(_) | Outcome::NoMethod | Outcome::Aborted(_) => {
                if tenant.put_back(&mut live, done)? {
                    tenant.workers.give(live);
                }
                return Ok(None);
            }
        };
        tenant.workers.give(live);
        Ok(commit)
    }

    /// The state after a call that is kept.
    fn after(&self, done: &Done) -> Meta {
        let mut after = Meta::clone(&self.meta);
        after.globals.clone_from(&done.globals);
        if let Some(data) = &done.effects.certified_data {
            after.certified_data.clone_from(data);
        }
        if let Some(timer) = done.effects.global_timer {
            after.global_timer = timer;
        }
        after.cycles = after.cycles.saturating_sub(done.effects.cycles_burned);
        after.version = after.version.saturating_add(1);
        after
    }

    fn commit(
        &mut self,
        host: &Inner,
        tenant: &Shared,
        live: &mut Live,
        after: Meta,
        sizes: Sizes,
    ) -> Result<Option<Commit>, CallError> {
        let begin = Instant::now();
        let written = live.written(sizes)?;
        let scan_time = begin.elapsed();
        let changed = !written.is_empty()
            || memory_sizes(&self.image) != sizes
            || !self.meta.same_but_version(&after);
        if !changed {
            return Ok(None);
        }
        self.publish(host, tenant, live, &written, sizes, after)
            .map(|commit| {
                Some(Commit {
                    scan_time,
                    ..commit
                })
            })
    }

    /// Makes what a worker holds the next version.
    pub(super) fn publish(
        &mut self,
        host: &Inner,
        tenant: &Shared,
        live: &mut Live,
        written: &Written,
        sizes: Sizes,
        after: Meta,
    ) -> Result<Commit, CallError> {
        let durability = host.options.durability;
        let disk = &tenant.disk;
        // For a second try; without a quota there is none.
        let again = disk.quota().map(|_| after.clone());
        let mut committed = live.commit(&mut self.image, written, sizes, after, durability);
        if let (Err(CallError::Commit(error)), Some(after)) = (&committed, again)
            && self.make_room(disk, error)
        {
            committed = live.commit(&mut self.image, written, sizes, after, durability);
        }
        let committed = committed.map_err(|error| match &error {
            CallError::Commit(refused) => disk.explain(refused).map_or(error, CallError::from),
            _ => error,
        })?;
        self.meta = live.meta.clone();
        Ok(Commit {
            version: committed.version.0,
            pages: written.len() as u64,
            run_time: Duration::ZERO,
            scan_time: Duration::ZERO,
            write_time: committed.write_time,
            sync_time: committed.sync_time,
        })
    }
}
