//! The files that pages are read from, and where in them the checksums are.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::format::{PAGE_ENTRY, SEGMENT_FIXED};
use crate::page::FileId;

/// A file that pages are read from.
pub(crate) struct SourceFile<F> {
    pub(crate) file: FileId,
    /// For messages.
    pub(crate) path: PathBuf,
    /// Opened read-only: it may be handed to a worker.
    pub(crate) handle: F,
    /// Where page data is in it, ascending; to find the checksum of the page at an offset. The active log's grows
    /// while views read: what is in it never changes, so they find what they found before.
    blocks: RwLock<Vec<Block>>,
}

/// Consecutive page data in a file, and the table with its checksums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Offset of the first page.
    pub(crate) data: u64,
    /// Offset of the first page's checksum.
    pub(crate) checksums: u64,
    /// Bytes from one checksum to the next.
    pub(crate) stride: u64,
}

impl Block {
    /// The data of the segment at `segment`, which begins at `data`.
    pub(crate) fn in_segment(segment: u64, data: u64) -> Block {
        Block {
            data,
            checksums: segment + SEGMENT_FIXED as u64 + 8,
            stride: PAGE_ENTRY as u64,
        }
    }
}

impl<F> SourceFile<F> {
    pub(crate) fn new(file: FileId, path: PathBuf, handle: F, blocks: Vec<Block>) -> Self {
        SourceFile {
            file,
            path,
            handle,
            blocks: RwLock::new(blocks),
        }
    }

    /// Adds a block behind all others.
    pub(crate) fn push(&self, block: Block) {
        self.blocks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(block);
    }

    /// The block that the page data at `offset` is in.
    pub(crate) fn block(&self, offset: u64) -> Option<Block> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let behind = blocks.partition_point(|block| block.data <= offset);
        blocks.get(behind.checked_sub(1)?).copied()
    }
}

/// The files of a version by slot, which is how the index refers to them. A slot whose file is gone is used again:
/// an index and its files belong together.
pub(crate) struct Files<F> {
    slots: Vec<Option<Arc<SourceFile<F>>>>,
}

impl<F> Default for Files<F> {
    fn default() -> Self {
        Files { slots: Vec::new() }
    }
}

impl<F> Clone for Files<F> {
    fn clone(&self) -> Self {
        Files {
            slots: self.slots.clone(),
        }
    }
}

impl<F> Files<F> {
    pub(crate) fn get(&self, slot: usize) -> Option<&Arc<SourceFile<F>>> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<SourceFile<F>>> {
        self.slots.iter().flatten()
    }

    /// Puts a file into a free slot.
    pub(crate) fn insert(&mut self, file: SourceFile<F>) -> usize {
        let slot = self.free();
        let file = Some(Arc::new(file));
        match self.slots.get_mut(slot) {
            Some(free) => *free = file,
            None => self.slots.push(file),
        }
        slot
    }

    /// The slot of the file with this number.
    pub(crate) fn slot_of(&self, file: FileId) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|source| source.file == file))
    }

    /// Frees the slot of a file.
    pub(crate) fn remove(&mut self, file: FileId) {
        let slot = self.slot_of(file).and_then(|slot| self.slots.get_mut(slot));
        if let Some(slot) = slot {
            *slot = None;
        }
    }

    /// The slot that the next [`insert`](Files::insert) takes.
    pub(crate) fn free(&self) -> usize {
        self.slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len())
    }
}
