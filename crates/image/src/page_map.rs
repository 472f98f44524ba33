//! [`PageMap`]: where each page of a region is.
//!
//! A radix tree, sixty-four ways at each level. A subtree whose pages all follow each other in one file is one word, so a
//! base takes the room and the time of its runs and not of its pages; nodes are shared between clones until one of
//! them changes.

mod leaf;
mod pieces;
mod slot;

use std::iter::Peekable;

use pieces::Pieces;
use slot::Slot;

use crate::index::Location;
use crate::page::MAX_PAGES;

/// Children of a node, and pages of a leaf. 64 lets one word say which are present, and bounds what a tenant that touches
/// pages far apart can make us spend on each: a leaf (528 bytes), and a node (1 KiB) for each 16 MiB it comes to.
const FAN: usize = 64;
const SHIFT: u32 = FAN.trailing_zeros();
/// The level of a root over [`MAX_PAGES`].
const MAX_LEVEL: u32 = MAX_PAGES.trailing_zeros() / SHIFT;
const _: () = assert!(MAX_PAGES == 1 << (MAX_LEVEL * SHIFT));

/// Consecutive pages, by number, that are consecutive in one file too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) first: u64,
    pub(crate) pages: u64,
    pub(crate) location: Location,
}

/// The pages of a region that are stored. A clone shares everything.
#[derive(Clone, Debug)]
pub(crate) struct PageMap {
    root: Slot,
    /// The root is over 64^level pages; it grows with the highest page that was ever put.
    level: u32,
}

impl Default for PageMap {
    fn default() -> Self {
        PageMap {
            root: Slot::Empty,
            level: 1,
        }
    }
}

/// Pages below a slot of this level.
fn span(level: u32) -> u64 {
    1 << (SHIFT * level)
}

/// Which child of a node of this level `page` is below.
fn child_of(page: u64, level: u32) -> usize {
    (page >> (SHIFT * (level - 1))) as usize % FAN
}

impl PageMap {
    /// Where `page` is.
    pub(crate) fn get(&self, page: u64) -> Option<Location> {
        let mut level = self.level;
        if page >= span(level) {
            return None;
        }
        let mut slot = &self.root;
        loop {
            match slot {
                Slot::Empty => return None,
                Slot::Run(first) => return Some(first.advanced(page % span(level))),
                Slot::Leaf(leaf) => return leaf.get(page as usize % FAN),
                Slot::Node(node) => {
                    slot = &node.children[child_of(page, level)];
                    level -= 1;
                }
            }
        }
    }

    /// How many pages are stored.
    pub(crate) fn pages(&self) -> u64 {
        self.root.pages(self.level)
    }

    /// How many there are of [`pieces`](PageMap::pieces), if those that continue each other are taken for one.
    pub(crate) fn piece_count(&self) -> usize {
        self.root.pieces()
    }

    /// Puts pages, which are below [`MAX_PAGES`], at their places; `None` forgets a page. In ascending order it is
    /// fastest.
    pub(crate) fn apply(
        &mut self,
        changes: &mut Peekable<impl Iterator<Item = (u64, Option<Location>)>>,
    ) {
        while let Some((page, _)) = changes.peek() {
            self.grow(*page);
            self.root.apply(self.level, 0, changes);
        }
    }

    /// Puts consecutive pages, all below [`MAX_PAGES`], at consecutive places.
    pub(crate) fn put(&mut self, piece: &Piece) {
        if let Some(last) = piece.pages.checked_sub(1) {
            self.grow(piece.first + last);
            self.root.fill(self.level, 0, piece);
        }
    }

    /// Forgets the pages from `from` on.
    pub(crate) fn cut(&mut self, from: u64) {
        if from < span(self.level) {
            self.root.cut(self.level, 0, from);
        }
    }

    /// Makes the root reach over `page`.
    fn grow(&mut self, page: u64) {
        while page >= span(self.level) && self.level < MAX_LEVEL {
            self.level += 1;
            let below = std::mem::take(&mut self.root);
            if !matches!(below, Slot::Empty) {
                let level = self.level;
                self.root
                    .in_node(level, |node| node.change(0, level, |slot| *slot = below));
            }
        }
    }

    /// Gives `each` the pages that aren't where they were in `before`, and where they are now, ascending. What the
    /// two share costs next to nothing.
    pub(crate) fn differences(
        &self,
        before: &PageMap,
        each: &mut impl FnMut(u64, Option<Location>),
    ) {
        let (mut now, mut before) = (self.clone(), before.clone());
        let level = now.level.max(before.level);
        now.grow(span(level) - 1);
        before.grow(span(level) - 1);
        now.root.differences(&before.root, level, 0, each);
    }

    /// The pages from `from` on in pieces, ascending. A piece may continue the one before.
    pub(crate) fn pieces(&self, from: u64) -> Pieces<'_> {
        let mut pieces = Pieces {
            from,
            nodes: Vec::new(),
            leaf: None,
            run: None,
        };
        if from < span(self.level) {
            pieces.enter(&self.root, self.level, 0);
        }
        pieces
    }
}
