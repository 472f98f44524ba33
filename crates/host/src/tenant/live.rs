//! A tenant's worker while it lives: started at a version, brought to newer
//! ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lazaret_image::{CommitError, Durability, Image, PageId, Reader, Verify, Version};
use lazaret_wire::layout;
use lazaret_wire::layout::PAGE;
use lazaret_wire::message::{
    Bounds, Call, Done, FromWorker, HostCall, HostReturn, Prepare, Region, Sizes, Space, ToWorker,
};

use super::TenantLimits;
use super::call::Asked;
use super::error::CallError;
use super::meta::Meta;
use super::module::Module;
use super::start::{Carried, meta_of};
use crate::budget::Reservation;
use crate::compile::Artefact;
use crate::ending::Ending;
use crate::memory::{self, WorkerMemory, page_id};
use crate::page_copy::Copier;
use crate::pool::Seat;
use crate::tracker::{Tracker, Written};
use crate::worker::{Deadline, Worker};
use crate::worker_pages::{Source, WorkerPages};

/// A chunk that saw no write for this many calls is closed again.
const CLOSE_AFTER: u16 = 64;
/// Above this many pages to write, a new worker is cheaper: it maps them.
const MOST_WRITTEN: usize = 8192;
/// How long a worker may take to get ready for another version.
const PREPARE_TIME: Duration = Duration::from_secs(10);

/// Who answers the host calls of a guest: with what, and what the call has cost in
/// fuel; nothing where the call's time ends before it may be made.
pub(super) type Answer<'a> =
    dyn FnMut(&HostCall, &mut Deadline) -> Option<(Result<Vec<u8>, String>, u64)> + 'a;

/// A worker that holds a tenant at a version.
pub(crate) struct Live {
    pub(super) worker: Worker,
    pub(super) memory: WorkerMemory,
    /// Who copies its pages.
    pub(super) copier: Copier,
    pub(super) tracker: Box<dyn Tracker>,
    /// Calls since the last write, for every chunk that was written.
    pub(super) idle: HashMap<(Region, u64), u16>,
    pub(super) close: [Vec<u32>; 2],
    /// What it runs.
    pub(super) module: Arc<Module>,
    /// The code of that.
    pub(super) artefact: Arc<Artefact>,
    /// Of which of the tenant's lives it is ([`Workers`](super::workers::Workers)).
    pub(super) generation: u64,
    /// What its memories hold.
    pub(super) version: Version,
    /// Their sizes at that version.
    pub(super) sizes: Sizes,
    /// The rest of the state at that version.
    pub(super) meta: Arc<Meta>,
    /// What it is asked now or was asked last.
    pub(super) request: Call,
    /// Its place among the workers that there may be.
    pub(super) seat: Seat,
    /// How long its start took.
    pub(super) start_time: Duration,
    /// Since when it waits for a call ([`coarse_now`](crate::pool::coarse_now)).
    pub(super) idle_since: Duration,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Whether it can take a call.
    pub(crate) fn is_alive(&self) -> bool {
        self.worker.is_alive()
    }

    /// The version that its memories hold.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    fn pages(&mut self) -> WorkerPages<'_> {
        WorkerPages::new(&mut self.worker, self.memory, self.copier)
    }

    /// Makes a request of what is asked, at the version that it holds.
    pub(super) fn ask(&mut self, asked: &Asked<'_>, principal: &[u8]) {
        asked.request(&mut self.request, principal, &self.meta, self.sizes);
    }

    /// Runs the call that was asked for and copies what the worker says, checked
    /// against what is possible. An error means that the worker is gone.
    pub(crate) fn run(
        &mut self,
        answer: &mut Answer<'_>,
        limits: &TenantLimits,
        growth: &mut Reservation<'_>,
        time: Duration,
    ) -> Result<Done, CallError> {
        let Self {
            worker,
            request,
            version,
            artefact,
            ..
        } = self;
        let mut spent = 0u64;
        for (list, close) in [&mut request.close_heap, &mut request.close_stable]
            .into_iter()
            .zip(&mut self.close)
        {
            list.clear();
            list.append(close);
        }
        worker.send_call(request, version.0)?;
        // One limit for the whole call: host calls don't begin it anew.
        let mut deadline = Deadline::after(time);
        let done = loop {
            match worker.wait_until(&mut deadline) {
                Ok(FromWorker::Done(done)) => break done,
                Ok(FromWorker::HostCall(call)) => {
                    deadline.left();
                    let Some((result, fuel)) = answer(&call, &mut deadline) else {
                        return Err(CallError::TimeLimit(time));
                    };
                    spent = spent.saturating_add(fuel);
                    worker.send(&ToWorker::HostReturn(HostReturn { result }))?;
                }
                Ok(FromWorker::Grow(bytes)) => {
                    deadline.left();
                    let granted = growth.grow(bytes);
                    worker.send(&ToWorker::Grown(granted))?;
                }
                Ok(_) => {
                    return Err(CallError::WorkerEnded(
                        worker.malformed("neither an end nor a host call"),
                    ));
                }
                Err(Ending::Deadline(_)) => return Err(CallError::TimeLimit(time)),
                Err(ending) => return Err(CallError::WorkerEnded(ending)),
            }
        };
        let bounds = Bounds {
            spent,
            sizes: Sizes {
                heap: limits.heap,
                stable: limits.stable,
            },
            granted: growth.granted(),
            globals: &artefact.made.globals,
        };
        if let Err(impossible) = done.check(request, &bounds) {
            let what = format!("impossible at the end of {:?}: {impossible}", request.entry);
            return Err(CallError::WorkerEnded(worker.malformed(&what)));
        }
        Ok(done)
    }

    /// The pages that were written since the last commit or putting back.
    pub(crate) fn written(&mut self, sizes: Sizes) -> Result<Written, CallError> {
        let mut pages = WorkerPages::new(&mut self.worker, self.memory, self.copier);
        match self.tracker.written(&mut pages, sizes) {
            Ok(written) => {
                self.notice(&written);
                Ok(written)
            }
            Err(error) => Err(self.explain(CallError::Memory(error))),
        }
    }

    /// Counts how long chunks have been idle, and plans to close them.
    fn notice(&mut self, written: &Written) {
        let chunks = self.tracker.chunks();
        if !chunks.closed || self.idle.is_empty() && written.is_empty() {
            return;
        }
        for idle in self.idle.values_mut() {
            *idle = idle.saturating_add(1);
        }
        let mut last = None;
        for &(region, page) in written {
            let chunk = (region, page / chunks.pages);
            if last != Some(chunk) {
                self.idle.insert(chunk, 0);
                last = Some(chunk);
            }
        }
        let close = &mut self.close;
        self.idle.retain(|(region, chunk), idle| {
            let closing = *idle >= CLOSE_AFTER
                && close[*region as usize].len() < lazaret_wire::message::call::MAX_CLOSED;
            if closing {
                close[*region as usize].push(*chunk as u32);
            }
            !closing
        });
    }

    /// Appends `written` to the image as its next version, which is what this
    /// worker holds then.
    pub(crate) fn commit(
        &mut self,
        image: &mut Image,
        written: &Written,
        sizes: Sizes,
        after: Meta,
        durability: Durability,
    ) -> Result<lazaret_image::Committed, CallError> {
        let pages: Vec<PageId> = written.iter().filter_map(page_id).collect();
        let mut source = Source::new(self.pages());
        let image_sizes = memory::image_sizes(sizes);
        let meta = after.encoded()?;
        let committed = image
            .commit(&pages, &mut source, image_sizes, &meta, durability)
            .map_err(|error| self.explain(error.into()))?;
        (self.version, self.sizes, self.meta) = (committed.version, sizes, Arc::new(after));
        Ok(committed)
    }

    /// Brings the memories to the newest version: what `written` were, and what
    /// has changed since the version that they held. False if that is dearer
    /// than a new worker, or can't be told.
    pub(crate) fn bring_to_newest(
        &mut self,
        reader: &Reader,
        mut written: Written,
    ) -> Result<bool, CallError> {
        if written.is_empty() && reader.version() == self.version {
            return Ok(true);
        }
        let Some(changes) = reader.changed_since(self.version) else {
            return Ok(false);
        };
        let view = changes.view;
        let newer = view.version() != self.version;
        if newer {
            written.extend(changes.pages.iter().map(memory::wire_page));
            written.sort_unstable();
            written.dedup();
        }
        if written.len() > MOST_WRITTEN {
            return Ok(false);
        }
        let sizes = memory::sizes(view.sizes());
        // Pages beyond the version's sizes go when the worker's sizes do.
        written.retain(|(region, page)| *page < memory::pages(sizes, *region));
        if newer {
            let meta = meta_of(&view)?;
            if meta.module != self.module.hash {
                return Ok(false);
            }
            if self.tracker.chunks().opened || sizes != self.sizes {
                self.prepare(sizes, &written)?;
            }
            (self.version, self.sizes, self.meta) = (view.version(), sizes, meta);
        }
        for pages in written.chunks(lazaret_image::CHUNK_PAGES) {
            let ids: Vec<PageId> = pages.iter().filter_map(page_id).collect();
            let mut bytes = vec![0; ids.len() * PAGE];
            view.read_pages(&ids, &mut bytes, Verify::No)?;
            self.pages()
                .write(Space::Memory, pages, &bytes)
                .map_err(|error| self.explain(CallError::Memory(error)))?;
        }
        self.tracker
            .arm(&written)
            .map_err(|error| self.explain(CallError::Memory(error)))?;
        Ok(true)
    }

    /// Has the worker take these sizes and open the chunks of these pages.
    fn prepare(&mut self, sizes: Sizes, pages: &Written) -> Result<(), CallError> {
        let used = self.tracker.chunks();
        let chunks = |of: Region| -> Vec<u32> {
            let mut chunks: Vec<u32> = pages
                .iter()
                .filter(|(region, _)| *region == of && used.opened)
                .map(|(_, page)| (page / used.pages) as u32)
                .collect();
            chunks.dedup();
            chunks
        };
        let prepare = Prepare {
            from: self.sizes,
            sizes,
            open_heap: chunks(Region::Heap),
            open_stable: chunks(Region::Stable),
        };
        self.worker.send(&ToWorker::Prepare(prepare))?;
        match self.worker.wait(PREPARE_TIME) {
            Ok(FromWorker::Prepared) => Ok(()),
            Ok(_) => Err(CallError::WorkerEnded(
                self.worker.malformed("not prepared for another version"),
            )),
            Err(ending) => Err(CallError::WorkerEnded(ending)),
        }
    }

    /// Copies `pages` into a sealed file, for another worker to start from.
    pub(crate) fn carry(
        &mut self,
        pages: Written,
        sizes: Sizes,
        keep_heap: bool,
    ) -> Result<Carried, CallError> {
        let file = crate::sealed::memfd().map_err(CallError::Memory)?;
        let mut bytes = Vec::new();
        for (index, part) in pages.chunks(lazaret_image::CHUNK_PAGES).enumerate() {
            bytes.resize(part.len() * PAGE, 0);
            self.pages()
                .read(Space::Memory, part, &mut bytes)
                .map_err(|error| self.explain(CallError::Memory(error)))?;
            let at = (index * lazaret_image::CHUNK_PAGES * PAGE) as u64;
            let mut done = 0;
            while done < bytes.len() {
                done += rustix::io::pwrite(&file, &bytes[done..], at + done as u64)
                    .map_err(|errno| CallError::Memory(errno.into()))?;
            }
        }
        let file = crate::sealed::seal(&file).map_err(CallError::Memory)?;
        Ok(Carried {
            sizes,
            keep_heap,
            pages,
            file,
        })
    }

    /// If its memory can't be reached any more as it has ended, why it has.
    fn explain(&self, error: CallError) -> CallError {
        let reaching = match &error {
            CallError::Memory(error) | CallError::Commit(CommitError::Source(error)) => error,
            _ => return error,
        };
        match self.worker.has_ended_if(reaching) {
            Some(ending) => CallError::WorkerEnded(ending),
            None => error,
        }
    }

    /// Log lines since the last call.
    pub(crate) fn take_log(&self) -> (Vec<Vec<u8>>, u32) {
        self.worker.shared().take_log()
    }
}

const _: () = assert!(layout::CHUNK_PAGES * layout::PAGE == layout::CHUNK);
// So that under the signal tracker the pages that are put back are still open,
// or can all be opened at once.
const _: () = assert!(MOST_WRITTEN <= layout::MAX_OPEN_RUNS);
