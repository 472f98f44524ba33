//! Subtrees.

use std::iter::Peekable;
use std::sync::Arc;

use super::leaf::Leaf;
use super::{FAN, Piece, SHIFT, child_of, span};
use crate::index::Location;

/// A subtree of level n, over 64^n pages: the level is known from where it is.
#[derive(Clone, Debug, Default)]
pub(super) enum Slot {
    /// No page is stored.
    #[default]
    Empty,
    /// All are, one behind the other from here on.
    Run(Location),
    /// At level 1.
    Leaf(Arc<Leaf>),
    /// Above.
    Node(Arc<Node>),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) pages: u64,
    /// Pieces that begin here, seen by itself.
    pub(super) pieces: usize,
    pub(super) children: [Slot; FAN],
}

impl Node {
    const EMPTY: Node = Node {
        pages: 0,
        pieces: 0,
        children: [const { Slot::Empty }; FAN],
    };

    /// Of this level.
    fn run(first: Location, level: u32) -> Node {
        Node {
            pages: span(level),
            pieces: 1,
            children: std::array::from_fn(|child| {
                Slot::Run(first.advanced(child as u64 * span(level - 1)))
            }),
        }
    }

    /// How many pieces begin in a child that don't continue one of the child before. Children are of the level `below`.
    fn begin(&self, child: usize, below: u32) -> usize {
        let Some(slot) = self.children.get(child) else {
            return 0;
        };
        let before = child
            .checked_sub(1)
            .and_then(|child| self.children.get(child));
        let joined = match (slot.first(), before) {
            (Some(first), Some(before)) => {
                before.last(below).is_some_and(|last| last.precedes(first))
            }
            _ => false,
        };
        slot.pieces() - usize::from(joined)
    }

    /// Changes a child of this node of level `level`.
    pub(super) fn change(&mut self, child: usize, level: u32, change: impl FnOnce(&mut Slot)) {
        let below = level - 1;
        let begin = |node: &Node| node.begin(child, below) + node.begin(child + 1, below);
        let before = begin(self);
        let slot = &mut self.children[child % FAN];
        let pages = slot.pages(below);
        change(slot);
        self.pages = self.pages + slot.pages(below) - pages;
        self.pieces = self.pieces + begin(self) - before;
    }
}

impl Slot {
    fn of_leaf(leaf: Arc<Leaf>) -> Slot {
        match (leaf.present, leaf.pieces) {
            (0, _) => Slot::Empty,
            (u64::MAX, 1) => Slot::Run(leaf.locations[0]),
            _ => Slot::Leaf(leaf),
        }
    }

    fn of_node(node: Arc<Node>, level: u32) -> Slot {
        match (node.pages, node.pieces, node.children[0].first()) {
            (0, ..) => Slot::Empty,
            (pages, 1, Some(first)) if pages == span(level) => Slot::Run(first),
            _ => Slot::Node(node),
        }
    }

    pub(super) fn pages(&self, level: u32) -> u64 {
        match self {
            Slot::Empty => 0,
            Slot::Run(_) => span(level),
            Slot::Leaf(leaf) => leaf.present.count_ones().into(),
            Slot::Node(node) => node.pages,
        }
    }

    pub(super) fn pieces(&self) -> usize {
        match self {
            Slot::Empty => 0,
            Slot::Run(_) => 1,
            Slot::Leaf(leaf) => leaf.pieces,
            Slot::Node(node) => node.pieces,
        }
    }

    /// Where the first page is.
    pub(super) fn first(&self) -> Option<Location> {
        match self {
            Slot::Empty => None,
            Slot::Run(first) => Some(*first),
            Slot::Leaf(leaf) => leaf.get(0),
            Slot::Node(node) => node.children[0].first(),
        }
    }

    /// Where the last page is.
    pub(super) fn last(&self, level: u32) -> Option<Location> {
        match self {
            Slot::Empty => None,
            Slot::Run(first) => Some(first.advanced(span(level) - 1)),
            Slot::Leaf(leaf) => leaf.get(FAN - 1),
            Slot::Node(node) => node.children[FAN - 1].last(level - 1),
        }
    }

    /// A child of this slot of level `level`, which is put into `made` if it has no place of its own.
    pub(super) fn child<'a>(&'a self, child: usize, level: u32, made: &'a mut Slot) -> &'a Slot {
        *made = match self {
            Slot::Node(node) => return &node.children[child % FAN],
            Slot::Run(first) => Slot::Run(first.advanced(child as u64 * span(level - 1))),
            Slot::Leaf(_) | Slot::Empty => Slot::Empty,
        };
        made
    }

    /// Changes the leaf at this place.
    pub(super) fn in_leaf(&mut self, change: impl FnOnce(&mut Leaf)) {
        let mut leaf = match std::mem::take(self) {
            Slot::Leaf(leaf) => leaf,
            Slot::Run(first) => Arc::new(Leaf::run(first)),
            Slot::Empty | Slot::Node(_) => Arc::new(Leaf::EMPTY),
        };
        change(Arc::make_mut(&mut leaf));
        *self = Slot::of_leaf(leaf);
    }

    /// Changes the node at this place.
    pub(super) fn in_node(&mut self, level: u32, change: impl FnOnce(&mut Node)) {
        let mut node = match std::mem::take(self) {
            Slot::Node(node) => node,
            Slot::Run(first) => Arc::new(Node::run(first, level)),
            Slot::Empty | Slot::Leaf(_) => Arc::new(Node::EMPTY),
        };
        change(Arc::make_mut(&mut node));
        *self = Slot::of_node(node, level);
    }

    /// Takes the changes in this slot, the `number`th of its level, as long as there are any.
    pub(super) fn apply<I>(&mut self, level: u32, number: u64, changes: &mut Peekable<I>)
    where
        I: Iterator<Item = (u64, Option<Location>)>,
    {
        if level == 1 {
            return self.in_leaf(|leaf| {
                while let Some((page, location)) =
                    changes.next_if(|(page, _)| page >> SHIFT == number)
                {
                    leaf.set(page as usize % FAN, location);
                }
            });
        }
        self.in_node(level, |node| {
            while let Some((page, _)) = changes.peek()
                && page >> (SHIFT * level) == number
            {
                let below = page >> (SHIFT * (level - 1));
                let child = child_of(*page, level);
                node.change(child, level, |slot| slot.apply(level - 1, below, changes));
            }
        });
    }

    /// Puts what of `piece` lies in this slot, which begins at the page `begin` and isn't disjoint from it.
    pub(super) fn fill(&mut self, level: u32, begin: u64, piece: &Piece) {
        let last = piece.first + (piece.pages - 1);
        if piece.first <= begin && last - begin >= span(level) - 1 {
            *self = Slot::Run(piece.location.advanced(begin - piece.first));
            return;
        }
        let first = piece.first.max(begin);
        let last = last.min(begin + (span(level) - 1));
        if level == 1 {
            return self.in_leaf(|leaf| {
                for page in first..=last {
                    let location = piece.location.advanced(page - piece.first);
                    leaf.set(page as usize % FAN, Some(location));
                }
            });
        }
        self.in_node(level, |node| {
            for child in child_of(first, level)..=child_of(last, level) {
                let begin = begin + child as u64 * span(level - 1);
                node.change(child, level, |slot| slot.fill(level - 1, begin, piece));
            }
        });
    }

    /// Forgets the pages from `from` on, which is in this slot or before it. The slot begins at `begin`.
    pub(super) fn cut(&mut self, level: u32, begin: u64, from: u64) {
        if from <= begin {
            *self = Slot::Empty;
        } else if level == 1 {
            self.in_leaf(|leaf| {
                for position in (from - begin) as usize..FAN {
                    leaf.set(position, None);
                }
            });
        } else {
            self.in_node(level, |node| {
                for child in child_of(from, level)..FAN {
                    let begin = begin + child as u64 * span(level - 1);
                    node.change(child, level, |slot| slot.cut(level - 1, begin, from));
                }
            });
        }
    }

    /// Gives `each` the pages that aren't where they were in `old`, and where they are now, ascending.
    pub(super) fn differences(
        &self,
        old: &Slot,
        level: u32,
        begin: u64,
        each: &mut impl FnMut(u64, Option<Location>),
    ) {
        let same = match (self, old) {
            (Slot::Empty, Slot::Empty) => true,
            (Slot::Run(new), Slot::Run(old)) => new == old,
            (Slot::Leaf(new), Slot::Leaf(old)) => Arc::ptr_eq(new, old),
            (Slot::Node(new), Slot::Node(old)) => Arc::ptr_eq(new, old),
            _ => false,
        };
        if same {
            return;
        }
        for child in 0..FAN {
            let first = begin + child as u64 * span(level - 1);
            if level == 1 {
                let new = self.at(child);
                if new != old.at(child) {
                    each(first, new);
                }
            } else {
                let (mut ours, mut theirs) = (Slot::Empty, Slot::Empty);
                let new = self.child(child, level, &mut ours);
                let old = old.child(child, level, &mut theirs);
                new.differences(old, level - 1, first, each);
            }
        }
    }

    /// Where a page of this slot of level 1 is.
    pub(super) fn at(&self, position: usize) -> Option<Location> {
        match self {
            Slot::Run(first) => Some(first.advanced(position as u64)),
            Slot::Leaf(leaf) => leaf.get(position),
            Slot::Empty | Slot::Node(_) => None,
        }
    }
}
