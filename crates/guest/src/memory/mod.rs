//! A tenant's memory: one mapping for the heap and one for the stable memory,
//! both made before the lock and kept until the worker ends.
//!
//! ```text
//! base                         size                       capacity   + guard
//! | image pages, zero pages ... | no access ............... | no access |
//! ```
//!
//! Pages below the size are readable from the start. Under the kernel's
//! tracking they are writable once their chunk of 512 KiB is entered
//! ([`chunks`]): the first write to a closed chunk faults, our handler
//! ([`fault`]) opens the chunk and tells the host. With [`cards`] they are
//! writable, and it is the cards that are entered. Under the signal tracker it
//! is single pages that are opened, until the next call (`pages.rs`). Pages beyond the size can't
//! be accessed at all, which is how compiled code finds the end of the memory.

pub mod allocator;
pub mod cards;
pub mod chunks;
pub mod fault;
pub mod linear;
pub mod map;
mod pages;
pub mod region;
mod scatter;
pub mod stable;
pub mod tracking;
mod transfer;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use lazaret_wire::message::{Prepare, Region as Kind, Sizes, TenantSetup, Tracking};
use lazaret_wire::{Shared, layout};
use rustix::io::Errno;
use thiserror::Error;

use crate::abort::{self, Reason};

pub use cards::Cards;
pub use linear::HeapCreator;
pub use region::{Lack, Region};
pub use stable::StableMemory;

/// Bytes in a page of WebAssembly, the unit of both memories' sizes.
pub const WASM_PAGE: u64 = 64 << 10;

/// Why a tenant's memory can't be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A size that no memory can have.
    #[error(
        "{kind:?}: {size} bytes: a memory's size is a multiple of 65536, at most its limit of {limit}"
    )]
    Size {
        /// Which memory.
        kind: Kind,
        /// The size asked for.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A limit beyond what chunks can be counted for.
    #[error("{kind:?}: a limit of {limit} bytes is more than the {max} that a worker can have; lower it", max = layout::MAX_MEMORY)]
    Limit {
        /// Which memory.
        kind: Kind,
        /// The limit asked for.
        limit: u64,
    },
    /// A run that doesn't fit.
    #[error(
        "run {index} ({pages} pages at page {first_page}, file {file} from byte {offset}): {reason}"
    )]
    Run {
        /// Which of the runs, from 0.
        index: usize,
        /// Its first page.
        first_page: u64,
        /// Its pages.
        pages: u64,
        /// Its file.
        file: u16,
        /// Its place in the file.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More mappings than a worker may have.
    #[error("the image has {runs} runs of {least} pages or more, over the limit of {most} mappings; compact it", most = layout::MAX_MAPPED_RUNS)]
    Runs {
        /// Runs that would be mapped.
        runs: usize,
        /// The pages of the shortest.
        least: u64,
    },
    /// The kernel refused a step.
    #[error("{step}: {source}")]
    System {
        /// The step.
        step: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

pub(crate) fn system(step: &'static str) -> impl Fn(Errno) -> MemoryError {
    move |errno| MemoryError::System {
        step,
        source: errno.into(),
    }
}

/// Both memories of the tenant.
#[derive(Debug)]
pub struct TenantMemory {
    heap: Arc<Region>,
    stable: StableMemory,
    cards: Option<[Cards; 2]>,
}

impl TenantMemory {
    /// Maps both memories as `setup` says, with the files of the image, and
    /// arms the tracker: if it is the kernel's, the userfaultfd comes back, for
    /// the host. `heap_cards` are the bytes that compiled code expects of the
    /// heap's cards.
    ///
    /// Writes to closed chunks are handled from here on. Wasmtime's own signal
    /// handlers must be installed before (by making an engine), as ours come
    /// first and pass on what they don't know.
    pub fn new(
        setup: &TenantSetup,
        heap_cards: u64,
        files: &[OwnedFd],
        shared: &'static Shared,
    ) -> Result<(Self, Option<OwnedFd>), MemoryError> {
        map::disable_huge_pages()?;
        let cards = match setup.tracking {
            Tracking::Cards => Some([
                Cards::new(Kind::Heap, heap_cards, shared)?,
                Cards::new(Kind::Stable, Cards::bytes_for(setup.stable_limit), shared)?,
            ]),
            Tracking::None | Tracking::Kernel | Tracking::Signal => None,
        };
        let by_page = setup.tracking == Tracking::Signal;
        let watch = |index: usize| {
            let cards = cards.as_ref().and_then(|cards| cards.get(index).cloned());
            (cards, by_page)
        };
        let (heap, stable) = (setup.heap_limit, setup.stable_limit);
        let sizes = setup.sizes;
        let heap = Region::reserve(Kind::Heap, heap, sizes.heap, watch(0), shared)?;
        let stable = Region::reserve(Kind::Stable, stable, sizes.stable, watch(1), shared)?;
        map::load([&heap, &stable], &setup.runs, setup.map_from, files)?;
        let tracker = match setup.tracking {
            Tracking::Kernel => Some(tracking::track([&heap, &stable])?),
            Tracking::None | Tracking::Cards | Tracking::Signal => None,
        };
        let (heap, stable) = (Arc::new(heap), Arc::new(stable));
        match &cards {
            Some([heap, stable]) => {
                fault::watch(heap.region())?;
                fault::watch(stable.region())?;
            }
            None => {
                fault::watch(&heap)?;
                fault::watch(&stable)?;
            }
        }
        Ok((
            Self {
                heap,
                stable: StableMemory::new(stable),
                cards,
            },
            tracker,
        ))
    }

    /// The cards of the heap and of the stable memory, if writes are tracked by
    /// them.
    pub fn cards(&self) -> Option<&[Cards; 2]> {
        self.cards.as_ref()
    }

    /// The heap.
    pub fn heap(&self) -> &Arc<Region> {
        &self.heap
    }

    /// The stable memory.
    pub fn stable(&self) -> &StableMemory {
        &self.stable
    }

    /// Bytes in each memory now.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            heap: self.heap.size(),
            stable: self.stable.region().size(),
        }
    }

    /// Makes room for the pages of another version, which the host will write.
    /// If the host has no memory for it, or the order makes no sense, the
    /// process ends: another can be started at that version.
    pub fn prepare(&self, prepare: &Prepare) {
        self.begin();
        let sizes = self.restore_sizes(prepare.from);
        if let Err(lack) = sizes.and_then(|()| self.restore_sizes(prepare.sizes)) {
            abort::now(Reason::OutOfMemory, &lack.to_string());
        }
        self.heap.open_all(&prepare.open_heap);
        self.stable.region().open_all(&prepare.open_stable);
    }

    /// Under the signal tracker, closes all pages and forgets which were
    /// written: before a call, and before the host writes another version.
    pub fn begin(&self) {
        self.heap.begin();
        self.stable.region().begin();
    }

    /// Gives the memories the sizes that they had at the version the next call
    /// starts from. What is beyond is dropped.
    ///
    /// # Errors
    /// If the host has no memory for a larger size. Sizes that no memory can
    /// have end the process: the host is confused.
    pub fn restore_sizes(&self, sizes: Sizes) -> Result<(), Lack> {
        self.heap.resize(sizes.heap)?;
        self.stable.region().resize(sizes.stable)
    }
}
