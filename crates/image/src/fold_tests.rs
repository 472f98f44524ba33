use super::*;

fn heap(page: u64) -> PageId {
    PageId::new(Region::Heap, page).unwrap()
}

#[test]
fn short_gaps_are_filled_shortest_first_and_within_their_share() {
    // 160 pages allow for 20 more: both gaps of 2, one of 8; the gap of 17 is too long to be considered.
    let runs = vec![
        (heap(0), 40),
        (heap(42), 40),
        (heap(84), 40),
        (heap(132), 20),
        (heap(169), 20),
    ];
    assert_eq!(fill_gaps(runs, 160), [(heap(0), 152), (heap(169), 20)]);
    // One page in ten: filling would multiply them.
    let sparse: Vec<_> = (0..100).map(|run| (heap(run * 10), 1)).collect();
    assert_eq!(fill_gaps(sparse.clone(), 100), sparse);
}

#[test]
fn shards_are_of_one_region_and_bounded() {
    let stable = PageId::new(Region::Stable, 5).unwrap();
    let shards = split_into_shards(vec![(heap(1), 3), (heap(10), MAX_SHARD_PAGES), (stable, 1)]);
    let runs: Vec<_> = shards
        .iter()
        .map(|shard| (shard.region, shard.pages, shard.runs.clone()))
        .collect();
    let rest = 10 + MAX_SHARD_PAGES - 3;
    assert_eq!(
        runs,
        [
            (
                Region::Heap,
                MAX_SHARD_PAGES,
                vec![(1, 3), (10, MAX_SHARD_PAGES - 3)]
            ),
            (Region::Heap, 3, vec![(rest, 3)]),
            (Region::Stable, 1, vec![(5, 1)]),
        ]
    );
}
