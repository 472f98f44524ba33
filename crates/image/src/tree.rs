//! [`PageTree`]: the hashes of a region's pages, and of everything above them.

use std::collections::BTreeMap;

use crate::node_hash::{HASH_SIZE, Hash, LANES, MAX_TIERS, NODE_SIZE, hash_nodes, zero};

/// Children of a block.
pub(crate) const BLOCK: u64 = 64;
const BLOCK_SHIFT: u32 = BLOCK.trailing_zeros();
/// Hashes in a block: 64 children, the 16 nodes above them and the 4 above those.
const BLOCK_HASHES: usize = 64 + 16 + 4;
/// Where the hashes of a level begin in a block, in bytes: children, then up.
const LEVELS: [usize; 3] = [0, 64 * HASH_SIZE, 80 * HASH_SIZE];

/// 64 children and what is between them and their common root.
#[derive(Clone)]
struct Block([u8; BLOCK_HASHES * HASH_SIZE]);

impl Block {
    /// All children are subtrees of so many tiers of zeros.
    fn zeros(tiers: usize) -> Block {
        let mut block = Block([0; BLOCK_HASHES * HASH_SIZE]);
        let mut hash = zero(tiers);
        for (level, begin) in LEVELS.iter().enumerate() {
            for child in 0..64 >> (2 * level) {
                block.set(begin + child * HASH_SIZE, &hash);
            }
            let children = [hash; 4];
            if let Some(node) = children.as_flattened().first_chunk() {
                hash = hash_nodes(&[node])[0];
            }
        }
        block
    }

    fn set(&mut self, at: usize, hash: &Hash) {
        if let Some(place) = self.0.get_mut(at..at + HASH_SIZE) {
            place.copy_from_slice(hash);
        }
    }

    fn node(&self, at: usize) -> Option<&[u8; NODE_SIZE]> {
        self.0.get(at..)?.first_chunk()
    }

    fn children(&self) -> &[Hash] {
        let (hashes, _) = self.0.as_chunks();
        hashes.get(..BLOCK as usize).unwrap_or(hashes)
    }
}

/// The blocks of one tier.
struct Tier {
    /// By number: where in `blocks`. Blocks of zeros aren't there.
    places: BTreeMap<u64, usize>,
    blocks: Vec<Block>,
    free: Vec<usize>,
    zeros: Block,
    /// The root of block 0.
    root: Hash,
}

impl Tier {
    fn new(tier: usize) -> Tier {
        Tier {
            places: BTreeMap::new(),
            blocks: Vec::new(),
            free: Vec::new(),
            zeros: Block::zeros(tier),
            root: zero(tier + 1),
        }
    }

    /// The place of a block, which is made if there is none.
    fn place(&mut self, block: u64) -> usize {
        let Tier {
            places,
            blocks,
            free,
            zeros,
            ..
        } = self;
        *places.entry(block).or_insert_with(|| match free.pop() {
            Some(place) => {
                if let Some(block) = blocks.get_mut(place) {
                    block.clone_from(zeros);
                }
                place
            }
            None => {
                blocks.push(zeros.clone());
                blocks.len() - 1
            }
        })
    }

    fn remove(&mut self, block: u64) {
        self.free.extend(self.places.remove(&block));
    }

    fn set(&mut self, place: usize, at: usize, hash: &Hash) {
        if let Some(block) = self.blocks.get_mut(place) {
            block.set(at, hash);
        }
    }

    /// Computes what lies above changed children. The roots are in the order of `changed`.
    fn rise(&mut self, changed: &[Changed]) -> Vec<Hash> {
        let mut jobs = Vec::with_capacity(changed.len());
        for (level, begin) in LEVELS.iter().enumerate() {
            jobs.clear();
            for block in changed {
                let mut left = nodes_above(block.children, level);
                while left != 0 {
                    jobs.push((block.place, left.trailing_zeros() as usize));
                    left &= left - 1;
                }
            }
            let Some(above) = LEVELS.get(level + 1) else {
                break;
            };
            for jobs in jobs.chunks(LANES) {
                let hashes = self.hash(jobs, *begin);
                for ((place, node), hash) in jobs.iter().zip(hashes) {
                    self.set(*place, above + node * HASH_SIZE, &hash);
                }
            }
        }
        // What is left is one job a block.
        let mut roots = Vec::with_capacity(changed.len());
        for jobs in jobs.chunks(LANES) {
            let hashes = self.hash(jobs, LEVELS[2]);
            roots.extend(hashes.iter().take(jobs.len()));
        }
        roots
    }

    /// The hashes of the nodes of a level, which begins at `begin`.
    fn hash(&self, jobs: &[(usize, usize)], begin: usize) -> [Hash; LANES] {
        let mut inputs = [&[0; NODE_SIZE]; LANES];
        for (input, (place, node)) in inputs.iter_mut().zip(jobs) {
            let block = self.blocks.get(*place);
            if let Some(found) = block.and_then(|block| block.node(begin + node * NODE_SIZE)) {
                *input = found;
            }
        }
        hash_nodes(inputs.get(..jobs.len()).unwrap_or(&inputs))
    }
}

/// Children of a block that have new hashes.
struct Changed {
    block: u64,
    place: usize,
    children: u64,
}

/// Which nodes of a level, counted from the children up, are above children that changed.
fn nodes_above(children: u64, level: usize) -> u64 {
    let width = 4 << (2 * level);
    (0..BLOCK / width).fold(0, |nodes, node| {
        let below = (u64::MAX >> (BLOCK - width)) << (node * width);
        nodes | (u64::from(children & below != 0) << node)
    })
}

/// The tree over a region: fan-out 64, and four within a block. Subtrees of zeros take no room.
///
/// It is valid for as many tiers as it ever had; a smaller region's root is further down.
pub(crate) struct PageTree {
    tiers: Vec<Tier>,
    /// Leaves that were set since the last root.
    set: BTreeMap<u64, (usize, u64)>,
}

impl Default for PageTree {
    fn default() -> Self {
        PageTree {
            tiers: vec![Tier::new(0)],
            set: BTreeMap::new(),
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
        if !tier.places.contains_key(&block) && *hash == zero(0) {
            return;
        }
        let (place, children) = match self.set.last_entry() {
            Some(last) if *last.key() == block => last.into_mut(),
            _ => self
                .set
                .entry(block)
                .or_insert_with(|| (tier.place(block), 0)),
        };
        *children |= 1 << child;
        tier.set(*place, child as usize * HASH_SIZE, hash);
    }

    /// The root over `pages` pages, none of which beyond is other than zero.
    pub(crate) fn root(&mut self, pages: u64) -> Hash {
        let had = self.tiers.len();
        let needed = tiers(pages);
        while self.tiers.len() < needed {
            self.tiers.push(Tier::new(self.tiers.len()));
        }
        let mut changed: Vec<Changed> = std::mem::take(&mut self.set)
            .into_iter()
            .map(|(block, (place, children))| Changed {
                block,
                place,
                children,
            })
            .collect();
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
            let roots = tier.rise(&changed);
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
            let risen: Vec<(u64, Hash)> = changed.iter().map(|it| it.block).zip(roots).collect();
            changed.clear();
            for (child, hash) in risen {
                let (block, child) = (child >> BLOCK_SHIFT, child % BLOCK);
                if hash == nothing && !above.places.contains_key(&block) {
                    continue;
                }
                if changed.last().is_none_or(|last| last.block != block) {
                    let place = above.place(block);
                    changed.push(Changed {
                        block,
                        place,
                        children: 0,
                    });
                }
                if let Some(last) = changed.last_mut() {
                    last.children |= 1 << child;
                    above.set(last.place, child as usize * HASH_SIZE, &hash);
                }
            }
        }
        let top = self.tiers.get(needed - 1);
        top.map_or_else(|| zero(needed), |tier| tier.root)
    }

    /// The blocks of pages that aren't all zero, ascending, as of the last root: the number of the first page, and 64
    /// hashes.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (u64, &[Hash])> {
        self.tiers.iter().take(1).flat_map(|tier| {
            tier.places.iter().filter_map(|(block, place)| {
                let block = (block << BLOCK_SHIFT, tier.blocks.get(*place)?.children());
                Some(block)
            })
        })
    }

    /// How many blocks [`leaves`](PageTree::leaves) gives.
    pub(crate) fn leaf_blocks(&self) -> u64 {
        let count = self.tiers.first().map_or(0, |tier| tier.places.len());
        count as u64
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
