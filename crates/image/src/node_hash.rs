//! The hashes of a state: what is hashed under which key, many pages or nodes at once.

use std::sync::LazyLock;

use blake3::IncrementCounter;
use blake3::platform::Platform;

use crate::page::{PAGE_SIZE, Sizes};

/// A blake3 hash.
pub(crate) type Hash = [u8; HASH_SIZE];
/// Bytes of a [`Hash`].
pub(crate) const HASH_SIZE: usize = 32;
/// Bytes of a node's children: four hashes.
pub(crate) const NODE_SIZE: usize = 4 * HASH_SIZE;
/// The most tiers that a tree has: 64^6 is [`MAX_PAGES`](crate::MAX_PAGES).
pub(crate) const MAX_TIERS: usize = 6;

/// The contexts of the keys. The number is the state hash's version: whatever would change a hash raises it.
const PAGE_CONTEXT: &str = "Lazaret 2026-11-22 state hash 1: page";
const NODE_CONTEXT: &str = "Lazaret 2026-11-22 state hash 1: node";
const STATE_CONTEXT: &str = "Lazaret 2026-11-22 state hash 1: state";

/// Inputs that are hashed at once: what the widest vectors hold (16 lanes of AVX-512).
pub(crate) const LANES: usize = 16;

/// Flags of a compression (BLAKE3 specification, section 2.2, table 3).
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

const CHUNK_SIZE: usize = 1024;
const PARENT_SIZE: usize = 2 * HASH_SIZE;

struct Key {
    bytes: Hash,
    words: [u32; 8],
}

impl Key {
    fn derive(context: &str) -> Key {
        let bytes = blake3::derive_key(context, b"");
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Key { bytes, words }
    }
}

struct Constants {
    platform: Platform,
    page: Key,
    node: Key,
    state: Key,
    /// The hashes of all-zero subtrees, by tiers.
    zeros: [Hash; MAX_TIERS + 1],
}

static CONSTANTS: LazyLock<Constants> = LazyLock::new(|| {
    let (page, node) = (Key::derive(PAGE_CONTEXT), Key::derive(NODE_CONTEXT));
    let mut hash = *blake3::keyed_hash(&page.bytes, &[0; PAGE_SIZE]).as_bytes();
    let zeros = std::array::from_fn(|tier| {
        // Three levels of four make a tier.
        for _ in 0..if tier == 0 { 0 } else { 3 } {
            hash = *blake3::keyed_hash(&node.bytes, [hash; 4].as_flattened()).as_bytes();
        }
        hash
    });
    Constants {
        platform: Platform::detect(),
        page,
        node,
        state: Key::derive(STATE_CONTEXT),
        zeros,
    }
});

/// The hash of 64^`tiers` pages of zeros.
pub(crate) fn zero(tiers: usize) -> Hash {
    // No tree has more.
    CONSTANTS.zeros[tiers.min(MAX_TIERS)]
}

/// Hashes pages: each by itself is blake3, keyed for pages.
///
/// A page fills four lanes. Pages beside each other fill all of them, which on wide vectors is twice as fast; the
/// crate has that for one long input only, so its compression function is used here, with the same result.
pub(crate) fn hash_pages(pages: &[&[u8; PAGE_SIZE]], mut each: impl FnMut(usize, Hash)) {
    let widest = CONSTANTS.platform.simd_degree();
    let (mut rest, mut first) = (pages, 0);
    while let Some(lanes) = lanes(rest.len(), widest) {
        let (group, behind) = rest.split_at(lanes.min(rest.len()));
        let mut hashes = [0; LANES * HASH_SIZE];
        hash_page_group(group, lanes, &mut hashes);
        for (position, hash) in hashes.as_chunks().0.iter().take(group.len()).enumerate() {
            each(first + position, *hash);
        }
        first += group.len();
        rest = behind;
    }
    for (position, page) in rest.iter().enumerate() {
        let hash = blake3::keyed_hash(&CONSTANTS.page.bytes, page.as_slice());
        each(first + position, *hash.as_bytes());
    }
}

/// How many lanes to use for the next of so many pages, on vectors of so many; `None` if one page after the other is as
/// fast. Of 16 lanes, 11 must be in use to be worth it, of 8 lanes 5 (measured with AVX-512).
fn lanes(pages: usize, widest: usize) -> Option<usize> {
    match pages {
        11.. if widest >= 16 => Some(16),
        5.. if widest >= 8 => Some(8),
        4.. => Some(4),
        _ => None,
    }
}

/// At most `lanes` pages, which is at most [`LANES`]. The lanes that are left over hash the first page again.
fn hash_page_group(pages: &[&[u8; PAGE_SIZE]], lanes: usize, hashes: &mut [u8; LANES * HASH_SIZE]) {
    let Constants { platform, page, .. } = &*CONSTANTS;
    let Some(first) = pages.first() else {
        return;
    };
    let pages = pages.iter().chain(std::iter::repeat(first)).take(lanes);
    // The hashes of a page's four chunks, page by page.
    let mut chunks = [[0; HASH_SIZE]; 4 * LANES];
    for number in 0..PAGE_SIZE / CHUNK_SIZE {
        let mut inputs = [&[0; CHUNK_SIZE]; LANES];
        for (input, page) in inputs.iter_mut().zip(pages.clone()) {
            if let Some(chunk) = page.as_chunks().0.get(number) {
                *input = chunk;
            }
        }
        let mut out = [0; LANES * HASH_SIZE];
        platform.hash_many(
            inputs.get(..lanes).unwrap_or(&inputs),
            &page.words,
            number as u64,
            IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END,
            &mut out,
        );
        let places = chunks.iter_mut().skip(number).step_by(4);
        for (place, hash) in places.zip(out.as_chunks().0) {
            *place = *hash;
        }
    }
    let mut halves = [0; 2 * LANES * HASH_SIZE];
    hash_parents(chunks.as_flattened(), 2 * lanes, 0, &mut halves);
    hash_parents(&halves, lanes, ROOT, hashes);
}

/// The parents of the first `count` pairs in `children`, at most 32.
fn hash_parents(children: &[u8], count: usize, flag: u8, out: &mut [u8]) {
    let Constants { platform, page, .. } = &*CONSTANTS;
    let mut inputs = [&[0; PARENT_SIZE]; 2 * LANES];
    for (input, pair) in inputs.iter_mut().zip(children.as_chunks().0) {
        *input = pair;
    }
    platform.hash_many(
        inputs.get(..count).unwrap_or_default(),
        &page.words,
        0,
        IncrementCounter::No,
        KEYED_HASH | PARENT | flag,
        0,
        0,
        out,
    );
}

/// Hashes the first `count` nodes, at least: blake3 of the four children, keyed for nodes.
pub(crate) fn hash_nodes(nodes: &[&[u8; NODE_SIZE]; LANES], count: usize) -> [Hash; LANES] {
    let Constants { platform, node, .. } = &*CONSTANTS;
    // Three lanes by themselves take longer than four at once.
    let together = platform.simd_degree().min(count.next_power_of_two());
    let count = count.next_multiple_of(together.max(1));
    let mut out = [[0; HASH_SIZE]; LANES];
    platform.hash_many(
        nodes.get(..count).unwrap_or(nodes),
        &node.words,
        0,
        IncrementCounter::No,
        KEYED_HASH,
        CHUNK_START,
        CHUNK_END | ROOT,
        out.as_flattened_mut(),
    );
    out
}

/// The hash of a state: blake3, keyed for states, of the sizes, the roots of both regions, and `rest`.
pub(crate) fn hash_state(sizes: Sizes, heap: &Hash, stable: &Hash, rest: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(&CONSTANTS.state.bytes);
    hasher
        .update(&sizes.heap.to_le_bytes())
        .update(&sizes.stable.to_le_bytes())
        .update(heap)
        .update(stable)
        .update(rest);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_hash_like_each_by_itself() {
        for count in 0..=2 * LANES + 1 {
            let pages: Vec<[u8; PAGE_SIZE]> = (0..count)
                .map(|page| std::array::from_fn(|at| ((at * 7 + page * 31) >> 3) as u8))
                .collect();
            let mut hashed = 0;
            hash_pages(&pages.iter().collect::<Vec<_>>(), |position, hash| {
                assert_eq!(position, hashed);
                let key = blake3::derive_key(PAGE_CONTEXT, b"");
                assert_eq!(hash, *blake3::keyed_hash(&key, &pages[position]).as_bytes());
                hashed += 1;
            });
            assert_eq!(hashed, count);
        }
        for count in 1..=LANES {
            let nodes: Vec<[u8; NODE_SIZE]> = (0..count)
                .map(|node| std::array::from_fn(|at| (at * 3 + node) as u8))
                .collect();
            let mut inputs = [&[0; NODE_SIZE]; LANES];
            for (input, node) in inputs.iter_mut().zip(&nodes) {
                *input = node;
            }
            let hashes = hash_nodes(&inputs, count);
            let key = blake3::derive_key(NODE_CONTEXT, b"");
            for (node, hash) in nodes.iter().zip(hashes) {
                assert_eq!(hash, *blake3::keyed_hash(&key, node).as_bytes());
            }
        }
    }
}
