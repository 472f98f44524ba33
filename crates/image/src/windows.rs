//! What a fold writes: which shards are kept, and which pages go into which new ones.

use std::collections::{BTreeSet, HashMap};

use crate::format::{MAX_SHARD_PAGES, ShardEntry};
use crate::index::Index;
use crate::page::{PageId, Region};

/// Pages in a window: 64 MiB. Rewriting one for a single page takes a fraction of a second, and a state of
/// gigabytes is some dozens of files.
const WINDOW_PAGES: u64 = 1 << 14;
/// Windows are doubled when a state would take more than so many full ones: a worker gets a descriptor of every
/// file, at most 128 with one message (`MAX_DESCRIPTORS` of the wire), and shards may be half full.
const FULL_WINDOWS: u64 = 48;
/// With more shards than this, keeping small ones isn't worth it any more.
const MANY_SHARDS: usize = 100;
/// Gaps up to this many pages may be filled with zeros, to save a mapping.
const LONGEST_FILL: u64 = 16;
/// What filling may add: an eighth of the pages.
const FILL_SHARE: u64 = 8;

/// The pages of a shard to write: runs of one region, apart from each other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewShard {
    pub(crate) region: Region,
    /// First page and number of pages.
    pub(crate) runs: Vec<(u64, u64)>,
    pub(crate) pages: u64,
}

/// A new base.
#[derive(Debug)]
pub(crate) struct NewBase {
    pub(crate) kept: Vec<ShardEntry>,
    pub(crate) new: Vec<NewShard>,
}

impl NewBase {
    /// The base for what `index` holds, of which the pages in the slots of `shards` are in those, in the manifest's
    /// order, and all others in logs.
    ///
    /// A shard is kept if no page in a log falls into a window that the shard reaches into, and all its pages are
    /// still current: then it says of its range what the index says.
    pub(crate) fn of(index: &Index, shards: &[(ShardEntry, usize)]) -> NewBase {
        let window = window_pages(index.pages());
        let by_slot: HashMap<usize, usize> = (shards.iter().enumerate())
            .map(|(position, (_, slot))| (*slot, position))
            .collect();
        let mut current = vec![0; shards.len()];
        let mut touched = BTreeSet::new();
        for extent in index.extents() {
            let position = by_slot.get(&extent.location.slot());
            match position.and_then(|position| current.get_mut(*position)) {
                Some(pages) => *pages += extent.pages,
                None => {
                    let first = extent.first.bits();
                    touched.extend(first / window..=(first + extent.pages - 1) / window);
                }
            }
        }
        let kept: BTreeSet<usize> = (shards.iter().zip(current).enumerate())
            .filter(|(_, ((shard, _), current))| {
                let (first, last) = (address(shard.region, shard.first_page), {
                    address(shard.region, shard.last_page)
                });
                let touched = touched.range(first / window..=last / window);
                shard.pages == *current && touched.count() == 0
            })
            .map(|(position, _)| position)
            .collect();
        let base = NewBase::keeping(index, shards, &by_slot, &kept, window);
        let files = base.kept.len() + base.new.len();
        if files > MANY_SHARDS && !kept.is_empty() {
            let whole = NewBase::keeping(index, shards, &by_slot, &BTreeSet::new(), window);
            if whole.new.len() < files / 4 * 3 {
                return whole;
            }
        }
        base
    }

    fn keeping(
        index: &Index,
        shards: &[(ShardEntry, usize)],
        by_slot: &HashMap<usize, usize>,
        kept: &BTreeSet<usize>,
        window: u64,
    ) -> NewBase {
        let kept_shards: Vec<ShardEntry> = (shards.iter().enumerate())
            .filter(|(position, _)| kept.contains(position))
            .map(|(_, (shard, _))| shard.clone())
            .collect();
        // New shards lie between the kept ones, so that none overlap.
        let mut between: Vec<Vec<(PageId, u64)>> = vec![Vec::new(); kept_shards.len() + 1];
        let mut before = 0;
        for extent in index.extents() {
            let position = by_slot.get(&extent.location.slot());
            if position.is_some_and(|position| kept.contains(position)) {
                continue;
            }
            let first = extent.first.bits();
            while kept_shards
                .get(before)
                .is_some_and(|shard| address(shard.region, shard.first_page) < first)
            {
                before += 1;
            }
            let Some(runs) = between.get_mut(before) else {
                continue;
            };
            match runs.last_mut() {
                Some((start, pages)) if start.bits() + *pages == first => *pages += extent.pages,
                _ => runs.push((extent.first, extent.pages)),
            }
        }
        let new = between.into_iter().flat_map(|runs| {
            let pages = runs.iter().map(|(_, pages)| pages).sum();
            pack(fill_gaps(runs, pages), window)
        });
        NewBase {
            new: new.collect(),
            kept: kept_shards,
        }
    }
}

fn address(region: Region, page: u64) -> u64 {
    // The manifest's pages were checked; the bits above a page number are the region's.
    PageId::new(region, page).map_or(u64::MAX, PageId::bits)
}

/// The size of windows for a state of so many pages: a power of two, so that windows of one size lie within those of
/// the next, and none spans two regions.
fn window_pages(stored: u64) -> u64 {
    let least = (stored / FULL_WINDOWS).next_power_of_two();
    least.clamp(WINDOW_PAGES, MAX_SHARD_PAGES)
}

/// Joins runs of a region with short gaps between them, the shortest first, as long as that adds no more than
/// its share to `pages`.
fn fill_gaps(runs: Vec<(PageId, u64)>, pages: u64) -> Vec<(PageId, u64)> {
    // Gaps across regions are longer than any that is filled, as page numbers end far below the region bits.
    let gap = |a: &(PageId, u64), b: &(PageId, u64)| b.0.bits() - a.0.bits() - a.1;
    let mut counts = [0u64; LONGEST_FILL as usize + 1];
    for pair in runs.windows(2) {
        if let [a, b] = pair
            && let Some(count) = usize::try_from(gap(a, b))
                .ok()
                .and_then(|gap| counts.get_mut(gap))
        {
            *count += 1;
        }
    }
    let mut added = 0;
    let within = (0u64..).zip(counts).take_while(|(length, count)| {
        added += length * count;
        added <= pages / FILL_SHARE
    });
    let longest = within.last().map_or(0, |(length, _)| length);
    let mut filled: Vec<(PageId, u64)> = Vec::with_capacity(runs.len());
    for run in runs {
        match filled.last_mut() {
            Some(last) if gap(last, &run) <= longest => {
                last.1 = run.0.bits() + run.1 - last.0.bits()
            }
            _ => filled.push(run),
        }
    }
    filled
}

/// Puts ranges into shards: all of a window into one, and the windows behind it as long as it isn't fuller than one
/// window may be.
fn pack(runs: Vec<(PageId, u64)>, window: u64) -> Vec<NewShard> {
    let mut shards: Vec<NewShard> = Vec::new();
    let mut pieces = runs
        .into_iter()
        .flat_map(|(first, pages)| {
            let (mut next, end) = (first.bits(), first.bits() + pages);
            std::iter::from_fn(move || {
                let first = PageId::from_bits(next).filter(|_| next < end)?;
                let pages = end.min((next / window + 1) * window) - next;
                next += pages;
                Some((first, pages))
            })
        })
        .peekable();
    let mut in_window = Vec::new();
    while let Some((first, _)) = pieces.peek() {
        let (number, region) = (first.bits() / window, first.region());
        in_window.clear();
        while let Some(piece) = pieces.next_if(|(first, _)| first.bits() / window == number) {
            in_window.push((piece.0.page(), piece.1));
        }
        let pages: u64 = in_window.iter().map(|(_, pages)| pages).sum();
        let shard = match shards.last_mut() {
            Some(last) if last.region == region && last.pages + pages <= window => last,
            _ => {
                let (runs, pages) = (Vec::new(), 0);
                shards.push(NewShard {
                    region,
                    runs,
                    pages,
                });
                let Some(new) = shards.last_mut() else {
                    continue;
                };
                new
            }
        };
        shard.pages += pages;
        for (first, pages) in in_window.drain(..) {
            match shard.runs.last_mut() {
                Some(last) if last.0 + last.1 == first => last.1 += pages,
                _ => shard.runs.push((first, pages)),
            }
        }
    }
    shards
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
