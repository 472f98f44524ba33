//! A file: what readers see, and what the disk may hold of it.

use super::Numbers;

/// What a disk writes at once or not at all.
const BLOCK: usize = 512;

#[derive(Clone)]
pub enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => {
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Change::Truncate(length) => bytes.resize(*length, 0),
        }
    }
}

#[derive(Clone, Default)]
pub struct Inode {
    /// What readers see: the page cache.
    pub cached: Vec<u8>,
    /// What the disk holds.
    pub durable: Vec<u8>,
    /// Changes in the cache that the disk may or may not hold yet.
    pub pending: Vec<Change>,
}

impl Inode {
    pub fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    /// What the disk will hold when all that is pending is written.
    pub fn written(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.pending
            .iter()
            .for_each(|change| change.apply(&mut bytes));
        bytes
    }

    /// Loses power: the file's size and each block are as they were after some number of the pending changes,
    /// each a different one.
    pub fn power_cut(&mut self, numbers: &mut Numbers) {
        let mut histories = vec![self.durable.clone()];
        for change in &self.pending {
            let mut next = histories.last().unwrap().clone();
            change.apply(&mut next);
            histories.push(next);
        }
        // One time in four nothing was written, one in four all.
        let mut pick: Box<dyn FnMut() -> usize> = match numbers.below(4) {
            0 => Box::new(|| 0),
            1 => Box::new(|| histories.len() - 1),
            _ => Box::new(|| numbers.below(histories.len())),
        };
        let size = histories[pick()].len();
        let mut bytes = vec![0; size];
        for (position, block) in bytes.chunks_mut(BLOCK).enumerate() {
            let old = histories[pick()]
                .get(position * BLOCK..)
                .unwrap_or_default();
            let length = old.len().min(block.len());
            block[..length].copy_from_slice(&old[..length]);
        }
        drop(pick);
        *self = Inode {
            cached: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        };
    }
}
