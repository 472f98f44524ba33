//! [`StateHasher`]: the state's hash, from the pages that changed since the last one.

use std::cell::Cell;
use std::fmt;

use crate::commit::page_aligned;
use crate::error::ReadError;
use crate::node_hash::{Hash, hash_pages, hash_state, zero};
use crate::page::{FileId, PAGE_SIZE, PageId, Region, Sizes, Version};
use crate::read::Verify;
use crate::reader::Reader;
use crate::stale::{StalePages, Token};
use crate::storage::ReadAt;
use crate::tree::PageTree;
use crate::view::View;

/// Pages that are read and hashed together: 256 KiB, which stay in the processor's L2 cache between the two.
const BATCH: usize = 64;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The roots over the pages of a version.
///
/// They depend on the pages' contents and the sizes alone: not on how the state came about or how the image stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRoots {
    /// The sizes of the regions.
    pub sizes: Sizes,
    /// The root over the heap, a blake3 hash.
    pub heap: [u8; 32],
    /// The root over stable memory.
    pub stable: [u8; 32],
}

impl StateRoots {
    /// The hash of the whole state: sizes, roots, and `rest`, which is what else belongs to the state.
    pub fn state_hash(&self, rest: &[u8]) -> [u8; 32] {
        hash_state(self.sizes, &self.heap, &self.stable, rest)
    }
}

/// A version and its roots.
pub struct Hashed<F: ReadAt> {
    /// The version.
    pub view: View<F>,
    /// Its roots.
    pub roots: StateRoots,
    /// Pages that were read and hashed for it.
    pub pages: u64,
}

/// Keeps the hashes of an image's pages, so that the next hash costs only the pages that changed.
///
/// The hash is a Merkle tree a region, specified in `docs/format.md`. It takes 43 bytes of memory for each page in a
/// block of 64 that isn't all zeros: 11 MiB for 1 GiB. An image tells one hasher at a time what changed;
/// another that asks between has to hash everything, as does a new one.
#[derive(Default)]
pub struct StateHasher {
    pub(crate) heap: PageTree,
    pub(crate) stable: PageTree,
    /// What the trees are up to.
    pub(crate) at: Option<HashedAt>,
    /// Pages that the trees don't know although the image no longer says so.
    pub(crate) behind: StalePages,
}

/// A version that trees are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashedAt {
    pub(crate) token: Token,
    pub(crate) version: Version,
    /// The active log and how long it was.
    pub(crate) log: (FileId, u64),
    pub(crate) roots: StateRoots,
}

impl fmt::Debug for StateHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateHasher")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl StateHasher {
    /// One that knows nothing. [`Image::state_hasher`](crate::Image::state_hasher) may know the hashes already.
    pub fn new() -> StateHasher {
        StateHasher::default()
    }

    /// The version that it was last brought to, by hashing or from a file.
    pub fn version(&self) -> Option<Version> {
        self.at.map(|at| at.version)
    }

    /// Hashes the newest version.
    ///
    /// # Errors
    ///
    /// If a page is damaged, which only [`Verify::Yes`] finds out, or can't be read. The next call begins anew.
    pub fn update<F: ReadAt>(
        &mut self,
        reader: &Reader<F>,
        verify: Verify,
    ) -> Result<Hashed<F>, ReadError> {
        let last = self.at.take().map(|at| at.token);
        let (view, token, stale) = reader.shared.take_stale(last);
        let mut behind = std::mem::take(&mut self.behind);
        let pages = match stale {
            Some(stale) => {
                behind.union(stale);
                self.hash(&view, behind.iter(), verify)?
            }
            None => {
                (self.heap, self.stable) = Default::default();
                self.hash(&view, view.pages(), verify)?
            }
        };
        let roots = StateRoots {
            sizes: view.sizes(),
            heap: self.heap.root(view.sizes().pages(Region::Heap)),
            stable: self.stable.root(view.sizes().pages(Region::Stable)),
        };
        self.at = Some(HashedAt {
            token,
            version: view.version,
            log: view.log,
            roots,
        });
        Ok(Hashed { view, roots, pages })
    }

    pub(crate) fn tree(&mut self, region: Region) -> &mut PageTree {
        match region {
            Region::Heap => &mut self.heap,
            Region::Stable => &mut self.stable,
        }
    }

    /// Sets the hashes of pages, which are in ascending order. Returns how many were read.
    fn hash<F: ReadAt>(
        &mut self,
        view: &View<F>,
        pages: impl Iterator<Item = PageId>,
        verify: Verify,
    ) -> Result<u64, ReadError> {
        let mut buffer = BUFFER.take();
        let outcome = self.hash_with(&mut buffer, view, pages, verify);
        BUFFER.set(buffer);
        outcome
    }

    fn hash_with<F: ReadAt>(
        &mut self,
        buffer: &mut Vec<u8>,
        view: &View<F>,
        mut pages: impl Iterator<Item = PageId>,
        verify: Verify,
    ) -> Result<u64, ReadError> {
        let (mut ids, mut hashes) = (Vec::with_capacity(BATCH), [Hash::default(); BATCH]);
        let (nothing, mut read) = (zero(0), 0);
        loop {
            ids.clear();
            while ids.len() < BATCH
                && let Some(page) = pages.next()
            {
                // Pages that aren't stored are zeros, and those beyond the sizes aren't stored.
                match view.index.get(page) {
                    Some(_) => ids.push(page),
                    None => self.tree(page.region()).set(page.page(), &nothing),
                }
            }
            if ids.is_empty() {
                return Ok(read);
            }
            // Aligned: where every load of a vector reaches into two lines of the cache, pages take a sixth longer.
            let bytes = page_aligned(buffer, ids.len() * PAGE_SIZE);
            view.read_pages(&ids, bytes, verify)?;
            let mut contents = [&[0; PAGE_SIZE]; BATCH];
            for (place, page) in contents.iter_mut().zip(bytes.as_chunks().0) {
                *place = page;
            }
            let contents = contents.get(..ids.len()).unwrap_or(&contents);
            hash_pages(contents, |position, hash| {
                if let Some(place) = hashes.get_mut(position) {
                    *place = hash;
                }
            });
            for (page, hash) in ids.iter().zip(&hashes) {
                self.tree(page.region()).set(page.page(), hash);
            }
            read += ids.len() as u64;
        }
    }
}
