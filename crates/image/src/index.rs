//! Where each page of the current version is: an ordered map from page addresses to places in files.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::page::{PageId, Region, Sizes};

/// Pages in a chunk. 64 lets one word say which are present, and bounds what a tenant that touches
/// pages far apart can make us spend on each (a chunk is 520 bytes).
const CHUNK: u64 = 64;
const CHUNK_SHIFT: u32 = CHUNK.trailing_zeros();

/// Bits of a location that count pages within the file; the others are the file's slot.
const OFFSET_BITS: u32 = 40;
const MAX_SLOT: usize = (1 << (64 - OFFSET_BITS)) - 1;

/// A page's place: a file, by its slot in the image's list, and the page's offset in it in pages.
///
/// Locations of neighbouring pages of one file differ by one, which is all that finding runs takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location(u64);

impl Location {
    /// `None` if the file or the offset are beyond what the index can hold (4 PiB a file, 2^24 files).
    pub(crate) fn new(slot: usize, page_offset: u64) -> Option<Location> {
        (slot <= MAX_SLOT && page_offset < 1 << OFFSET_BITS)
            .then_some(Location(((slot as u64) << OFFSET_BITS) | page_offset))
    }

    /// The place of the page so many behind this one, in the same file.
    fn advanced(self, pages: u64) -> Location {
        Location(self.0 + pages)
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    /// The offset in pages.
    pub(crate) fn page_offset(self) -> u64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }

    /// Whether `next` is the place right behind this one in the same file.
    pub(crate) fn precedes(self, next: Location) -> bool {
        self.0 + 1 == next.0 && self.slot() == next.slot()
    }
}

/// Consecutive pages that are consecutive in one file too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: PageId,
    pub(crate) pages: u64,
    pub(crate) location: Location,
}

#[derive(Clone, Debug)]
struct Chunk {
    present: u64,
    /// All pages are there, one behind the other in one file: most chunks of a base. Whoever looks for runs takes it in
    /// one step, so that a plan doesn't take the time of the state's size.
    whole: bool,
    locations: [Location; CHUNK as usize],
}

impl Chunk {
    fn get(&self, position: usize) -> Option<Location> {
        if self.present & (1 << position) == 0 {
            return None;
        }
        self.locations.get(position).copied()
    }

    fn set(&mut self, position: usize, location: Option<Location>) {
        if let (Some(entry), Some(location)) = (self.locations.get_mut(position), location) {
            *entry = location;
            self.present |= 1 << position;
        } else {
            self.present &= !(1 << position);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, Location)> {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let position = left.trailing_zeros() as usize;
            left &= left.checked_sub(1)?;
            Some((position, *self.locations.get(position)?))
        })
    }

    /// Notes whether it is whole, after changes.
    fn settle(&mut self) {
        self.whole = self.present == u64::MAX
            && self
                .locations
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if a.precedes(*b)));
    }

    /// How many extents begin in this chunk or at the first page of the next one.
    fn starts(&self, before: Option<Location>, next: Option<Location>) -> usize {
        let mut previous = before.map(|location| (-1, location));
        let mut starts = 0;
        if let (true, Some(first), Some(last)) =
            (self.whole, self.get(0), self.get(CHUNK as usize - 1))
        {
            let begins = !before.is_some_and(|before| before.precedes(first));
            let ends = next.is_some_and(|next| !last.precedes(next));
            return usize::from(begins) + usize::from(ends);
        }
        let ours = self
            .iter()
            .map(|(position, location)| (position as i64, location));
        for (position, location) in ours.chain(next.map(|location| (CHUNK as i64, location))) {
            let continues =
                previous.is_some_and(|(at, last)| at + 1 == position && last.precedes(location));
            starts += usize::from(!continues);
            previous = Some((position, location));
        }
        starts
    }
}

/// The index. Pages that are not in it are zero.
///
/// A clone shares the chunks: it costs the map above them, and each of the two copies a chunk when it first changes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// By the upper bits of the page address; no chunk is empty. Addresses of the two regions are far
    /// apart, so no chunk and no extent spans both.
    chunks: BTreeMap<u64, Arc<Chunk>>,
    pages: u64,
    extents: usize,
}

impl Index {
    /// Where `page` is, or `None` if it is zero.
    pub(crate) fn get(&self, page: PageId) -> Option<Location> {
        self.chunks.get(&key(page))?.get(position(page))
    }

    /// The number of pages in the index.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// The number of extents, kept up to date with every change.
    pub(crate) fn extent_count(&self) -> usize {
        self.extents
    }

    /// Puts pages at their places; `None` makes a page zero. The pages should be in ascending order: each
    /// chunk is then looked up once.
    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = (PageId, Option<Location>)>) {
        let mut changes = changes.into_iter().peekable();
        while let Some((page, _)) = changes.peek() {
            let key = key(*page);
            let before = key
                .checked_sub(1)
                .and_then(|key| self.chunks.get(&key)?.get(CHUNK as usize - 1));
            let next = self.chunks.get(&(key + 1)).and_then(|chunk| chunk.get(0));
            let chunk = self.chunks.entry(key).or_insert_with(|| {
                Arc::new(Chunk {
                    present: 0,
                    whole: false,
                    locations: [Location::default(); CHUNK as usize],
                })
            });
            let chunk = Arc::make_mut(chunk);
            let old = (chunk.starts(before, next), chunk.present.count_ones());
            while let Some((page, location)) = changes.next_if(|(page, _)| self::key(*page) == key)
            {
                chunk.set(position(page), location);
            }
            chunk.settle();
            let new = (chunk.starts(before, next), chunk.present.count_ones());
            self.extents = self.extents + new.0 - old.0;
            self.pages = self.pages + u64::from(new.1) - u64::from(old.1);
            if chunk.present == 0 {
                self.chunks.remove(&key);
            }
        }
    }

    /// Forgets the pages at or beyond the sizes, and returns them, ascending.
    pub(crate) fn truncate(&mut self, sizes: &Sizes) -> Vec<PageId> {
        let mut gone = Vec::new();
        for region in Region::ALL {
            let Some(first) = PageId::new(region, sizes.pages(region)) else {
                continue;
            };
            let end = (u64::from(region.number()) + 1) << (56 - CHUNK_SHIFT);
            let beyond: Vec<PageId> = self
                .chunks
                .range(key(first)..end)
                .flat_map(|(key, chunk)| {
                    chunk
                        .iter()
                        .filter_map(|(position, _)| page_at(*key, position))
                })
                .filter(|page| *page >= first)
                .collect();
            self.apply(beyond.iter().map(|page| (*page, None)));
            gone.extend(beyond);
        }
        gone
    }

    /// The pages that aren't where they were in `before`, and where they are now, ascending. Chunks that the two share
    /// cost next to nothing.
    pub(crate) fn differences(
        &self,
        before: &Index,
    ) -> impl Iterator<Item = (PageId, Option<Location>)> {
        let changed = self.chunks.iter().filter_map(|(key, chunk)| {
            let old = before.chunks.get(key);
            let same = old.is_some_and(|old| Arc::ptr_eq(old, chunk));
            (!same).then_some((*key, Some(chunk), old))
        });
        let gone = before.chunks.iter().filter_map(|(key, old)| {
            let gone = !self.chunks.contains_key(key);
            gone.then_some((*key, None, Some(old)))
        });
        let mut chunks: Vec<_> = changed.chain(gone).collect();
        chunks.sort_unstable_by_key(|(key, ..)| *key);
        chunks.into_iter().flat_map(|(key, new, old)| {
            (0..CHUNK as usize).filter_map(move |position| {
                let at = |chunk: Option<&Arc<Chunk>>| chunk.and_then(|chunk| chunk.get(position));
                let location = at(new);
                (location != at(old)).then_some((page_at(key, position)?, location))
            })
        })
    }

    /// The pages in the index, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PageId, Location)> {
        self.chunks.iter().flat_map(|(key, chunk)| {
            chunk
                .iter()
                .filter_map(|(position, location)| Some((page_at(*key, position)?, location)))
        })
    }

    /// The longest possible extents, ascending.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> {
        let mut pieces = self.pieces().peekable();
        std::iter::from_fn(move || {
            let mut extent = pieces.next()?;
            while let Some(next) = pieces.next_if(|next| {
                next.first.bits() == extent.first.bits() + extent.pages
                    && extent
                        .location
                        .advanced(extent.pages - 1)
                        .precedes(next.location)
            }) {
                extent.pages += next.pages;
            }
            Some(extent)
        })
    }

    /// Whole chunks, and the single pages of others, ascending.
    fn pieces(&self) -> impl Iterator<Item = Extent> {
        self.chunks.iter().flat_map(|(key, chunk)| {
            let pages = if chunk.whole { CHUNK } else { 1 };
            let piece = move |(position, location)| {
                let first = page_at(*key, position)?;
                Some(Extent {
                    first,
                    pages,
                    location,
                })
            };
            let pieces = chunk.iter().filter_map(piece);
            pieces.take(if chunk.whole { 1 } else { CHUNK as usize })
        })
    }
}

fn key(page: PageId) -> u64 {
    page.bits() >> CHUNK_SHIFT
}

fn position(page: PageId) -> usize {
    (page.bits() % CHUNK) as usize
}

fn page_at(key: u64, position: usize) -> Option<PageId> {
    PageId::from_bits((key << CHUNK_SHIFT) | position as u64)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
