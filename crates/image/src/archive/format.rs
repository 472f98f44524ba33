//! The records of an archive, and their bytes.

use crate::checksum::{CHECKSUM_SIZE, header_checksum};
use crate::decode::DecodeError;
use crate::input::Input;
use crate::page::{MAX_META, PAGE_SIZE, Region, Sizes, TenantId, Version};

pub(super) const MAGIC: [u8; 8] = *b"LZRTARC\0";
/// The version that is written, and the newest that is read.
pub(super) const VERSION: u32 = 1;
/// Bytes of the header.
pub(super) const HEADER: usize = 128;
/// Bytes in front of a frame's contents.
pub(super) const FRAME: usize = 32;
/// Of those, what is in front of the checksum.
pub(super) const FRAME_FIELDS: usize = 16;
/// Bytes of the trailer.
pub(super) const TRAILER: usize = 64;
/// Of those, what is in front of the hash.
pub(super) const TRAILER_FIELDS: usize = 32;
/// The longest contents of a frame, uncompressed.
pub(super) const MAX_FRAME: usize = 1 << 20;
/// Bytes of a page with its address.
pub(super) const PAGE_AND_ADDRESS: usize = 8 + PAGE_SIZE;
/// Pages in a frame.
pub(super) const FRAME_PAGES: usize = MAX_FRAME / PAGE_AND_ADDRESS;

/// What an archive says at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveHeader {
    /// Whose state it was.
    pub tenant: TenantId,
    /// The version that it was there.
    pub version: Version,
    /// The sizes of the regions.
    pub sizes: Sizes,
    /// How many pages are in it.
    pub pages: u64,
    /// The module's length in bytes.
    pub module_len: u64,
    /// The length of `meta` in bytes.
    pub meta_len: u64,
    /// The module's hash (BLAKE3).
    pub module_hash: [u8; 32],
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Meta = 1,
    Module = 2,
    Pages = 3,
}

impl Kind {
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Meta => "meta",
            Kind::Module => "module",
            Kind::Pages => "pages",
        }
    }
}

/// What is in front of a frame's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u32,
    pub(super) compressed: u32,
    pub(super) uncompressed: u32,
    pub(super) pages: u32,
}

/// What an archive says at its end, in front of the hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) frames: u64,
    pub(super) pages: u64,
    pub(super) bytes: u64,
}

impl ArchiveHeader {
    /// The most pages that the sizes have room for.
    pub(super) fn room(&self) -> u64 {
        // Each at most 2^36.
        Region::ALL
            .iter()
            .map(|region| self.sizes.pages(*region))
            .sum()
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = Record::<HEADER>::new();
        out.put(&MAGIC);
        out.put(&VERSION.to_le_bytes());
        out.put(&[0; 4]);
        out.put(&self.tenant.0);
        for value in [
            self.version.0,
            self.sizes.heap,
            self.sizes.stable,
            self.pages,
            self.module_len,
            self.meta_len,
        ] {
            out.put(&value.to_le_bytes());
        }
        out.put(&self.module_hash);
        let checksum = header_checksum(out.so_far());
        out.put(&checksum);
        out.bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER]) -> Result<ArchiveHeader, DecodeError> {
        let (mut input, _) = Input::open(bytes, MAGIC, VERSION, HEADER)?;
        let checksummed = bytes
            .split_last_chunk::<CHECKSUM_SIZE>()
            .is_some_and(|(body, checksum)| header_checksum(body) == *checksum);
        if !checksummed {
            return Err(DecodeError::Checksum);
        }
        input.flags()?;
        let header = ArchiveHeader {
            tenant: TenantId(input.array()?),
            version: Version(input.u64()?),
            sizes: input.sizes()?,
            pages: input.u64()?,
            module_len: input.u64()?,
            meta_len: input.u64()?,
            module_hash: input.array()?,
        };
        for (field, value, most) in [
            ("number of pages", header.pages, header.room()),
            ("length of meta", header.meta_len, MAX_META as u64),
        ] {
            if value > most {
                return Err(DecodeError::Field { field, value });
            }
        }
        Ok(header)
    }
}

impl Frame {
    pub(super) fn encode(&self) -> [u8; FRAME_FIELDS] {
        let mut out = Record::<FRAME_FIELDS>::new();
        for value in [self.kind, self.compressed, self.uncompressed, self.pages] {
            out.put(&value.to_le_bytes());
        }
        out.bytes
    }

    /// The fields, bounded: nothing in them is told by the checksum yet.
    pub(super) fn decode(bytes: [u8; FRAME_FIELDS]) -> Result<Frame, DecodeError> {
        let mut input = Input::of(&bytes);
        let frame = Frame {
            kind: input.u32()?,
            compressed: input.u32()?,
            uncompressed: input.u32()?,
            pages: input.u32()?,
        };
        let field = |field, value: u32| DecodeError::Field {
            field,
            value: value.into(),
        };
        if !(1..=MAX_FRAME as u32).contains(&frame.uncompressed) {
            return Err(field("uncompressed length", frame.uncompressed));
        }
        let most = frame.uncompressed + frame.uncompressed / 256 + 64;
        if !(1..=most).contains(&frame.compressed) {
            return Err(field("compressed length", frame.compressed));
        }
        let pages = frame.pages as usize;
        let right = match frame.kind == Kind::Pages.number() {
            true => {
                (1..=FRAME_PAGES).contains(&pages)
                    && pages * PAGE_AND_ADDRESS == frame.uncompressed as usize
            }
            false => pages == 0,
        };
        match right {
            true => Ok(frame),
            false => Err(field("pages in the frame", frame.pages)),
        }
    }
}

impl Totals {
    /// The trailer's bytes in front of the hash.
    pub(super) fn encode(&self) -> [u8; TRAILER_FIELDS] {
        let mut out = Record::<TRAILER_FIELDS>::new();
        out.put(&[0; 8]);
        for value in [self.frames, self.pages, self.bytes] {
            out.put(&value.to_le_bytes());
        }
        out.bytes
    }

    /// From the bytes behind the kind.
    pub(super) fn decode(
        bytes: &[u8; TRAILER_FIELDS - FRAME_FIELDS],
        first: [u8; FRAME_FIELDS],
    ) -> Result<Totals, DecodeError> {
        let mut input = Input::of(&first);
        let kind = input.u32()?;
        if kind != 0 {
            return Err(DecodeError::Field {
                field: "kind",
                value: kind.into(),
            });
        }
        input.zeros::<4>()?;
        let frames = input.u64()?;
        let mut input = Input::of(bytes);
        Ok(Totals {
            frames,
            pages: input.u64()?,
            bytes: input.u64()?,
        })
    }
}

/// A record of a fixed length that is being written.
struct Record<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Record<N> {
    fn new() -> Self {
        Record {
            bytes: [0; N],
            length: 0,
        }
    }

    fn put(&mut self, field: &[u8]) {
        let room = self.bytes.iter_mut().skip(self.length);
        room.zip(field).for_each(|(to, from)| *to = *from);
        self.length += field.len();
        debug_assert!(self.length <= N);
    }

    fn so_far(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ArchiveHeader {
        ArchiveHeader {
            tenant: TenantId([7; 16]),
            version: Version(9),
            sizes: Sizes {
                heap: 3 << 16,
                stable: 4097,
            },
            pages: 50,
            module_len: 11,
            meta_len: 12,
            module_hash: [5; 32],
        }
    }

    #[test]
    fn a_header_comes_back_and_no_bit_of_it_may_change() {
        let bytes = header().encode();
        assert_eq!(ArchiveHeader::decode(&bytes), Ok(header()));
        for bit in 0..HEADER * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(ArchiveHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_whose_checksum_is_right_may_still_lie() {
        let too_many = ArchiveHeader {
            pages: 51,
            ..header()
        };
        assert!(matches!(
            ArchiveHeader::decode(&too_many.encode()),
            Err(DecodeError::Field {
                field: "number of pages",
                value: 51
            })
        ));
        let long = ArchiveHeader {
            meta_len: MAX_META as u64 + 1,
            ..header()
        };
        assert!(ArchiveHeader::decode(&long.encode()).is_err());
        let large = ArchiveHeader {
            sizes: Sizes {
                heap: u64::MAX,
                stable: 0,
            },
            ..header()
        };
        assert!(ArchiveHeader::decode(&large.encode()).is_err());
    }

    #[test]
    fn frames_are_bounded() {
        let frame = |kind, compressed, uncompressed, pages| {
            let frame = Frame {
                kind,
                compressed,
                uncompressed,
                pages,
            };
            Frame::decode(frame.encode()) == Ok(frame)
        };
        assert!(frame(1, 1, 1, 0));
        assert!(frame(2, (1 << 20) + (1 << 12) + 64, 1 << 20, 0));
        assert!(frame(3, 9, 255 * 4104, 255));
        assert!(!frame(2, 1, (1 << 20) + 1, 0));
        assert!(!frame(2, 0, 1, 0));
        assert!(!frame(2, 1, 0, 0));
        assert!(!frame(2, (1 << 20) + (1 << 12) + 65, 1 << 20, 0));
        assert!(!frame(2, 1, 4104, 1));
        assert!(!frame(3, 1, 4104, 2));
        assert!(!frame(3, 1, 4104, 0));
        assert!(!frame(3, 1, 256 * 4104, 256));
    }
}
