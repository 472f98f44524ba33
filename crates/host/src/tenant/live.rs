//! A tenant's worker while it lives: started at a version, kept at it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazaret_guest::engine;
use lazaret_image::{Durability, Image, PageId, Verify};
use lazaret_wall::launcher::Limits;
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wire::layout::{MAP_RUN_PAGES, PAGE};
use lazaret_wire::message::{
    Assignment, Call, CompileSettings, Done, FromWorker, HostReturn, Purpose, Region, Run, Sizes,
    TenantSetup, ToWorker, Tracking,
};
use lazaret_wire::{Spin, layout};

use super::TenantLimits;
use super::error::CallError;
use super::meta::Meta;
use crate::artefact::{Artefact, CompileError};
use crate::ending::Ending;
use crate::host::Inner;
use crate::memory::{self, Source, WorkerMemory, page_id};
use crate::tracker::{CardTracker, KernelTracker, Tracker, TrackerKind, Written};
use crate::worker::{Start, Worker, WorkerError};

/// A chunk that saw no write for this many calls is closed again.
const CLOSE_AFTER: u16 = 64;
/// Above this many pages to put back, a new worker is cheaper.
const MOST_PUT_BACK: usize = 8192;
/// Room for the worker's own data beside the tenant's memories, in bytes.
const OWN_DATA: u64 = 512 << 20;
/// Address space that a 32-bit heap reserves, in bytes. Its cards take as much.
const RESERVATION: u64 = 4 << 30;
/// Address space beside the memories: cards, code, stacks, files of the image.
const OWN_ADDRESSES: u64 = 8 << 30;

/// A worker that holds a tenant at a version.
pub(crate) struct Live {
    worker: Worker,
    memory: WorkerMemory,
    tracker: Box<dyn Tracker>,
    /// Calls since the last write, for every chunk that was written.
    idle: HashMap<(Region, u64), u16>,
    close: [Vec<u32>; 2],
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// Where a worker starts that is not at the image's version: an upgrade's.
#[derive(Debug)]
pub(crate) struct Carried {
    /// Sizes of the memories.
    pub sizes: Sizes,
    /// Whether the heap of the image is kept.
    pub keep_heap: bool,
    /// Pages that differ from the image's, in address order.
    pub pages: Written,
    /// Their contents, one after another.
    pub file: OwnedFd,
}

impl Live {
    /// Starts a worker at the image's version, or beyond it.
    pub(crate) fn start(
        host: &Inner,
        image: &Image,
        artefact: &Artefact,
        limits: &TenantLimits,
        carried: Option<&Carried>,
    ) -> Result<Self, CallError> {
        let tracking = match artefact.settings.cards {
            true => Tracking::Cards,
            false => Tracking::Kernel,
        };
        let plan = image.plan();
        let files: Vec<_> = image.files().collect();
        let mut runs: Vec<Run> = plan
            .runs
            .iter()
            .filter(|run| {
                run.region != lazaret_image::Region::Heap
                    || carried.is_none_or(|carried| carried.keep_heap)
            })
            .map(|run| {
                // A run left out would be pages that read as zeros.
                let file = files
                    .iter()
                    .position(|(id, _)| *id == run.file)
                    .and_then(|index| u16::try_from(index).ok())
                    .ok_or_else(|| {
                        let text = format!("the image has no open file {:?}", run.file);
                        CallError::Memory(std::io::Error::other(text))
                    })?;
                Ok(Run {
                    region: memory::from_image(run.region),
                    first_page: run.first_page,
                    pages: run.pages,
                    file,
                    offset: run.offset,
                })
            })
            .collect::<Result<_, CallError>>()?;
        if let Some(carried) = carried {
            runs = overlay(runs, &carried.pages, files.len() as u16, &carried.sizes);
        }
        let copied: Written = runs
            .iter()
            .filter(|run| run.pages < MAP_RUN_PAGES)
            .flat_map(|run| (0..run.pages).map(|i| (run.region, run.first_page + i)))
            .collect();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![artefact.file.as_fd()];
        descriptors.extend(files.iter().map(|(_, file)| *file));
        descriptors.extend(carried.map(|carried| carried.file.as_fd()));
        let sizes = carried.map_or(
            Sizes {
                heap: plan.sizes.heap,
                stable: plan.sizes.stable,
            },
            |carried| carried.sizes,
        );
        let launcher = host.launcher().map_err(WorkerError::from)?;
        let (mut worker, ready, tracked) = Worker::start(Start {
            launcher: &launcher,
            limits: Limits {
                address_space: limits
                    .heap
                    .max(RESERVATION)
                    .saturating_add(RESERVATION)
                    .saturating_add(limits.stable)
                    .saturating_add(OWN_ADDRESSES),
                data: limits
                    .heap
                    .saturating_add(limits.stable)
                    .saturating_add(OWN_DATA),
                descriptors: (descriptors.len() + 16) as u64,
                file: 0,
                cpu_seconds: None,
                stack: engine::NATIVE_STACK,
            },
            assignment: Assignment::Tenant(TenantSetup {
                heap_limit: limits.heap,
                stable_limit: limits.stable,
                sizes,
                runs,
                tracking,
                reusable: artefact.made.reusable,
                host_functions: host.functions.names(),
            }),
            descriptors: &descriptors,
            open: Open {
                fixed: &[],
                directories: 0,
            },
            accepted: &host.options.accept_missing,
            tracked: tracking == Tracking::Kernel,
        })?;
        worker.set_spin(Spin::HOT);
        let Some(memory) = WorkerMemory::new(worker.pid(), &ready) else {
            return Err(CallError::WorkerEnded(
                worker.malformed("addresses of its memories"),
            ));
        };
        let mut tracker: Box<dyn Tracker> = match (tracking, tracked) {
            (Tracking::Kernel, Some(userfaultfd)) => Box::new(
                KernelTracker::new(worker.pid(), userfaultfd, ready.heap_at, ready.stable_at)
                    .map_err(CallError::Memory)?,
            ),
            (Tracking::Cards, _) => Box::new(CardTracker::new(&memory)),
            (Tracking::Kernel, None) | (Tracking::None, _) => {
                return Err(CallError::WorkerEnded(worker.malformed("no userfaultfd")));
            }
        };
        tracker.arm(&copied).map_err(CallError::Memory)?;
        Ok(Self {
            worker,
            memory,
            tracker,
            idle: HashMap::new(),
            close: [Vec::new(), Vec::new()],
        })
    }

    /// Whether it can take a call.
    pub(crate) fn is_alive(&self) -> bool {
        self.worker.is_alive()
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Runs one call and copies what it says, checked against what is
    /// possible. An error means that the worker is gone.
    pub(crate) fn run(
        &mut self,
        host: &Inner,
        mut call: Call,
        limits: &TenantLimits,
        time: Duration,
    ) -> Result<Done, CallError> {
        call.close_heap = std::mem::take(&mut self.close[0]);
        call.close_stable = std::mem::take(&mut self.close[1]);
        let (given, sizes, globals, cycles, entry) = (
            call.fuel,
            call.sizes,
            call.globals.clone(),
            call.cycles,
            call.entry,
        );
        self.worker.send(&ToWorker::Call(call))?;
        // One limit for the whole call: host calls don't begin it anew.
        let begin = Instant::now();
        let done = loop {
            match self.worker.wait(time.saturating_sub(begin.elapsed())) {
                Ok(FromWorker::Done(done)) => break done,
                Ok(FromWorker::HostCall(call)) => {
                    let result = host.functions.call(call.function, &call.argument);
                    self.worker
                        .send(&ToWorker::HostReturn(HostReturn { result }))?;
                }
                Ok(_) => {
                    return Err(CallError::WorkerEnded(
                        self.worker.malformed("neither an end nor a host call"),
                    ));
                }
                Err(Ending::Deadline(_)) => return Err(CallError::TimeLimit(time)),
                Err(ending) => return Err(CallError::WorkerEnded(ending)),
            }
        };
        let page = 65_536;
        let possible = done.fuel_left <= given
            && done.sizes.heap <= limits.heap.max(sizes.heap)
            && done.sizes.stable <= limits.stable.max(sizes.stable)
            && done.sizes.heap % page == 0
            && done.sizes.stable % page == 0
            && done.sizes.stable >= sizes.stable
            && done.sizes.heap >= sizes.heap
            && done.effects.cycles_burned <= cycles
            && (globals.is_empty() || same_types(&globals, &done.globals));
        if !possible {
            return Err(CallError::WorkerEnded(
                self.worker
                    .malformed(&format!("impossible numbers at the end of {entry:?}")),
            ));
        }
        Ok(done)
    }

    /// The pages that were written since the last commit or putting back.
    pub(crate) fn written(&mut self, sizes: Sizes) -> Result<Written, CallError> {
        let written = self
            .tracker
            .written(self.worker.shared(), sizes)
            .map_err(CallError::Memory)?;
        self.notice(&written);
        Ok(written)
    }

    /// Counts how long chunks have been idle, and plans to close them.
    fn notice(&mut self, written: &Written) {
        for idle in self.idle.values_mut() {
            *idle = idle.saturating_add(1);
        }
        let chunk_pages = self.tracker.chunk_pages();
        let mut last = None;
        for &(region, page) in written {
            let chunk = (region, page / chunk_pages);
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

    /// Appends `written` to the image as its next version.
    pub(crate) fn commit(
        &self,
        image: &mut Image,
        written: &Written,
        sizes: Sizes,
        meta: &[u8],
        durability: Durability,
    ) -> Result<lazaret_image::Committed, CallError> {
        let pages: Vec<PageId> = written.iter().filter_map(page_id).collect();
        let mut source = Source {
            memory: &self.memory,
            scratch: Vec::new(),
        };
        let sizes = lazaret_image::Sizes {
            heap: sizes.heap,
            stable: sizes.stable,
        };
        Ok(image.commit(&pages, &mut source, sizes, meta, durability)?)
    }

    /// Puts back what `written` were at the image's version. False if that is
    /// dearer than a new worker.
    pub(crate) fn put_back(&mut self, image: &Image, written: &Written) -> Result<bool, CallError> {
        if written.len() > MOST_PUT_BACK {
            return Ok(false);
        }
        // Pages beyond the version's sizes go when the worker's sizes do.
        let sizes = image.sizes();
        let inside: Written = written
            .iter()
            .copied()
            .filter(|(region, page)| *page < sizes.of(memory::to_image(*region)) / PAGE as u64)
            .collect();
        for pages in inside.chunks(lazaret_image::CHUNK_PAGES) {
            let ids: Vec<PageId> = pages.iter().filter_map(page_id).collect();
            let mut bytes = vec![0; ids.len() * PAGE];
            image.read_pages(&ids, &mut bytes, Verify::No)?;
            self.memory
                .write(pages, &bytes)
                .map_err(CallError::Memory)?;
        }
        self.tracker.arm(&inside).map_err(CallError::Memory)?;
        Ok(true)
    }

    /// Copies `pages` into a sealed file, for another worker to start from.
    pub(crate) fn carry(
        &self,
        pages: Written,
        sizes: Sizes,
        keep_heap: bool,
    ) -> Result<Carried, CallError> {
        let file = crate::artefact::memfd().map_err(CallError::Memory)?;
        let mut bytes = Vec::new();
        for (index, part) in pages.chunks(lazaret_image::CHUNK_PAGES).enumerate() {
            bytes.resize(part.len() * PAGE, 0);
            self.memory
                .read(part, &mut bytes)
                .map_err(CallError::Memory)?;
            let at = (index * lazaret_image::CHUNK_PAGES * PAGE) as u64;
            let mut done = 0;
            while done < bytes.len() {
                done += rustix::io::pwrite(&file, &bytes[done..], at + done as u64)
                    .map_err(|errno| CallError::Memory(errno.into()))?;
            }
        }
        let file = crate::artefact::seal(&file).map_err(CallError::Memory)?;
        Ok(Carried {
            sizes,
            keep_heap,
            pages,
            file,
        })
    }

    /// Log lines since the last call.
    pub(crate) fn take_log(&self) -> (Vec<Vec<u8>>, u32) {
        self.worker.shared().take_log()
    }
}

/// Lays `pages`, which lie one after another in `file`, over `runs`, and cuts
/// what is beyond the sizes.
fn overlay(runs: Vec<Run>, pages: &Written, file: u16, sizes: &Sizes) -> Vec<Run> {
    let covered: std::collections::BTreeSet<(Region, u64)> = pages.iter().copied().collect();
    let mut out: Vec<Run> = Vec::new();
    let mut push = |run: Run| match out.last_mut() {
        Some(last)
            if last.region == run.region
                && last.file == run.file
                && last.first_page + last.pages == run.first_page
                && last.offset + last.pages * PAGE as u64 == run.offset =>
        {
            last.pages += run.pages;
        }
        _ => out.push(run),
    };
    for run in runs {
        let mut first = run.first_page;
        let end = run.first_page + run.pages;
        let piece = |from: u64, to: u64| Run {
            first_page: from,
            pages: to - from,
            offset: run.offset + (from - run.first_page) * PAGE as u64,
            ..run
        };
        for &(_, page) in covered.range((run.region, first)..(run.region, end)) {
            if page > first {
                push(piece(first, page));
            }
            first = page + 1;
        }
        if first < end {
            push(piece(first, end));
        }
    }
    for (index, &(region, page)) in pages.iter().enumerate() {
        push(Run {
            region,
            first_page: page,
            pages: 1,
            file,
            offset: (index * PAGE) as u64,
        });
    }
    let limit = |region: Region| match region {
        Region::Heap => sizes.heap,
        Region::Stable => sizes.stable,
    } / PAGE as u64;
    out.retain_mut(|run| {
        run.pages = run
            .pages
            .min(limit(run.region).saturating_sub(run.first_page));
        run.pages > 0
    });
    out.sort_by_key(|run| (run.region, run.first_page));
    out
}

fn same_types(a: &[lazaret_wire::message::Global], b: &[lazaret_wire::message::Global]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| std::mem::discriminant(a) == std::mem::discriminant(b))
}

/// A tenant's module, with what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub hash: [u8; 32],
    pub info: Arc<crate::module::ModuleInfo>,
    code: Code,
}

/// A module's code: compiled when it is first to run, so that a tenant can be
/// looked at without a compiler.
#[derive(Debug, Clone)]
enum Code {
    Wasm(Arc<[u8]>),
    Compiled(Arc<Artefact>),
}

impl Module {
    /// A module that was inspected and isn't compiled yet.
    pub(crate) fn new(wasm: &[u8], info: crate::module::ModuleInfo) -> Self {
        Self {
            hash: *blake3::hash(wasm).as_bytes(),
            info: Arc::new(info),
            code: Code::Wasm(wasm.into()),
        }
    }

    /// Its artefact, compiled now if it isn't.
    pub(crate) fn artefact(&mut self, host: &Inner) -> Result<Arc<Artefact>, CompileError> {
        let artefact = match &self.code {
            Code::Compiled(artefact) => return Ok(artefact.clone()),
            Code::Wasm(wasm) => {
                let settings = CompileSettings {
                    purpose: Purpose::Tenant,
                    metered: true,
                    cards: host.options.tracker == TrackerKind::Cards,
                    snapshot: false,
                };
                host.compile(wasm, settings)?.0
            }
        };
        self.code = Code::Compiled(artefact.clone());
        Ok(artefact)
    }
}

/// Whether a call changed anything that must be kept.
pub(crate) fn changed(
    written: &Written,
    before: &Meta,
    after: &Meta,
    sizes: Sizes,
    image: &Image,
) -> bool {
    let same_sizes = image.sizes().heap == sizes.heap && image.sizes().stable == sizes.stable;
    !written.is_empty() || !same_sizes || !before.same_but_version(after)
}

const _: () = assert!(layout::CHUNK_PAGES * layout::PAGE == layout::CHUNK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_pages_replace_those_below_them() {
        let run = |first_page, pages, file, offset| Run {
            region: Region::Heap,
            first_page,
            pages,
            file,
            offset,
        };
        let page = PAGE as u64;
        let sizes = Sizes {
            heap: 12 * page,
            stable: 0,
        };
        let laid = overlay(
            vec![run(0, 10, 0, 0)],
            &vec![
                (Region::Heap, 3),
                (Region::Heap, 4),
                (Region::Heap, 11),
                (Region::Heap, 20),
            ],
            7,
            &sizes,
        );
        assert_eq!(
            laid,
            [
                run(0, 3, 0, 0),
                run(3, 2, 7, 0),
                run(5, 5, 0, 5 * page),
                run(11, 1, 7, 2 * page)
            ]
        );
    }
}
