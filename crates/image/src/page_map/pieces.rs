//! Going through a map.

use super::leaf::Leaf;
use super::slot::{Node, Slot};
use super::{FAN, Piece, span};

/// See [`PageMap::pieces`](super::PageMap::pieces).
pub(crate) struct Pieces<'a> {
    pub(super) from: u64,
    /// From the root down: a node, its level, its first page, the next child.
    pub(super) nodes: Vec<(&'a Node, u32, u64, usize)>,
    /// A leaf, its first page, and which of its pages are left.
    pub(super) leaf: Option<(&'a Leaf, u64, u64)>,
    pub(super) run: Option<Piece>,
}

impl<'a> Pieces<'a> {
    /// Begins with a slot, which reaches behind `from`.
    pub(super) fn enter(&mut self, slot: &'a Slot, level: u32, begin: u64) {
        let skipped = self.from.saturating_sub(begin);
        match slot {
            Slot::Empty => {}
            Slot::Run(first) => {
                self.run = Some(Piece {
                    first: begin + skipped,
                    pages: span(level) - skipped,
                    location: first.advanced(skipped),
                })
            }
            Slot::Leaf(leaf) => {
                self.leaf = Some((leaf, begin, leaf.present & (u64::MAX << skipped)))
            }
            Slot::Node(node) => {
                let child = (skipped / span(level - 1)) as usize;
                self.nodes.push((node, level, begin, child));
            }
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(run) = self.run.take() {
                return Some(run);
            }
            if let Some((leaf, begin, left)) = &mut self.leaf
                && let Some(location) = leaf
                    .get(left.trailing_zeros() as usize)
                    .filter(|_| *left != 0)
            {
                let position = left.trailing_zeros() as usize;
                let mut pages = 1;
                *left &= *left - 1;
                while position + pages < FAN
                    && *left & (1 << (position + pages)) != 0
                    && !leaf.begins(position + pages)
                {
                    *left &= *left - 1;
                    pages += 1;
                }
                return Some(Piece {
                    first: *begin + position as u64,
                    pages: pages as u64,
                    location,
                });
            }
            self.leaf = None;
            let (node, level, begin, child) = self.nodes.last_mut()?;
            let Some(slot) = node.children.get(*child) else {
                self.nodes.pop();
                continue;
            };
            let (level, begin) = (*level - 1, *begin + *child as u64 * span(*level - 1));
            *child += 1;
            self.enter(slot, level, begin);
        }
    }
}
