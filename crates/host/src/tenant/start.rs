//! Starting a worker of a tenant at a version, or beyond it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazaret_guest::engine;
use lazaret_image::View;
use lazaret_wall::launcher::Limits;
use lazaret_wall::layers::descriptors::Expected as Open;
use lazaret_wire::Spin;
use lazaret_wire::codec::Message;
use lazaret_wire::layout::{MAP_RUN_PAGES, MAX_MAPPED_RUNS, PAGE};
use lazaret_wire::message::{Assignment, Call, Region, Run, Sizes, TenantSetup, Tracking};

use super::TenantLimits;
use super::error::CallError;
use super::live::Live;
use super::meta::Meta;
use super::module::Module;
use crate::host::Inner;
use crate::memory::{self, WorkerMemory};
use crate::tracker::{self, CardTracker, KernelTracker, SignalTracker, Tracker, Written};
use crate::worker::{Duty, Start, Worker};

/// Room for the worker's own data beside the tenant's memories, in bytes.
const OWN_DATA: u64 = 512 << 20;
/// Address space that a 32-bit heap reserves, in bytes. Its cards take as much.
const RESERVATION: u64 = 4 << 30;
/// Address space beside the memories: cards, code, stacks, files of the image.
const OWN_ADDRESSES: u64 = 8 << 30;

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

/// From how many pages on a worker maps a run: few, unless it were too many
/// mappings then. It copies the shorter ones, so a version in many pieces starts
/// more slowly, and needs that much more memory, until it is compacted.
fn map_from(runs: &[Run]) -> u64 {
    let long = runs.iter().map(|run| run.pages);
    let mut long: Vec<u64> = long.filter(|pages| *pages >= MAP_RUN_PAGES).collect();
    if long.len() <= MAX_MAPPED_RUNS {
        return MAP_RUN_PAGES;
    }
    // The longest that is one too many, and all that are as long, are copied.
    let (_, one_too_many, _) =
        long.select_nth_unstable_by_key(MAX_MAPPED_RUNS, |pages| std::cmp::Reverse(*pages));
    *one_too_many + 1
}

/// The limits of a worker that is handed so many descriptors.
pub(crate) fn worker_limits(limits: &TenantLimits, descriptors: u64) -> Limits {
    Limits {
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
        descriptors: descriptors + 16,
        file: 0,
        cpu_seconds: None,
        stack: engine::NATIVE_STACK,
        compiler: false,
    }
}

/// A worker's state at its start, besides its pages.
pub(super) fn meta_of(view: &View) -> Result<Arc<Meta>, CallError> {
    let meta = Meta::from_bytes(view.meta()).map_err(CallError::State)?;
    Ok(Arc::new(meta))
}

/// Whose worker is to be started, and for what.
pub(super) struct Beginning<'a> {
    pub(super) host: &'a Inner,
    /// The tenant's name.
    pub(super) name: &'a str,
    pub(super) module: &'a Arc<Module>,
    pub(super) duty: Duty,
    /// How long to wait for a place, if the host may have no more workers.
    pub(super) time: Duration,
}

impl Live {
    /// Starts a worker at the version of `view`.
    pub(super) fn start(beginning: &Beginning<'_>, view: &View) -> Result<Self, CallError> {
        Self::start_with(beginning, view, meta_of(view)?, None)
    }

    /// Starts a worker at the version of `view` or beyond it, with another
    /// state than the version's: for what isn't committed yet.
    pub(super) fn start_with(
        beginning: &Beginning<'_>,
        view: &View,
        meta: Arc<Meta>,
        carried: Option<&Carried>,
    ) -> Result<Self, CallError> {
        let &Beginning {
            host,
            name,
            module,
            duty,
            time,
        } = beginning;
        if duty == Duty::Serve
            && let Some(why) = host.quarantine.of(name)
        {
            return Err(CallError::Quarantined(Box::new(why)));
        }
        let artefact = module.artefact(host)?;
        let seat = host.pool.seat(time)?;
        let begin = Instant::now();
        let limits = &host.options.limits;
        let tracking = match artefact.settings.cards {
            true => Tracking::Cards,
            false => host.options.tracker.resolved(),
        };
        let plan = view.plan();
        let files = view.files().map_err(CallError::ImageFiles)?;
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
        let map_from = map_from(&runs);
        let copied: Written = runs
            .iter()
            .filter(|run| run.pages < map_from)
            .flat_map(|run| (0..run.pages).map(|i| (run.region, run.first_page + i)))
            .collect();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![artefact.file.as_fd()];
        descriptors.extend(files.iter().map(|(_, file)| file.as_fd()));
        descriptors.extend(carried.map(|carried| carried.file.as_fd()));
        let sizes = carried.map_or(memory::sizes(plan.sizes), |carried| carried.sizes);
        let assignment = Assignment::Tenant(TenantSetup {
            heap_limit: limits.heap,
            stable_limit: limits.stable,
            sizes,
            runs,
            map_from,
            tracking,
            reusable: artefact.made.reusable,
            budgeted: host.budget.is_some(),
            host_functions: host.functions.provided(),
        });
        let (mut worker, ready, tracked) = host.pool.start(duty, |blank, launcher| {
            Worker::start(Start {
                blank,
                launcher,
                supervisor: &host.supervisor,
                duty,
                lessons: None,
                required: host.options.require_grade,
                measures: &host.options.measures,
                tenant: Some(name),
                module: &module.hash,
                code: Some(&artefact),
                limits: worker_limits(limits, descriptors.len() as u64),
                assignment: &assignment,
                descriptors: &descriptors,
                open: Open {
                    fixed: &[],
                    directories: 0,
                },
                accepted: &host.options.accept_missing,
                tracked: tracking == Tracking::Kernel,
                meanwhile: &mut || {},
            })
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
            (Tracking::Cards, _) => Box::new(CardTracker::default()),
            (Tracking::Signal, _) => Box::new(SignalTracker),
            (Tracking::Kernel, None) | (Tracking::None, _) => {
                return Err(CallError::WorkerEnded(worker.malformed("no userfaultfd")));
            }
        };
        let copier = host.options.page_copy.copier(worker.pid());
        let copier = copier.map_err(CallError::PageCopy)?;
        worker.note_pages(tracker::name(tracking), copier);
        tracker.arm(&copied).map_err(CallError::Memory)?;
        Ok(Self {
            worker,
            memory,
            copier,
            tracker,
            idle: HashMap::new(),
            close: [Vec::new(), Vec::new()],
            module: module.clone(),
            artefact,
            generation: 0,
            version: view.version(),
            sizes: memory::sizes(view.sizes()),
            meta,
            request: Call::default(),
            seat,
            start_time: begin.elapsed(),
            idle_since: Duration::ZERO,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first_page: u64, pages: u64, file: u16, offset: u64) -> Run {
        Run {
            region: Region::Heap,
            first_page,
            pages,
            file,
            offset,
        }
    }

    #[test]
    fn no_more_runs_are_mapped_than_a_worker_may_have_mappings() {
        let of = |pages: u64, count: usize| vec![run(0, pages, 0, 0); count];
        assert_eq!(map_from(&[]), MAP_RUN_PAGES);
        assert_eq!(map_from(&of(15, 9_000)), MAP_RUN_PAGES);
        assert_eq!(map_from(&of(16, MAX_MAPPED_RUNS)), MAP_RUN_PAGES);
        assert_eq!(map_from(&of(16, MAX_MAPPED_RUNS + 1)), 17);
        let mixed = [of(20, 3_000), of(1, 100), of(400, 900), of(30, 500)].concat();
        assert_eq!(map_from(&mixed), 21, "900 and 500 are mapped");
        let mixed = [of(20, 3_000), of(400, 1_000)].concat();
        assert_eq!(map_from(&mixed), MAP_RUN_PAGES);
    }

    #[test]
    fn carried_pages_replace_those_below_them() {
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
