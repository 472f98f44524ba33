//! One tier of a tree: blocks of 64 children, found by number.

use crate::node_hash::{HASH_SIZE, Hash, LANES, NODE_SIZE, hash_nodes, zero};
use crate::tree::BLOCK;

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
            let mut children = [0; NODE_SIZE];
            for child in children.as_chunks_mut().0 {
                *child = hash;
            }
            hash = hash_nodes(&[&children; LANES], 1)[0];
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

/// Blocks in a page of the directory.
const PAGE: usize = 512;
const NOWHERE: u32 = u32::MAX;

/// Where blocks are, by number. Two loads that mostly hit the cache; a search tree would cost as much as hashing a page.
#[derive(Default)]
struct Directory {
    pages: Vec<Option<Box<[u32; PAGE]>>>,
    /// Blocks that are somewhere.
    count: u64,
}

impl Directory {
    fn get(&self, block: u64) -> Option<u32> {
        let (page, slot) = (block as usize / PAGE, block as usize % PAGE);
        let place = *self.pages.get(page)?.as_ref()?.get(slot)?;
        (place != NOWHERE).then_some(place)
    }

    /// Puts a block somewhere, or nowhere.
    fn put(&mut self, block: u64, place: u32) {
        let (page, slot) = (block as usize / PAGE, block as usize % PAGE);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages.get_mut(page);
        let slot = page.and_then(|page| {
            page.get_or_insert_with(|| Box::new([NOWHERE; PAGE]))
                .get_mut(slot)
        });
        if let Some(slot) = slot {
            self.count -= u64::from(*slot != NOWHERE);
            self.count += u64::from(place != NOWHERE);
            *slot = place;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(page, places)| {
            let places = places.iter().flat_map(|places| places.iter().enumerate());
            places
                .filter(|(_, place)| **place != NOWHERE)
                .map(move |(slot, place)| ((page * PAGE + slot) as u64, *place))
        })
    }
}

/// Children of a block that have new hashes.
pub(crate) struct Changed {
    pub(crate) block: u64,
    pub(crate) place: u32,
    /// A bit each.
    pub(crate) children: u64,
}

/// The blocks of one tier. Those of zeros take no room.
pub(crate) struct Tier {
    directory: Directory,
    blocks: Vec<Block>,
    free: Vec<u32>,
    zeros: Block,
    /// The root of block 0.
    pub(crate) root: Hash,
    jobs: Vec<(u32, u32)>,
}

impl Tier {
    /// Of all zeros.
    pub(crate) fn new(tier: usize) -> Tier {
        Tier {
            directory: Directory::default(),
            blocks: Vec::new(),
            free: Vec::new(),
            zeros: Block::zeros(tier),
            root: zero(tier + 1),
            jobs: Vec::new(),
        }
    }

    /// The place of a block that isn't all zeros.
    pub(crate) fn find(&self, block: u64) -> Option<u32> {
        self.directory.get(block)
    }

    /// The place of a block, which is made if there is none.
    pub(crate) fn place(&mut self, block: u64) -> u32 {
        if let Some(place) = self.find(block) {
            return place;
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.blocks.push(self.zeros.clone());
                // Every page in a block of its own would be 2^30 of them.
                (self.blocks.len() - 1) as u32
            }
        };
        self.directory.put(block, place);
        place
    }

    /// Forgets a block that has become all zeros.
    pub(crate) fn remove(&mut self, block: u64) {
        if let Some(place) = self.find(block) {
            self.free.push(place);
            self.directory.put(block, NOWHERE);
        }
    }

    /// Sets a child's hash.
    pub(crate) fn set(&mut self, place: u32, child: u64, hash: &Hash) {
        self.set_at(place, child as usize * HASH_SIZE, hash);
    }

    fn set_at(&mut self, place: u32, at: usize, hash: &Hash) {
        if let Some(block) = self.blocks.get_mut(place as usize) {
            block.set(at, hash);
        }
    }

    /// Computes what lies above changed children, and puts the roots of the blocks, in the order of `changed`, into
    /// `roots`.
    pub(crate) fn rise(&mut self, changed: &[Changed], roots: &mut Vec<Hash>) {
        let mut jobs = std::mem::take(&mut self.jobs);
        for (level, begin) in LEVELS.iter().enumerate() {
            jobs.clear();
            for block in changed {
                nodes_above(block.children, level, |node| jobs.push((block.place, node)));
            }
            let above = LEVELS.get(level + 1);
            for jobs in jobs.chunks(LANES) {
                let hashes = self.hash(jobs, *begin);
                match above {
                    Some(above) => {
                        for ((place, node), hash) in jobs.iter().zip(&hashes) {
                            self.set_at(*place, above + *node as usize * HASH_SIZE, hash);
                        }
                    }
                    // One job a block.
                    None => roots.extend(hashes.iter().take(jobs.len())),
                }
            }
        }
        self.jobs = jobs;
    }

    /// The hashes of nodes of the level that begins at `begin`.
    fn hash(&self, jobs: &[(u32, u32)], begin: usize) -> [Hash; LANES] {
        let mut inputs = [&[0; NODE_SIZE]; LANES];
        for (input, (place, node)) in inputs.iter_mut().zip(jobs) {
            let block = self.blocks.get(*place as usize);
            let at = begin + *node as usize * NODE_SIZE;
            if let Some(found) = block.and_then(|block| block.node(at)) {
                *input = found;
            }
        }
        hash_nodes(&inputs, jobs.len())
    }

    /// The blocks, ascending: number and children.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[Hash])> {
        (self.directory.iter())
            .filter_map(|(block, place)| Some((block, self.blocks.get(place as usize)?.children())))
    }

    /// How many blocks there are.
    pub(crate) fn count(&self) -> u64 {
        self.directory.count
    }
}

/// Which nodes of a level, counted from the children up, are above children that changed.
fn nodes_above(children: u64, level: usize, mut each: impl FnMut(u32)) {
    // Children below a node.
    let shift = 2 * level as u32 + 2;
    let all = u64::MAX >> (BLOCK as u32 - (1 << shift));
    let mut left = children;
    while left != 0 {
        let node = left.trailing_zeros() >> shift;
        each(node);
        left &= !(all << (node << shift));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_above_their_children() {
        let above = |children, level| {
            let mut nodes = Vec::new();
            nodes_above(children, level, |node| nodes.push(node));
            nodes
        };
        assert_eq!(above(1, 0), [0]);
        assert_eq!(above(1 << 63, 0), [15]);
        assert_eq!(above(0xff0, 0), [1, 2]);
        assert_eq!(above((1 << 63) | (1 << 17), 1), [1, 3]);
        assert_eq!(above(u64::MAX, 2), [0]);
        assert_eq!(above(1 << 63, 2), [0]);
        assert!(above(0, 2).is_empty());
    }

    #[test]
    fn places_are_used_again_and_begin_as_zeros() {
        let mut tier = Tier::new(0);
        let far = (1 << 30) - 1;
        let place = tier.place(far);
        tier.set(place, 3, &[9; HASH_SIZE]);
        let children = vec![Changed {
            block: far,
            place,
            children: 1 << 3,
        }];
        let mut roots = Vec::new();
        tier.rise(&children, &mut roots);
        assert_ne!(roots, [zero(1)]);
        assert_eq!((tier.count(), tier.find(far)), (1, Some(place)));
        // As the tree does it: zeros first.
        tier.set(place, 3, &zero(0));
        roots.clear();
        tier.rise(&children, &mut roots);
        assert_eq!(roots, [zero(1)]);
        tier.remove(far);
        assert_eq!((tier.count(), tier.find(far)), (0, None));
        assert_eq!(tier.place(5), place);
        assert!(tier.iter().eq([(5, Block::zeros(0).children())]));
    }
}
