//! Where each page of the current version is: an ordered map from page addresses to places in files.

use crate::page::{PageId, Region, Sizes};
use crate::page_map::{PageMap, Piece};

/// Bits of a location that count pages within the file; the others are the file's slot.
const OFFSET_BITS: u32 = 40;
const MAX_SLOT: usize = (1 << (64 - OFFSET_BITS)) - 1;

/// A page's place: a file, by its slot in the image's list, and the page's offset in it in pages.
///
/// Locations of neighbouring pages of one file differ by one, which is all that finding runs takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location(u64);

impl Location {
    /// The beginning of the first file.
    pub(crate) const ZERO: Location = Location(0);

    /// `None` if the file or the offset are beyond what the index can hold (4 PiB a file, 2^24 files).
    pub(crate) fn new(slot: usize, page_offset: u64) -> Option<Location> {
        (slot <= MAX_SLOT && page_offset < 1 << OFFSET_BITS)
            .then_some(Location(((slot as u64) << OFFSET_BITS) | page_offset))
    }

    /// The place of the page so many behind this one, in the same file.
    pub(crate) fn advanced(self, pages: u64) -> Location {
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

/// An extent of fewer pages is put page by page: it may cover no more than one leaf of a map.
const SHORT: u64 = 64;

/// The index. Pages that are not in it are zero.
///
/// A clone shares everything, whatever the size; each of the two copies what it changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    heap: PageMap,
    stable: PageMap,
}

impl Index {
    fn map(&self, region: Region) -> &PageMap {
        match region {
            Region::Heap => &self.heap,
            Region::Stable => &self.stable,
        }
    }

    fn map_mut(&mut self, region: Region) -> &mut PageMap {
        match region {
            Region::Heap => &mut self.heap,
            Region::Stable => &mut self.stable,
        }
    }

    /// Where `page` is, or `None` if it is zero.
    pub(crate) fn get(&self, page: PageId) -> Option<Location> {
        self.map(page.region()).get(page.page())
    }

    /// The number of pages in the index.
    pub(crate) fn pages(&self) -> u64 {
        self.heap.pages() + self.stable.pages()
    }

    /// The number of extents, kept up to date with every change.
    pub(crate) fn extent_count(&self) -> usize {
        self.heap.piece_count() + self.stable.piece_count()
    }

    /// Puts pages at their places; `None` makes a page zero. In ascending order it is fastest.
    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = (PageId, Option<Location>)>) {
        let mut changes = changes.into_iter().peekable();
        while let Some((page, _)) = changes.peek() {
            let region = page.region();
            let ours = std::iter::from_fn(|| changes.next_if(|(page, _)| page.region() == region));
            let ours = ours.map(|(page, location)| (page.page(), location));
            self.map_mut(region).apply(&mut ours.peekable());
        }
    }

    /// Puts the pages of extents, which are in ascending order and don't overlap, at their places: a long one by the runs
    /// that it replaces and not by its pages, short ones in one pass.
    pub(crate) fn put(&mut self, extents: impl IntoIterator<Item = Extent>) {
        let mut extents = extents.into_iter().peekable();
        loop {
            let short = std::iter::from_fn(|| extents.next_if(|extent| extent.pages < SHORT));
            self.apply(short.flat_map(|extent| {
                (0..extent.pages).filter_map(move |page| {
                    let id = PageId::from_bits(extent.first.bits() + page)?;
                    Some((id, Some(extent.location.advanced(page))))
                })
            }));
            let Some(extent) = extents.next() else {
                return;
            };
            self.map_mut(extent.first.region()).put(&Piece {
                first: extent.first.page(),
                pages: extent.pages,
                location: extent.location,
            });
        }
    }

    /// Forgets the pages at or beyond the sizes, and returns them, ascending.
    pub(crate) fn truncate(&mut self, sizes: &Sizes) -> Vec<PageId> {
        let mut gone = Vec::new();
        for region in Region::ALL {
            let end = sizes.pages(region);
            let before = gone.len();
            gone.extend(pages_in(region, self.map(region).pieces(end)).map(|(page, _)| page));
            if gone.len() > before {
                self.map_mut(region).cut(end);
            }
        }
        gone
    }

    /// The pages that aren't where they were in `before`, and where they are now, ascending. What the two share
    /// costs next to nothing.
    pub(crate) fn differences(&self, before: &Index) -> Vec<(PageId, Option<Location>)> {
        let mut differences = Vec::new();
        for region in Region::ALL {
            let before = before.map(region);
            self.map(region).differences(before, &mut |page, location| {
                differences.extend(PageId::new(region, page).map(|page| (page, location)));
            });
        }
        differences
    }

    /// The pages in the index, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PageId, Location)> {
        Region::ALL
            .into_iter()
            .flat_map(|region| pages_in(region, self.map(region).pieces(0)))
    }

    /// The longest possible extents, ascending.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> {
        let pieces = Region::ALL.into_iter().flat_map(|region| {
            let pieces = self.map(region).pieces(0);
            pieces.filter_map(move |piece| {
                Some(Extent {
                    first: PageId::new(region, piece.first)?,
                    pages: piece.pages,
                    location: piece.location,
                })
            })
        });
        let mut pieces = pieces.peekable();
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
}

/// The pages of pieces.
fn pages_in(
    region: Region,
    pieces: impl Iterator<Item = Piece>,
) -> impl Iterator<Item = (PageId, Location)> {
    pieces.flat_map(move |piece| {
        (0..piece.pages).filter_map(move |page| {
            let id = PageId::new(region, piece.first + page)?;
            Some((id, piece.location.advanced(page)))
        })
    })
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
