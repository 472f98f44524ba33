//! [`PageTree`]: the hashes of a region's pages, and of everything above them.

use crate::node_hash::{Hash, MAX_TIERS, zero};
use crate::tree_tier::{Changed, Tier};

/// Children of a block.
pub(crate) const BLOCK: u64 = 64;
const BLOCK_SHIFT: u32 = BLOCK.trailing_zeros();

/// The tree over a region: fan-out 64, and four within a block. Subtrees of zeros take no room.
///
/// It is valid for as many tiers as it ever had; a smaller region's root is further down.
pub(crate) struct PageTree {
    tiers: Vec<Tier>,
    /// Pages that were set since the last root, by block; mostly in order.
    set: Vec<Changed>,
    roots: Vec<Hash>,
}

impl Default for PageTree {
    fn default() -> Self {
        PageTree {
            tiers: vec![Tier::new(0)],
            set: Vec::new(),
            roots: Vec::new(),
        }
    }
}

/// How many tiers the tree over so many pages has: at least one.
fn tiers(pages: u64) -> usize {
    (1..MAX_TIERS)
        .find(|tiers| pages <= 1 << (BLOCK_SHIFT as usize * tiers))
        .unwrap_or(MAX_TIERS)
}

impl PageTree {
    /// Sets a page's hash. In ascending order it is fastest.
    pub(crate) fn set(&mut self, page: u64, hash: &Hash) {
        let Some(tier) = self.tiers.first_mut() else {
            return;
        };
        let (block, child) = (page >> BLOCK_SHIFT, page % BLOCK);
        if let Some(last) = self.set.last_mut()
            && last.block == block
        {
            last.children |= 1 << child;
            tier.set(last.place, child, hash);
            return;
        }
        let place = match tier.find(block) {
            Some(place) => place,
            None if *hash == zero(0) => return,
            None => tier.place(block),
        };
        tier.set(place, child, hash);
        self.set.push(Changed {
            block,
            place,
            children: 1 << child,
        });
    }

    /// The root over `pages` pages, none of which beyond is other than zero.
    pub(crate) fn root(&mut self, pages: u64) -> Hash {
        let had = self.tiers.len();
        let needed = tiers(pages);
        while self.tiers.len() < needed {
            self.tiers.push(Tier::new(self.tiers.len()));
        }
        let mut changed = std::mem::take(&mut self.set);
        if !changed.is_sorted_by(|one, other| one.block < other.block) {
            changed.sort_unstable_by_key(|changed| changed.block);
            changed.dedup_by(|other, kept| {
                let same = other.block == kept.block;
                kept.children |= if same { other.children } else { 0 };
                same
            });
        }
        let mut roots = std::mem::take(&mut self.roots);
        let mut below: Option<Hash> = None;
        for number in 0..self.tiers.len() {
            let Some(tier) = self.tiers.get_mut(number) else {
                break;
            };
            if let Some(root) = below.filter(|_| number >= had) {
                // The tree has grown upwards, over what it had.
                if changed.first().is_none_or(|first| first.block != 0) {
                    let (block, place, children) = (0, tier.place(0), 0);
                    let first = Changed {
                        block,
                        place,
                        children,
                    };
                    changed.insert(0, first);
                }
                if let Some(first) = changed.first_mut() {
                    first.children |= 1;
                    tier.set(first.place, 0, &root);
                }
            }
            roots.clear();
            tier.rise(&changed, &mut roots);
            let nothing = zero(number + 1);
            for (changed, root) in changed.iter().zip(&roots) {
                if changed.block == 0 {
                    tier.root = *root;
                }
                if *root == nothing {
                    tier.remove(changed.block);
                }
            }
            below = Some(tier.root);
            let Some(above) = self.tiers.get_mut(number + 1) else {
                break;
            };
            // Blocks of the tier above take the places of those below them, of which there are no fewer.
            let mut kept = 0usize;
            for (position, root) in roots.iter().enumerate() {
                let Some(child) = changed.get(position).map(|changed| changed.block) else {
                    break;
                };
                let (block, child) = (child >> BLOCK_SHIFT, child % BLOCK);
                let last = kept.checked_sub(1).and_then(|last| changed.get_mut(last));
                match last.filter(|last| last.block == block) {
                    Some(last) => {
                        last.children |= 1 << child;
                        above.set(last.place, child, root);
                    }
                    None if *root == nothing && above.find(block).is_none() => {}
                    None => {
                        let place = above.place(block);
                        above.set(place, child, root);
                        if let Some(next) = changed.get_mut(kept) {
                            *next = Changed {
                                block,
                                place,
                                children: 1 << child,
                            };
                        }
                        kept += 1;
                    }
                }
            }
            changed.truncate(kept);
        }
        changed.clear();
        (self.set, self.roots) = (changed, roots);
        let top = self.tiers.get(needed - 1);
        top.map_or_else(|| zero(needed), |tier| tier.root)
    }

    /// The blocks of pages that aren't all zero, ascending, as of the last root: the number of the first page, and 64
    /// hashes.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (u64, &[Hash])> {
        let tier = self.tiers.first();
        tier.into_iter().flat_map(|tier| {
            tier.iter()
                .map(|(block, hashes)| (block << BLOCK_SHIFT, hashes))
        })
    }

    /// How many blocks [`leaves`](PageTree::leaves) gives.
    pub(crate) fn leaf_blocks(&self) -> u64 {
        self.tiers.first().map_or(0, Tier::count)
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
