//! Pages, regions and sizes: how a tenant's memory is addressed.

use std::fmt;

/// Bytes in a page: the page size of the x86-64 kernel, and of the file format everywhere.
pub const PAGE_SIZE: usize = 4096;

/// [`PAGE_SIZE`] for arithmetic on file offsets.
pub(crate) const PAGE_BYTES: u64 = PAGE_SIZE as u64;

/// Pages in a region's address space: 2^36, i.e. 2^48 bytes, what a 64-bit memory can hold on the
/// hosts that we run on (the user half of 48-bit virtual addresses is half of that).
pub const MAX_PAGES: u64 = 1 << 36;

/// The largest size of a region in bytes.
pub const MAX_SIZE: u64 = MAX_PAGES * PAGE_BYTES;

/// The largest length of an image's `meta`, in bytes.
pub const MAX_META: usize = 1 << 20;

/// Where the region stands in a page address (see `docs/format.md`).
const REGION_SHIFT: u32 = 56;

/// One of a tenant's two address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Region {
    /// The module's own linear memory.
    Heap = 0,
    /// Stable memory, which outlives an upgrade of the module.
    Stable = 1,
}

impl Region {
    /// Both regions, in the order of their addresses.
    pub const ALL: [Region; 2] = [Region::Heap, Region::Stable];

    /// The region with this number in the file format.
    pub fn from_number(number: u32) -> Option<Region> {
        match number {
            0 => Some(Region::Heap),
            1 => Some(Region::Stable),
            _ => None,
        }
    }

    /// The region's number in the file format.
    pub fn number(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Region::Heap => "heap",
            Region::Stable => "stable",
        })
    }
}

/// The address of a page: a region and a page number below [`MAX_PAGES`].
///
/// Ordered by region, then by page number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(u64);

impl PageId {
    /// The page `page` of `region`, or `None` if `page` is not below [`MAX_PAGES`].
    pub fn new(region: Region, page: u64) -> Option<PageId> {
        (page < MAX_PAGES).then_some(PageId((u64::from(region.number()) << REGION_SHIFT) | page))
    }

    /// The address with this encoding in the file format, or `None` if there is none.
    pub fn from_bits(bits: u64) -> Option<PageId> {
        let region = Region::from_number((bits >> REGION_SHIFT) as u32)?;
        PageId::new(region, bits & ((1 << REGION_SHIFT) - 1))
    }

    /// The address as the file format encodes it.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The region that the page is in.
    pub fn region(self) -> Region {
        if self.0 >> REGION_SHIFT == 0 {
            Region::Heap
        } else {
            Region::Stable
        }
    }

    /// The page's number within its region.
    pub fn page(self) -> u64 {
        self.0 & ((1 << REGION_SHIFT) - 1)
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} page {}", self.region(), self.page())
    }
}

impl fmt::Debug for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageId({self})")
    }
}

/// The size of each region in bytes, each at most [`MAX_SIZE`].
///
/// A size need not be a multiple of the page size; the page that it ends in counts as inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Size of the heap in bytes.
    pub heap: u64,
    /// Size of stable memory in bytes.
    pub stable: u64,
}

impl Sizes {
    /// How many pages `region` has, counting a last partial one.
    pub fn pages(&self, region: Region) -> u64 {
        self.of(region).div_ceil(PAGE_BYTES)
    }

    /// The size of `region` in bytes.
    pub fn of(&self, region: Region) -> u64 {
        match region {
            Region::Heap => self.heap,
            Region::Stable => self.stable,
        }
    }

    /// Whether `page` lies inside its region.
    pub fn contain(&self, page: PageId) -> bool {
        page.page() < self.pages(page.region())
    }

    /// The first region that is larger than [`MAX_SIZE`], with its size.
    pub(crate) fn excess(&self) -> Option<(Region, u64)> {
        Region::ALL
            .into_iter()
            .map(|region| (region, self.of(region)))
            .find(|(_, size)| *size > MAX_SIZE)
    }
}

/// A version of an image. Every commit makes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Sixteen random bytes that tell one tenant's files from another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TenantId(pub [u8; 16]);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({self})")
    }
}

/// The number of a shard or log within its image's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_address_is_region_and_number() {
        let page = PageId::new(Region::Stable, 7).unwrap();
        assert_eq!(page.bits(), 0x0100_0000_0000_0007);
        assert_eq!((page.region(), page.page()), (Region::Stable, 7));
        assert_eq!(PageId::from_bits(page.bits()), Some(page));
        assert!(
            PageId::new(Region::Heap, MAX_PAGES - 1).unwrap()
                < PageId::new(Region::Stable, 0).unwrap()
        );
    }

    #[test]
    fn addresses_outside_both_regions_are_refused() {
        assert_eq!(PageId::new(Region::Heap, MAX_PAGES), None);
        assert_eq!(PageId::from_bits(MAX_PAGES), None);
        assert_eq!(PageId::from_bits(2 << 56), None);
        assert_eq!(PageId::from_bits(u64::MAX), None);
    }

    #[test]
    fn a_partial_page_is_inside() {
        let sizes = Sizes {
            heap: 4097,
            stable: 0,
        };
        assert_eq!(sizes.pages(Region::Heap), 2);
        assert!(sizes.contain(PageId::new(Region::Heap, 1).unwrap()));
        assert!(!sizes.contain(PageId::new(Region::Heap, 2).unwrap()));
        assert!(!sizes.contain(PageId::new(Region::Stable, 0).unwrap()));
    }
}
