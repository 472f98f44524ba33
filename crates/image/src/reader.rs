//! [`Reader`]: the newest published version, from any thread, whatever the image is doing.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::changes::{Changes, RecentChanges};
use crate::files::Files;
use crate::index::Index;
use crate::page::{FileId, PageId, Sizes, Version};
use crate::stale::{Stale, StalePages, Token};
use crate::storage::{OsFile, ReadAt};
use crate::view::View;

/// Up to so many pages are put into the index under the lock, which takes tens of microseconds. For more, or if
/// somebody holds the index, it is changed beside and exchanged.
const CHANGED_IN_PLACE: usize = 1024;

/// Gives the newest version of an image at any time. What a commit is still writing or syncing isn't there yet.
pub struct Reader<F: ReadAt = OsFile> {
    pub(crate) shared: Arc<Shared<F>>,
}

impl<F: ReadAt> fmt::Debug for Reader<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl<F: ReadAt> Clone for Reader<F> {
    fn clone(&self) -> Self {
        Reader {
            shared: self.shared.clone(),
        }
    }
}

impl<F: ReadAt> Reader<F> {
    /// The number of the newest published version.
    pub fn version(&self) -> Version {
        self.shared.lock().newest.version
    }

    /// Its sizes.
    pub fn sizes(&self) -> Sizes {
        self.shared.lock().newest.sizes
    }

    /// The newest published version.
    pub fn view(&self) -> View<F> {
        self.shared.view()
    }

    /// The newest version, and which pages may differ between `version` and it. `None` if that is too long ago to
    /// be known, or if `version` isn't one that was published here.
    pub fn changed_since(&self, version: Version) -> Option<Changes<F>> {
        let (view, lists) = {
            let published = self.shared.lock();
            (
                published.newest.clone(),
                published.changes.since(version, published.newest.version)?,
            )
        };
        Some(Changes::merge(view, &lists))
    }
}

/// What an image and its readers share.
pub(crate) struct Shared<F: ReadAt> {
    published: Mutex<Published<F>>,
    /// A sync failed. What the disk holds is unknown, and asking again doesn't tell: the kernel reports a failed
    /// writeback once and marks the pages clean ("fsyncgate", <https://lwn.net/Articles/752063/>).
    poisoned: AtomicBool,
}

struct Published<F: ReadAt> {
    newest: View<F>,
    changes: RecentChanges,
    /// What the last hash of the state doesn't know.
    stale: Stale,
    /// How much of the newest version's active log is known to be on disk.
    on_disk: u64,
    /// Pages that commits have stored since the image was opened.
    stored: u64,
}

/// The newest version's active log, for who puts it on disk. Not the version itself: while somebody holds its index, a
/// commit has to copy that.
pub(crate) struct NewestLog<F: ReadAt> {
    pub(crate) version: Version,
    pub(crate) files: Arc<Files<F>>,
    /// The log and its length.
    pub(crate) log: (FileId, u64),
    pub(crate) on_disk: u64,
    pub(crate) stored: u64,
}

/// What a commit makes the newest version.
pub(crate) struct Next {
    pub(crate) version: Version,
    pub(crate) sizes: Sizes,
    pub(crate) meta: Arc<[u8]>,
    /// Where the active log ends.
    pub(crate) log_end: u64,
    /// How much of it is on disk by the image's own syncs.
    pub(crate) durable: u64,
    /// Pages that the commit stored.
    pub(crate) stored: u64,
}

impl<F: ReadAt> Shared<F> {
    pub(crate) fn new(newest: View<F>) -> Arc<Shared<F>> {
        let changes = RecentChanges::from(newest.version);
        Arc::new(Shared {
            published: Mutex::new(Published {
                newest,
                changes,
                stale: Stale::default(),
                on_disk: 0,
                stored: 0,
            }),
            poisoned: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Published<F>> {
        // Nothing panics while it is held.
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> View<F> {
        self.lock().newest.clone()
    }

    /// Whether a sync has failed, by whoever.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// From now on the image takes no more commits.
    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn newest_log(&self) -> NewestLog<F> {
        let published = self.lock();
        NewestLog {
            version: published.newest.version,
            files: published.newest.files.clone(),
            log: published.newest.log,
            on_disk: published.on_disk,
            stored: published.stored,
        }
    }

    /// How much of the log `file` is known to be on disk, if that is the active one.
    pub(crate) fn on_disk(&self, file: FileId) -> u64 {
        let published = self.lock();
        match published.newest.log.0 == file {
            true => published.on_disk,
            false => 0,
        }
    }

    /// Notes that the log `file` is on disk up to `end`.
    pub(crate) fn note_on_disk(&self, file: FileId, end: u64) {
        let mut published = self.lock();
        if published.newest.log.0 == file {
            published.on_disk = published.on_disk.max(end);
        }
    }

    /// The newest version, and the pages that may differ from what was at the last call; that one's token tells which it
    /// was. `None` if there was another since, or something else than commits. From now on the new token counts.
    pub(crate) fn take_stale(&self, last: Option<Token>) -> (View<F>, Token, Option<StalePages>) {
        let mut published = self.lock();
        let (token, pages) = published.stale.take(last);
        (published.newest.clone(), token, pages)
    }

    /// Whether the stale pages are counted from where they were taken under this token.
    pub(crate) fn is_last(&self, token: Token) -> bool {
        self.lock().stale.is_since(token)
    }

    /// Publishes the version that a commit of `pages` made. `change` makes it of the index, and returns the pages
    /// that fell behind the new sizes. Only the image calls this, so nothing is published in between.
    pub(crate) fn advance(
        &self,
        next: Next,
        pages: &[PageId],
        change: impl FnOnce(&mut Index) -> Vec<PageId>,
    ) {
        let mut published = self.lock();
        let sizes = published.newest.sizes;
        let shrinks = next.sizes.heap < sizes.heap || next.sizes.stable < sizes.stable;
        let in_place = match Arc::get_mut(&mut published.newest.index) {
            Some(index) if !shrinks && pages.len() <= CHANGED_IN_PLACE => Some(index),
            _ => None,
        };
        let (gone, old) = match in_place {
            Some(index) => (change(index), None),
            None => {
                let mut index = published.newest.index.clone();
                drop(published);
                let gone = change(Arc::make_mut(&mut index));
                published = self.lock();
                let old = std::mem::replace(&mut published.newest.index, index);
                (gone, Some(old))
            }
        };
        published.newest.version = next.version;
        published.newest.sizes = next.sizes;
        published.newest.meta = next.meta;
        published.newest.log.1 = next.log_end;
        published.on_disk = published.on_disk.max(next.durable);
        published.stored += next.stored;
        published.changes.push(next.version, pages, &gone);
        published.stale.add(pages);
        published.stale.add(&gone);
        drop(published);
        // Maybe the last of a large index: not under the lock.
        drop(old);
    }

    /// Publishes other files for the same places: a new log, which is empty.
    pub(crate) fn replace_files(&self, files: Arc<Files<F>>, log: FileId) {
        let mut published = self.lock();
        published.newest.files = files;
        published.newest.log = (log, 0);
        published.on_disk = 0;
    }

    /// Publishes a version that doesn't come of the one before by a commit.
    pub(crate) fn restart(&self, newest: View<F>) {
        let changes = RecentChanges::from(newest.version);
        let mut published = self.lock();
        let next = Published {
            newest,
            changes,
            stale: Stale::default(),
            on_disk: 0,
            stored: published.stored,
        };
        let old = std::mem::replace(&mut *published, next);
        drop(published);
        drop(old);
    }

    /// Publishes other places of the same version: a fold.
    pub(crate) fn replace_places(&self, index: Arc<Index>, files: Arc<Files<F>>) {
        let mut published = self.lock();
        let old = (
            std::mem::replace(&mut published.newest.index, index),
            std::mem::replace(&mut published.newest.files, files),
        );
        drop(published);
        drop(old);
    }
}
