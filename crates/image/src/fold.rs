//! Folding base and logs into a new base, while commits go on.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use crate::error::{Action, FileError, FoldError};
use crate::files::{Files, SourceFile};
use crate::format::{MAX_SHARDS, Origin, ShardEntry, log_name, shard_name};
use crate::image::Image;
use crate::index::{Extent, Index, Location};
use crate::manifest::SwitchError;
use crate::numbers::FileNumbers;
use crate::page::{FileId, PAGE_BYTES, PageId, TenantId, Version};
use crate::runs::{BaseRuns, LongRuns};
use crate::shard::{BytesPerSecond, Throttle, write_shard};
use crate::storage::{OsStorage, Storage};
use crate::view::View;
use crate::windows::NewBase;

/// Logs shorter than this aren't worth folding for their size.
const SMALL_LOG: u64 = 64 << 20;
/// More runs of any length than this are worth folding: a worker copies the short ones when it starts.
const MANY_RUNS: usize = 1024;
/// More sealed logs than this are worth folding: each is a descriptor in a worker.
const MANY_LOGS: usize = 8;

/// What a fold did.
#[derive(Clone, Copy, Debug)]
pub struct Folded {
    /// The version that is the base now.
    pub version: Version,
    /// Base shards written.
    pub shards: usize,
    /// Base shards kept as they were.
    pub kept: usize,
    /// Pages written.
    pub pages: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// A fold under way: it writes new shards, and needs the image only at its beginning and its end.
///
/// When it is dropped, the files that nobody needs are removed, which can take as long as freeing gigabytes does: the new
/// ones, or after [`Image::finish_fold`] the old ones. If the process dies before, the next open removes them. While it
/// exists the image's directory stays locked.
pub struct FoldJob<S: Storage = OsStorage> {
    storage: Arc<S>,
    numbers: Arc<FileNumbers>,
    tenant: TenantId,
    view: View<S::File>,
    /// The base, by address, and each shard's slot in the view's files.
    shards: Vec<(ShardEntry, usize)>,
    /// The logs that go into the new base.
    logs: Vec<FileId>,
    /// The image has a weak reference to the one job that it waits for.
    token: Arc<()>,
    base: Option<NewBase>,
    written: Vec<(ShardEntry, SourceFile<S::File>)>,
    complete: Option<Complete<S::File>>,
    /// Files to remove when this is dropped: the new ones, or, when the image refers to them, the old ones.
    useless: Vec<String>,
}

/// A new base, written and synced.
struct Complete<F> {
    shards: Vec<ShardEntry>,
    /// The view's version in the new base alone.
    index: Index,
    /// The view's files, and the new ones.
    files: Files<F>,
    runs: BaseRuns,
    folded: Folded,
}

impl<S: Storage> Image<S> {
    /// Whether folding pays, for a worker that can map so many runs of [`MAPPED_RUN_PAGES`](crate::MAPPED_RUN_PAGES)
    /// and more: the logs are large in themselves and against the base, or many, or the version is in many pieces
    /// and mostly by the logs' doing.
    pub fn should_fold(&self, mapped_runs: usize) -> bool {
        let logs = self.log_len();
        let base = self.disk_bytes() - logs;
        if logs > SMALL_LOG.max(base) || self.manifest.sealed.len() > MANY_LOGS {
            return true;
        }
        let index = self.view().index;
        let runs = index.extent_count();
        // Half of what the base leaves of the budget.
        let many = self.base.mapped + mapped_runs.saturating_sub(self.base.mapped) / 2;
        (runs > MANY_RUNS && runs / 2 > self.base.all)
            || (logs > 0 && self.long_runs.exceed(many, &index))
    }

    /// Begins a fold of the newest version: what is committed from now on goes to another log. That takes a few syncs;
    /// the work is in [`FoldJob::run`], to be called on any thread.
    ///
    /// # Errors
    ///
    /// If there is a job already, or the operating system refuses. The image is as it was, and usable, unless a sync
    /// failed or it isn't known which manifest is in place.
    pub fn begin_fold(&mut self) -> Result<FoldJob<S>, FoldError> {
        if self.folding.strong_count() > 0 {
            return Err(FoldError::Busy {
                path: self.storage.path().to_path_buf(),
            });
        }
        self.seal()?;
        let shards = self.manifest.shards.iter().filter_map(|shard| {
            let slot = self.files.slot_of(shard.file)?;
            Some((shard.clone(), slot))
        });
        let token = Arc::new(());
        self.folding = Arc::downgrade(&token);
        Ok(FoldJob {
            storage: self.storage.clone(),
            numbers: self.numbers.clone(),
            tenant: self.manifest.tenant,
            view: self.view(),
            shards: shards.collect(),
            logs: self.manifest.sealed.iter().map(|log| log.file).collect(),
            token,
            base: None,
            written: Vec::new(),
            complete: None,
            useless: Vec::new(),
        })
    }

    /// Makes what the job has written the base, with the commits since it began behind it. This replaces the manifest,
    /// and looks at what was committed since. The old files are removed when the job is dropped.
    ///
    /// Descriptors and mappings of old files stay valid; a new [`plan`](Image::plan) refers to new ones.
    ///
    /// # Errors
    ///
    /// If the job isn't complete or the image was restored since it began, or the operating system refuses. The
    /// image is as it was, and usable, unless it isn't known which manifest is in place.
    pub fn finish_fold(&mut self, job: &mut FoldJob<S>) -> Result<Folded, FoldError> {
        if self.shared.is_poisoned() {
            return Err(FoldError::Poisoned {
                path: self.storage.path().to_path_buf(),
            });
        }
        if !Weak::ptr_eq(&self.folding, &Arc::downgrade(&job.token)) {
            return Err(FoldError::Stale);
        }
        let complete = job.complete.take().ok_or(FoldError::Unfinished)?;
        let folded = complete.folded;
        self.folding = Weak::new();
        if job.logs.is_empty() && folded.shards == 0 && folded.kept == job.shards.len() {
            return Ok(folded);
        }
        let mut manifest = self.manifest.clone();
        manifest.sealed.retain(|log| !job.logs.contains(&log.file));
        manifest.shards = complete.shards;
        (manifest.sizes, manifest.meta) = (job.view.sizes, job.view.meta.to_vec());
        let kept: BTreeSet<FileId> = manifest.shards.iter().map(|shard| shard.file).collect();
        match self.switch(manifest) {
            Ok(()) => job.useless.clear(),
            Err(SwitchError::Before(error)) => return Err(FoldError::File(error)),
            Err(SwitchError::Unknown(error)) => {
                job.useless.clear();
                return Err(FoldError::Switch(error));
            }
        }

        // No file was added since the job began: what adds one would have been refused, or made the job stale.
        let mut files = complete.files;
        let gone = job.shards.iter().map(|(shard, _)| shard.file);
        for file in gone.filter(|file| !kept.contains(file)) {
            files.remove(file);
            job.useless.push(shard_name(file));
        }
        for file in &job.logs {
            files.remove(*file);
            job.useless.push(log_name(*file));
        }
        let now = self.view();
        let mut index = complete.index;
        index.apply(now.index.differences(&job.view.index));
        // Pages of zeros that fill a gap may lie behind the sizes by now.
        index.truncate(&now.sizes);
        self.base = complete.runs;
        self.long_runs = LongRuns::unknown();
        self.files = Arc::new(files);
        self.shared
            .replace_places(Arc::new(index), self.files.clone());
        Ok(folded)
    }

    /// Writes the newest version as a new base with an empty log, and removes the old files: all of
    /// [`begin_fold`](Image::begin_fold), [`run`](FoldJob::run) and [`finish_fold`](Image::finish_fold).
    ///
    /// # Errors
    ///
    /// As for these.
    pub fn fold(&mut self) -> Result<Folded, FoldError> {
        let mut job = self.begin_fold()?;
        job.run(None, &AtomicBool::new(false))?;
        self.finish_fold(&mut job)
    }
}

impl<S: Storage> FoldJob<S> {
    /// The version that it makes the base.
    pub fn version(&self) -> Version {
        self.view.version
    }

    /// Writes the new shards, no faster than `rate` on average, until it is done or `stop` is set. Shards that no log
    /// touches are kept, so it takes no more space than what it merges. Every page is verified on the way.
    ///
    /// # Errors
    ///
    /// If a page is damaged, `stop` was set, or the operating system refuses. It may be called again, and goes on behind
    /// the last complete shard.
    pub fn run(
        &mut self,
        rate: Option<BytesPerSecond>,
        stop: &AtomicBool,
    ) -> Result<(), FoldError> {
        let mut throttle = Throttle::new(rate, stop);
        let base = match self.base.take() {
            Some(base) => base,
            None => NewBase::of(&self.view.index, &self.shards),
        };
        let outcome = self.write(&base, &mut throttle);
        let outcome = outcome.map(|()| {
            if self.complete.is_none() {
                self.complete = Some(self.completed(&base));
            }
        });
        self.base = Some(base);
        outcome
    }

    /// The new base as the image will have it: what can be done here needn't be while calls wait.
    fn completed(&mut self, base: &NewBase) -> Complete<S::File> {
        let folded = Folded {
            version: self.view.version,
            shards: self.written.len(),
            kept: base.kept.len(),
            pages: self.written.iter().map(|(entry, _)| entry.pages).sum(),
            bytes: self.written.iter().map(|(entry, _)| entry.file_len()).sum(),
        };
        let mut index = (*self.view.index).clone();
        let mut files = (*self.view.files).clone();
        let mut shards = base.kept.clone();
        for (shard, (entry, source)) in base.new.iter().zip(self.written.drain(..)) {
            let slot = files.insert(source);
            let mut next = entry.header_len / PAGE_BYTES;
            index.put(shard.runs.iter().filter_map(|(first, pages)| {
                let location = Location::new(slot, next);
                next += pages;
                Some(Extent {
                    first: PageId::new(shard.region, *first)?,
                    pages: *pages,
                    location: location?,
                })
            }));
            shards.push(entry);
        }
        shards.sort_unstable_by_key(|shard| (shard.region, shard.first_page));
        Complete {
            shards,
            runs: BaseRuns::of(&index),
            index,
            files,
            folded,
        }
    }

    fn write(&mut self, base: &NewBase, throttle: &mut Throttle<'_>) -> Result<(), FoldError> {
        let too_large = || FoldError::TooLarge {
            path: self.storage.path().to_path_buf(),
            version: self.view.version,
        };
        if self.complete.is_some() {
            return Ok(());
        }
        if base.kept.len() + base.new.len() > MAX_SHARDS as usize {
            return Err(too_large());
        }
        for shard in base.new.iter().skip(self.written.len()) {
            throttle.wrote(0)?;
            let file = self.numbers.take().ok_or_else(too_large)?;
            let origin = Origin {
                tenant: self.tenant,
                file,
            };
            self.useless.push(shard_name(file));
            match write_shard(&*self.storage, &self.view, shard, origin, throttle) {
                Ok(written) => self.written.push(written),
                Err(error) => {
                    // If it can't be removed now it can when the job is dropped.
                    if self.storage.unlink(&shard_name(file)).is_ok() {
                        self.useless.pop();
                    }
                    return Err(error);
                }
            }
        }
        let synced = self.storage.fsync_dir();
        Ok(synced.map_err(|error| FileError::new(&*self.storage, Action::Sync, "", 0, error))?)
    }
}

impl<S: Storage> Drop for FoldJob<S> {
    fn drop(&mut self) {
        for name in self.useless.drain(..) {
            let _ = self.storage.unlink(&name);
        }
    }
}
