use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::page::{MAX_PAGES, PAGE_BYTES};

#[derive(Clone, Debug)]
enum Step {
    /// Pages from `first`, `step` apart, to consecutive places from `offset`.
    Put {
        region: Region,
        first: u64,
        step: u64,
        pages: u64,
        slot: usize,
        offset: u64,
    },
    /// Consecutive pages to consecutive places, at once.
    Extent {
        region: Region,
        first: u64,
        pages: u64,
        slot: usize,
        offset: u64,
    },
    Zero {
        region: Region,
        first: u64,
        step: u64,
        pages: u64,
    },
    Truncate {
        heap: u64,
        stable: u64,
    },
}

fn region() -> impl Strategy<Value = Region> {
    prop_oneof![Just(Region::Heap), Just(Region::Stable)]
}

fn first() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..300u64,
        2 => 3900..4400u64,
        1 => (1 << 18) - 100..(1 << 18) + 100u64,
        1 => MAX_PAGES - 300..MAX_PAGES,
    ]
}

/// From less than a leaf to more than a node of the second level.
fn long() -> impl Strategy<Value = u64> {
    prop_oneof![0..200u64, 4000..9000u64]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (region(), first(), 1..4u64, 0..100u64, 0..3usize, 0..200u64).prop_map(
            |(region, first, step, pages, slot, offset)| Step::Put { region, first, step, pages, slot, offset }
        ),
        3 => (region(), first(), long(), 0..2usize, 0..200u64).prop_map(
            |(region, first, pages, slot, offset)| Step::Extent { region, first, pages, slot, offset }
        ),
        2 => (region(), first(), 1..4u64, 0..100u64)
            .prop_map(|(region, first, step, pages)| Step::Zero { region, first, step, pages }),
        1 => (first(), first()).prop_map(|(heap, stable)| Step::Truncate { heap, stable }),
    ]
}

fn pages(region: Region, first: u64, step: u64, pages: u64) -> impl Iterator<Item = PageId> {
    (0..pages).filter_map(move |page| PageId::new(region, first + page * step))
}

/// The extents of a plain map, found the plain way.
fn extents(model: &BTreeMap<PageId, Location>) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (page, location) in model {
        match extents.last_mut() {
            Some(last)
                if last.first.bits() + last.pages == page.bits()
                    && last.location.slot() == location.slot()
                    && last.location.page_offset() + last.pages == location.page_offset() =>
            {
                last.pages += 1;
            }
            _ => extents.push(Extent {
                first: *page,
                pages: 1,
                location: *location,
            }),
        }
    }
    extents
}

proptest! {
    #[test]
    fn the_index_is_an_ordered_map(steps in proptest::collection::vec(step(), 0..40)) {
        let (mut index, mut model) = (Index::default(), BTreeMap::new());
        let mut earlier = Index::default();
        for (step_number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put { region, first, step, pages: count, slot, offset } => {
                    let places: Vec<_> = pages(region, first, step, count)
                        .zip(offset..)
                        .map(|(page, offset)| (page, Location::new(slot, offset).unwrap()))
                        .collect();
                    index.apply(places.iter().map(|(page, location)| (*page, Some(*location))));
                    model.extend(places);
                }
                Step::Extent { region, first, pages: count, slot, offset } => {
                    // And a short one behind it, in the same file.
                    let behind = (first + count + 7, 3, offset + count);
                    let extents = [(first, count, offset), behind].map(|(first, count, offset)| {
                        let location = Location::new(slot, offset).unwrap();
                        let pages = count.min(MAX_PAGES.saturating_sub(first));
                        let first = PageId::new(region, first).filter(|_| pages > 0);
                        first.map(|first| Extent { first, pages, location })
                    });
                    let extents = extents.into_iter().flatten();
                    index.put(extents.clone());
                    for Extent { first, pages: count, location } in extents {
                        model.extend(pages(region, first.page(), 1, count).zip(location.page_offset()..).map(
                            |(page, offset)| (page, Location::new(slot, offset).unwrap()),
                        ));
                    }
                }
                Step::Zero { region, first, step, pages: count } => {
                    index.apply(pages(region, first, step, count).map(|page| (page, None)));
                    pages(region, first, step, count).for_each(|page| { model.remove(&page); });
                }
                Step::Truncate { heap, stable } => {
                    let sizes = Sizes { heap: heap * PAGE_BYTES, stable: stable * PAGE_BYTES - stable % 2 };
                    index.truncate(&sizes);
                    model.retain(|page, _| sizes.contain(*page));
                }
            }
            prop_assert_eq!(index.pages(), model.len() as u64);
            prop_assert!(index.iter().eq(model.iter().map(|(page, location)| (*page, *location))));
            let sample = [0, 63, 64, 150, 4095, 4096, 5000, (1 << 18) - 1, 1 << 18, MAX_PAGES - 1];
            for page in sample.into_iter().flat_map(|page| Region::ALL.map(|region| PageId::new(region, page).unwrap())) {
                prop_assert_eq!(index.get(page), model.get(&page).copied());
            }
            // From any earlier version, the differences lead to this one.
            let mut caught_up: Index = earlier.clone();
            caught_up.apply(index.differences(&earlier));
            prop_assert!(caught_up.iter().eq(index.iter()));
            prop_assert_eq!(caught_up.extent_count(), index.extent_count());
            prop_assert_eq!(index.differences(&caught_up), []);
            if step_number % 3 == 0 {
                earlier = index.clone();
            }
            let expected = extents(&model);
            prop_assert_eq!(index.extent_count(), expected.len());
            prop_assert_eq!(index.extents().collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn locations_are_bounded() {
    assert!(Location::new(MAX_SLOT, (1 << OFFSET_BITS) - 1).is_some());
    assert_eq!(Location::new(MAX_SLOT + 1, 0), None);
    assert_eq!(Location::new(0, 1 << OFFSET_BITS), None);
    let last = Location::new(0, (1 << OFFSET_BITS) - 1).unwrap();
    assert!(
        !last.precedes(Location::new(1, 0).unwrap()),
        "the end of one file is not followed by the next file"
    );
}
