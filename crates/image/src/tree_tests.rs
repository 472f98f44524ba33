use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::node_hash::HASH_SIZE;

/// The root as the format defines it, from the leaves alone.
fn reference(leaves: &BTreeMap<u64, Hash>, pages: u64) -> Hash {
    let key = blake3::derive_key("Lazaret 2026-11-22 state hash 1: node", b"");
    let page = blake3::derive_key("Lazaret 2026-11-22 state hash 1: page", b"");
    let mut nothing = *blake3::keyed_hash(&page, &[0; 4096]).as_bytes();
    let mut level: BTreeMap<u64, Hash> = leaves.clone();
    let mut width = 1;
    let mut levels = 0;
    while width < pages || levels == 0 || levels % 3 != 0 {
        let numbers: std::collections::BTreeSet<u64> = level.keys().map(|node| node / 4).collect();
        level = numbers
            .into_iter()
            .map(|node| {
                let mut hasher = blake3::Hasher::new_keyed(&key);
                for child in node * 4..node * 4 + 4 {
                    hasher.update(level.get(&child).unwrap_or(&nothing));
                }
                (node, *hasher.finalize().as_bytes())
            })
            .collect();
        let zeros = [nothing; 4].concat();
        nothing = *blake3::keyed_hash(&key, &zeros).as_bytes();
        width *= 4;
        levels += 1;
    }
    level.get(&0).copied().unwrap_or(nothing)
}

#[test]
fn tiers_are_as_few_as_hold_the_pages() {
    for (pages, expected) in [(0, 1), (1, 1), (64, 1), (65, 2), (4096, 2), (4097, 3)] {
        assert_eq!(tiers(pages), expected, "{pages}");
    }
    assert_eq!(tiers(1 << 18), 3);
    assert_eq!(tiers((1 << 18) + 1), 4);
    assert_eq!(tiers(crate::MAX_PAGES), MAX_TIERS);
}

#[test]
fn an_empty_tree_and_one_that_became_empty_take_no_room() {
    let mut tree = PageTree::default();
    let nothing = tree.root(1 << 30);
    assert_eq!(nothing, zero(5));
    tree.set(1 << 29, &[1; HASH_SIZE]);
    assert_ne!(tree.root(1 << 30), nothing);
    assert_eq!(tree.leaf_blocks(), 1);
    tree.set(1 << 29, &zero(0));
    assert_eq!(tree.root(1 << 30), nothing);
    assert!(tree.tiers.iter().all(|tier| tier.count() == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_root_is_the_reference_s_whatever_the_history(
        steps in prop::collection::vec(
            (
                prop::collection::vec((any::<u64>(), 0..4u8), 0..40),
                prop::sample::select(vec![1u64, 30, 64, 65, 200, 4096, 4097, 300_000, 1 << 24]),
            ),
            1..8,
        ),
    ) {
        let (mut tree, mut leaves) = (PageTree::default(), BTreeMap::new());
        for (pages, size) in steps {
            // What falls behind the size becomes zero, as the image says of such pages.
            for (page, _) in leaves.split_off(&size) {
                tree.set(page, &zero(0));
            }
            for (page, content) in pages {
                let page = page % size;
                let hash = if content == 0 { zero(0) } else { [content; HASH_SIZE] };
                tree.set(page, &hash);
                if content == 0 {
                    leaves.remove(&page);
                } else {
                    leaves.insert(page, hash);
                }
            }
            prop_assert_eq!(tree.root(size), reference(&leaves, size));
            let held: BTreeMap<u64, Hash> = tree
                .leaves()
                .flat_map(|(first, hashes)| (first..).zip(hashes.iter().copied()))
                .filter(|(_, hash)| *hash != zero(0))
                .collect();
            prop_assert_eq!(&held, &leaves);
        }
    }
}
