use super::*;
use crate::format::Origin;
use crate::index::Location;
use crate::page::{FileId, TenantId};

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
fn shards_are_of_one_region_and_end_with_windows() {
    let stable = PageId::new(Region::Stable, 5).unwrap();
    let full = WINDOW_PAGES;
    let shards = pack(
        vec![
            (heap(1), 3),
            (heap(10), 2 * full),
            (heap(5 * full), 7),
            (stable, 1),
        ],
        full,
    );
    let runs: Vec<_> = shards
        .iter()
        .map(|shard| (shard.region, shard.pages, shard.runs.clone()))
        .collect();
    assert_eq!(
        runs,
        [
            (Region::Heap, full - 7, vec![(1, 3), (10, full - 10)]),
            (Region::Heap, full, vec![(full, full)]),
            (Region::Heap, 17, vec![(2 * full, 10), (5 * full, 7)]),
            (Region::Stable, 1, vec![(5, 1)]),
        ]
    );
}

#[test]
fn windows_grow_with_the_state() {
    assert_eq!(window_pages(0), WINDOW_PAGES);
    assert_eq!(window_pages(FULL_WINDOWS * WINDOW_PAGES), WINDOW_PAGES);
    assert_eq!(
        window_pages((FULL_WINDOWS + 1) * WINDOW_PAGES),
        2 * WINDOW_PAGES
    );
    assert_eq!(window_pages(crate::page::MAX_PAGES), MAX_SHARD_PAGES);
}

/// The shard that `shard` would be written as, in slot `file`, and the index with its pages.
fn put(index: &mut Index, shard: &NewShard, file: u64) -> (ShardEntry, usize) {
    let slot = file as usize;
    let mut offset = 1;
    for (first, pages) in &shard.runs {
        index.apply((*first..first + pages).map(|page| {
            offset += 1;
            let id = PageId::new(shard.region, page).unwrap();
            (id, Location::new(slot, offset - 1))
        }));
    }
    let (first, _) = shard.runs[0];
    let (last, pages) = *shard.runs.last().unwrap();
    let file = FileId(file);
    let entry = ShardEntry {
        file,
        origin: Origin {
            tenant: TenantId([0; 16]),
            file,
        },
        region: shard.region,
        first_page: first,
        last_page: last + pages - 1,
        pages: shard.pages,
        header_len: 4096,
        checksum: [0; 16],
    };
    (entry, slot)
}

fn numbers(kept: &[ShardEntry]) -> Vec<u64> {
    kept.iter().map(|shard| shard.file.0).collect()
}

#[test]
fn only_windows_that_logs_touch_are_rewritten() {
    let mut index = Index::default();
    let shards: Vec<_> = pack(vec![(heap(0), 4 * WINDOW_PAGES)], WINDOW_PAGES)
        .iter()
        .zip(0..)
        .map(|(shard, file)| put(&mut index, shard, file))
        .collect();
    let base = NewBase::of(&index, &shards);
    assert_eq!((numbers(&base.kept), base.new.len()), (vec![0, 1, 2, 3], 0));

    // A page in a log, of the second; one that became zero, of the fourth; new ones behind.
    let log = 9;
    let page = heap(WINDOW_PAGES + 5);
    index.apply([(page, Location::new(log, 1))]);
    index.apply([(heap(4 * WINDOW_PAGES - 1), None)]);
    index.apply((0..3).map(|page| (heap(6 * WINDOW_PAGES + page), Location::new(log, 2 + page))));
    let base = NewBase::of(&index, &shards);
    assert_eq!(numbers(&base.kept), [0, 2]);
    let new: Vec<_> = base.new.iter().map(|shard| shard.runs.clone()).collect();
    assert_eq!(
        new,
        [
            vec![(WINDOW_PAGES, WINDOW_PAGES)],
            vec![(3 * WINDOW_PAGES, WINDOW_PAGES - 1)],
            vec![(6 * WINDOW_PAGES, 3)],
        ]
    );
}

#[test]
fn new_shards_never_reach_over_kept_ones() {
    let mut index = Index::default();
    let mut shards = Vec::new();
    for number in 0..40 {
        let first = number * WINDOW_PAGES + 100;
        let shard = NewShard {
            region: Region::Heap,
            runs: vec![(first, 4), (first + 1000, 4)],
            pages: 8,
        };
        shards.push(put(&mut index, &shard, number));
    }
    for number in [0, 1, 2, 7, 8, 39] {
        index.apply([(heap(number * WINDOW_PAGES + 500), Location::new(99, number))]);
    }
    let base = NewBase::of(&index, &shards);
    assert_eq!(base.kept.len(), 34);
    let mut ranges: Vec<(u64, u64)> = base
        .kept
        .iter()
        .map(|shard| (shard.first_page, shard.last_page))
        .collect();
    ranges.extend(base.new.iter().map(|shard| {
        let (last, pages) = *shard.runs.last().unwrap();
        (shard.runs[0].0, last + pages - 1)
    }));
    ranges.sort_unstable();
    assert!(ranges.is_sorted_by(|a, b| a.1 < b.0), "{ranges:?}");
    // The three at the beginning are together now, the two in the middle, and the last.
    assert_eq!(
        base.new.iter().map(|shard| shard.pages).collect::<Vec<_>>(),
        [27, 18, 9]
    );
}
