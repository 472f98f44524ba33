//! The constants and records of the file format. `docs/format.md` is the specification.

use crate::checksum::{CHECKSUM_SIZE, Checksum};
use crate::page::{FileId, MAX_META, PAGE_BYTES, PageId, Region, Sizes, TenantId, Version};

/// The format version that this crate writes, and the newest that it reads: that of manifests.
pub const FORMAT_VERSION: u32 = 2;
/// The version of the records of a shard or a log.
pub(crate) const RECORD_VERSION: u32 = 1;

pub(crate) const MANIFEST_MAGIC: [u8; 8] = *b"LZRTMAN\0";
pub(crate) const SHARD_MAGIC: [u8; 8] = *b"LZRTBAS\0";
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"LZRTSEG\0";
pub(crate) const TREE_MAGIC: [u8; 8] = *b"LZRTTRE\0";

/// Bytes of a manifest before its tables.
pub(crate) const MANIFEST_FIXED: usize = 96;
/// Bytes of a shard's entry in the manifest.
pub(crate) const SHARD_ENTRY: usize = 96;
/// Bytes of a log's entry in the manifest.
pub(crate) const LOG_ENTRY: usize = 80;
/// Bytes of a shard's entry in a manifest of version 1.
pub(crate) const SHARD_ENTRY_1: usize = 64;
/// Bytes of the log's entry in a manifest of version 1.
pub(crate) const LOG_ENTRY_1: usize = 40;
/// Bytes of a shard's header before its tables.
pub(crate) const SHARD_FIXED: usize = 96;
/// Bytes of a segment's header before its tables.
pub(crate) const SEGMENT_FIXED: usize = 128;
/// Bytes of a data page's entry in a segment's header.
pub(crate) const PAGE_ENTRY: usize = 16;

/// Shards that a manifest may list: both address spaces, full, in shards of 1 GiB.
pub(crate) const MAX_SHARDS: u32 = 1 << 20;
/// Logs that a manifest may list, the active one included.
pub(crate) const MAX_LOGS: u32 = 1 << 16;
/// Pages that a shard may hold: 1 GiB.
pub(crate) const MAX_SHARD_PAGES: u64 = 1 << 18;
/// Pages that a segment may hold: 16 TiB.
pub(crate) const MAX_SEGMENT_PAGES: u64 = 1 << 32;
/// The longest valid manifest.
pub(crate) const MAX_MANIFEST: u64 = (MANIFEST_FIXED
    + SHARD_ENTRY * MAX_SHARDS as usize
    + LOG_ENTRY * MAX_LOGS as usize
    + MAX_META
    + CHECKSUM_SIZE) as u64;

/// The name of the manifest in the image's directory.
pub(crate) const MANIFEST: &str = "manifest";
/// The name of a manifest that is being written.
pub(crate) const MANIFEST_NEW: &str = "manifest.new";

/// The name of the file of page hashes.
pub(crate) const TREE: &str = "tree";
/// The name of a file of page hashes that is being written.
pub(crate) const TREE_NEW: &str = "tree.new";

/// The name of shard `file`.
pub(crate) fn shard_name(file: FileId) -> String {
    format!("base-{}.shard", file.0)
}

/// The name of log `file`.
pub(crate) fn log_name(file: FileId) -> String {
    format!("log-{}.log", file.0)
}

/// Whether `name` is one that this crate gives to files in an image's directory.
pub(crate) fn is_our_name(name: &str) -> bool {
    let numbered = |prefix, suffix| {
        name.strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(suffix))
            .is_some_and(|number| {
                number
                    .parse::<u64>()
                    .is_ok_and(|parsed| parsed.to_string() == number)
            })
    };
    [MANIFEST, MANIFEST_NEW, TREE, TREE_NEW].contains(&name)
        || numbered("base-", ".shard")
        || numbered("log-", ".log")
}

/// The length of a segment's header, for `pages` data and zero pages together. `None` if it can't exist.
pub(crate) fn segment_header_len(pages: u64, meta: u64) -> Option<u64> {
    if pages > MAX_SEGMENT_PAGES || meta > MAX_META as u64 {
        return None;
    }
    let length = (SEGMENT_FIXED + CHECKSUM_SIZE) as u64 + pages * PAGE_ENTRY as u64 + meta;
    Some(length.next_multiple_of(PAGE_BYTES))
}

/// The length of a shard's header. `None` if it can't exist.
pub(crate) fn shard_header_len(runs: u64, pages: u64) -> Option<u64> {
    if pages > MAX_SHARD_PAGES || runs > pages {
        return None;
    }
    let length = (SHARD_FIXED + CHECKSUM_SIZE) as u64 + runs * 16 + pages * 8;
    Some(length.next_multiple_of(PAGE_BYTES))
}

/// Which files make up an image, and the state of its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose memory it is.
    pub tenant: TenantId,
    /// The version at the start of the active log.
    pub version: Version,
    /// The sizes of the regions in the base.
    pub sizes: Sizes,
    /// The lowest file number that was never used.
    pub next_file: FileId,
    /// The base shards, by address.
    pub shards: Vec<ShardEntry>,
    /// The logs of commits since the base that nothing is appended to any more, in the order in which they apply.
    pub sealed: Vec<SealedLog>,
    /// The active log: it applies last.
    pub log: LogEntry,
    /// `meta` in the base.
    pub meta: Vec<u8>,
}

/// What a file says of itself in its headers. It stays when the file is linked into another directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The tenant that wrote it.
    pub tenant: TenantId,
    /// The number that it was written under.
    pub file: FileId,
}

impl Manifest {
    /// The names of all files that it refers to, but its own.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let shards = self.shards.iter().map(|shard| shard_name(shard.file));
        let sealed = self.sealed.iter().map(|log| log_name(log.file));
        shards.chain(sealed).chain([log_name(self.log.file)])
    }
}

impl ShardEntry {
    /// The file's length in bytes.
    pub(crate) fn file_len(&self) -> u64 {
        // Saturating: what is decoded has checked pages, but not the header's length.
        self.header_len
            .saturating_add(self.pages.saturating_mul(PAGE_BYTES))
    }
}

/// A base shard as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardEntry {
    /// The file's number in this directory.
    pub file: FileId,
    /// What its header says.
    pub origin: Origin,
    /// The region that it holds pages of.
    pub region: Region,
    /// The lowest page in it.
    pub first_page: u64,
    /// The highest page in it.
    pub last_page: u64,
    /// How many pages it holds.
    pub pages: u64,
    /// The length of its header in bytes; the pages follow.
    pub header_len: u64,
    /// The checksum at the end of its header.
    pub checksum: Checksum,
}

/// A sealed log as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedLog {
    /// The file's number in this directory.
    pub file: FileId,
    /// What its segments say of the tenant, and the number that it was made with.
    pub origin: Origin,
    /// What the first segment gives as its previous checksum.
    pub seed: Checksum,
    /// The version before the first segment, in the origin's numbers.
    pub begin: Version,
    /// How much of the file belongs to this image, in bytes. All of that is on disk.
    pub length: u64,
    /// The checksum at the end of the last segment's header.
    pub checksum: Checksum,
}

/// The active log as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The file's number.
    pub file: FileId,
    /// What the first segment gives as its previous checksum.
    pub seed: Checksum,
    /// How much of the log was on disk when the manifest was written, in bytes.
    pub durable_len: u64,
}

/// The header of a base shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    /// Whose pages these are.
    pub tenant: TenantId,
    /// The file's own number.
    pub file: FileId,
    /// The region that the pages belong to.
    pub region: Region,
    /// First page and number of pages of each run, ascending, apart.
    pub runs: Vec<(u64, u64)>,
    /// The checksum of each page, in the order of the runs.
    pub checksums: Vec<u64>,
}

/// The first part of a segment's header: all but its tables and `meta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFields {
    /// Whose commit this is.
    pub tenant: TenantId,
    /// The version that the commit made.
    pub version: Version,
    /// How much of the log was known to be on disk when the segment was written, in bytes.
    pub durable_upto: u64,
    /// The sizes of the regions from this version on.
    pub sizes: Sizes,
    /// The number of pages with data.
    pub data_pages: u64,
    /// The number of pages that became zero.
    pub zero_pages: u64,
    /// The length of `meta` in bytes.
    pub meta_len: u64,
    /// The checksum at the end of the header of the segment before.
    pub previous: Checksum,
}

impl SegmentFields {
    /// The length of the whole header in bytes. `None` if the counts are out of bounds.
    pub fn header_len(&self) -> Option<u64> {
        segment_header_len(self.data_pages.checked_add(self.zero_pages)?, self.meta_len)
    }
}

/// A segment's whole header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The fixed part.
    pub fields: SegmentFields,
    /// Length in bytes; the data follows.
    pub header_len: u64,
    /// Address and checksum of each page with data, ascending.
    pub data: Vec<(PageId, u64)>,
    /// Addresses of the pages that became zero, ascending.
    pub zeros: Vec<PageId>,
    /// The opaque bytes that the host keeps with this version.
    pub meta: Vec<u8>,
    /// The checksum at the end of the header.
    pub checksum: Checksum,
}

impl SegmentHeader {
    /// The length of header and data together in bytes.
    pub fn segment_len(&self) -> u64 {
        // `fields.data_pages` is at most MAX_SEGMENT_PAGES and equals `data.len()`: no overflow.
        self.header_len + self.data.len() as u64 * PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_ours() {
        for name in [
            "manifest",
            "manifest.new",
            "base-0.shard",
            "log-18446744073709551615.log",
        ] {
            assert!(is_our_name(name), "{name}");
        }
        for name in [
            "",
            "base-.shard",
            "base-01.shard",
            "base-+1.shard",
            "log-1.shard",
            "log-1",
            "notes.txt",
        ] {
            assert!(!is_our_name(name), "{name}");
        }
    }

    #[test]
    fn header_lengths_are_whole_pages_and_bounded() {
        assert_eq!(segment_header_len(0, 0), Some(4096));
        assert_eq!(segment_header_len(247, 0), Some(4096));
        assert_eq!(segment_header_len(248, 0), Some(8192));
        assert_eq!(segment_header_len(MAX_SEGMENT_PAGES + 1, 0), None);
        assert_eq!(segment_header_len(0, MAX_META as u64 + 1), None);
        assert_eq!(shard_header_len(1, 1), Some(4096));
        assert_eq!(shard_header_len(2, 1), None);
        assert_eq!(shard_header_len(1, MAX_SHARD_PAGES + 1), None);
    }
}
