//! The page hashes beside the image, so that a restart needn't hash the whole state.

use std::io;

use crate::checksum::{CHECKSUM_SIZE, header_checksum};
use crate::decode::DecodeError;
use crate::error::{Action, FileError, SyncError};
use crate::format::{TREE, TREE_MAGIC, TREE_NEW};
use crate::image::Image;
use crate::input::Input;
use crate::node_hash::{HASH_SIZE, zero};
use crate::page::{FileId, PAGE_BYTES, PageId, Region, TenantId, Version};
use crate::stale::StalePages;
use crate::state_hasher::{HashedAt, StateHasher, StateRoots};
use crate::storage::{ReadAt, Storage};
use crate::tree::BLOCK;

/// The version of the file's format. The state hash's own version is in the contexts of its keys: hashes of another
/// version don't have the roots that they should.
const TREE_VERSION: u32 = 1;
const HEADER: usize = 192;
/// A page address and 64 hashes.
const ENTRY: usize = 8 + BLOCK as usize * HASH_SIZE;
/// Entries that are read or written together.
const BATCH: u64 = 256;

/// The header of the file.
struct Header {
    tenant: TenantId,
    version: Version,
    /// The active log, its seed, and how much of it belongs to the version.
    log: (FileId, [u8; 16], u64),
    roots: StateRoots,
    blocks: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(TREE_MAGIC);
        bytes.extend(TREE_VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.tenant.0);
        bytes.extend(self.version.0.to_le_bytes());
        let (file, seed, end) = self.log;
        bytes.extend(file.0.to_le_bytes());
        bytes.extend(seed);
        bytes.extend(end.to_le_bytes());
        bytes.extend(self.roots.sizes.heap.to_le_bytes());
        bytes.extend(self.roots.sizes.stable.to_le_bytes());
        bytes.extend(self.blocks.to_le_bytes());
        bytes.extend(self.roots.heap);
        bytes.extend(self.roots.stable);
        bytes.resize(HEADER - CHECKSUM_SIZE, 0);
        bytes.extend(header_checksum(&bytes));
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Result<Header, DecodeError> {
        let (mut input, _) = Input::open(bytes, TREE_MAGIC, TREE_VERSION, HEADER)?;
        input.flags()?;
        let tenant = TenantId(input.array()?);
        let version = Version(input.u64()?);
        let log = (FileId(input.u64()?), input.array()?, input.u64()?);
        let sizes = input.sizes()?;
        let blocks = input.u64()?;
        let roots = StateRoots {
            sizes,
            heap: input.array()?,
            stable: input.array()?,
        };
        input.zeros::<16>()?;
        let (checked, checksum) = bytes.split_at(HEADER - CHECKSUM_SIZE);
        if header_checksum(checked) != *checksum {
            return Err(DecodeError::Checksum);
        }
        Ok(Header {
            tenant,
            version,
            log,
            roots,
            blocks,
        })
    }
}

impl<S: Storage> Image<S> {
    /// A hasher that knows what [`save_hashes`](Image::save_hashes) wrote: it needs to hash only what was committed
    /// since. If there is no such file, or it is damaged or too old, the hasher knows nothing.
    pub fn state_hasher(&self) -> StateHasher {
        self.load_hashes().unwrap_or_default()
    }

    /// Writes what `hasher` knows beside the image, 32 bytes a page. All commits are on disk then, and the manifest says so
    /// ([`checkpoint`](Image::checkpoint)).
    ///
    /// Returns false, and writes nothing, if the hasher doesn't belong to this image or isn't the last that
    /// hashed it, or if a fold or seal began since its last hash: hash again then.
    ///
    /// # Errors
    ///
    /// If the operating system refuses. The hashes that were saved before are still there then, or none.
    pub fn save_hashes(&mut self, hasher: &StateHasher) -> Result<bool, SyncError> {
        let Some(at) = hasher.at else {
            return Ok(false);
        };
        if !self.shared.is_last(at.token) || at.log.0 != self.manifest.log.file {
            return Ok(false);
        }
        // Nothing below the log's length is ever cut then and written anew: that the file's hashes are of what
        // is there relies on it.
        self.checkpoint()?;
        let header = Header {
            tenant: self.manifest.tenant,
            version: at.version,
            log: (at.log.0, self.manifest.log.seed, at.log.1),
            roots: at.roots,
            blocks: hasher.heap.leaf_blocks() + hasher.stable.leaf_blocks(),
        };
        self.write_hashes(&header, hasher)?;
        Ok(true)
    }

    fn write_hashes(&self, header: &Header, hasher: &StateHasher) -> Result<(), FileError> {
        let fail = |action, offset| {
            move |source| FileError::new(&*self.storage, action, TREE_NEW, offset, source)
        };
        match self.storage.unlink(TREE_NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail(Action::Remove, 0)(error));
            }
            _ => {}
        }
        let file = self
            .storage
            .create(TREE_NEW)
            .map_err(fail(Action::Create, 0))?;
        let heap = hasher.heap.leaves().map(|block| (Region::Heap, block));
        let stable = hasher.stable.leaves().map(|block| (Region::Stable, block));
        let (mut bytes, mut offset) = (header.encode(), 0);
        for (region, (page, hashes)) in heap.chain(stable) {
            let address = PageId::new(region, page).map_or(u64::MAX, PageId::bits);
            bytes.extend(address.to_le_bytes());
            bytes.extend(hashes.as_flattened());
            if bytes.len() >= BATCH as usize * ENTRY {
                self.storage
                    .pwrite(&file, &bytes, offset)
                    .map_err(fail(Action::Write, offset))?;
                offset += bytes.len() as u64;
                bytes.clear();
            }
        }
        self.storage
            .pwrite(&file, &bytes, offset)
            .map_err(fail(Action::Write, offset))?;
        self.storage.fsync(&file).map_err(fail(Action::Sync, 0))?;
        self.storage
            .rename(TREE_NEW, TREE)
            .map_err(fail(Action::Rename, 0))
    }

    /// `None` if the file isn't there, isn't whole, or isn't of this log.
    fn load_hashes(&self) -> Option<StateHasher> {
        let file = self.storage.open_read(TREE).ok()?;
        let length = self.storage.len(&file).ok()?;
        let mut bytes = [0; HEADER];
        file.pread(&mut bytes, 0).ok()?;
        let header = Header::decode(&bytes).ok()?;
        let (log, seed, end) = header.log;
        let ours = header.tenant == self.manifest.tenant
            && (log, seed) == (self.manifest.log.file, self.manifest.log.seed)
            && end <= self.log.end
            && (self.manifest.version..=self.version).contains(&header.version);
        let expected = header.blocks.checked_mul(ENTRY as u64)?;
        if !ours || length != expected.checked_add(HEADER as u64)? {
            return None;
        }
        let mut hasher = read_blocks(&file, &header)?;
        let roots = StateRoots {
            sizes: header.roots.sizes,
            heap: hasher.heap.root(header.roots.sizes.pages(Region::Heap)),
            stable: hasher.stable.root(header.roots.sizes.pages(Region::Stable)),
        };
        // Every hash goes into the roots, so this is a checksum of all of them.
        if roots != header.roots {
            return None;
        }
        // No commit comes in between: that takes the image for itself.
        let (_, token, _) = self.shared.take_stale(None);
        hasher.behind = self.written_since(&hasher, end);
        hasher.at = Some(HashedAt {
            token,
            version: header.version,
            log: (log, end),
            roots,
        });
        Some(hasher)
    }

    /// The pages that differ from the version that `hasher` is of, at which the active log ended at `end`: those
    /// stored behind, and those that aren't stored any more.
    fn written_since(&self, hasher: &StateHasher, end: u64) -> StalePages {
        let index = self.view().index;
        let mut stale = StalePages::default();
        stale.add(index.iter().filter_map(|(page, location)| {
            let behind =
                location.slot() == self.log.slot && location.page_offset() >= end / PAGE_BYTES;
            behind.then_some(page)
        }));
        let nothing = zero(0);
        for (region, tree) in [
            (Region::Heap, &hasher.heap),
            (Region::Stable, &hasher.stable),
        ] {
            let hashed = tree.leaves().flat_map(|(first, hashes)| {
                let pages = (first..).zip(hashes);
                pages.filter(|(_, hash)| **hash != nothing)
            });
            let ids = hashed.filter_map(|(page, _)| PageId::new(region, page));
            stale.add(ids.filter(|page| index.get(*page).is_none()));
        }
        stale
    }
}

/// The leaves, whose roots are still to be compared.
fn read_blocks<F: ReadAt>(file: &F, header: &Header) -> Option<StateHasher> {
    let mut hasher = StateHasher::new();
    let (mut left, mut offset) = (header.blocks, HEADER as u64);
    let (mut bytes, mut last) = (Vec::new(), None);
    while left > 0 {
        let entries = left.min(BATCH);
        bytes.resize(entries as usize * ENTRY, 0);
        file.pread(&mut bytes, offset).ok()?;
        for entry in bytes.chunks_exact(ENTRY) {
            let (address, hashes) = entry.split_first_chunk::<8>()?;
            let first = PageId::from_bits(u64::from_le_bytes(*address))?;
            let inside = header.roots.sizes.contain(first) && first.page() % BLOCK == 0;
            if !inside || last.is_some_and(|last| last >= first) {
                return None;
            }
            last = Some(first);
            let tree = hasher.tree(first.region());
            for (page, hash) in (first.page()..).zip(hashes.as_chunks().0) {
                tree.set(page, hash);
            }
        }
        left -= entries;
        offset += bytes.len() as u64;
    }
    Some(hasher)
}
