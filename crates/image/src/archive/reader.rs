//! Reading an archive: everything in it passes through here, and nothing in it is believed.

use std::io::{self, Read};

use super::format::{
    ArchiveHeader, FRAME, FRAME_FIELDS, Frame, HEADER, Kind, MAX_FRAME, TRAILER, TRAILER_FIELDS,
    Totals,
};
use crate::checksum::{CHECKSUM_SIZE, header_checksum};
use crate::decode::DecodeError;
use crate::error::ArchiveError;
use crate::page::{MAX_META, MAX_SIZE, PageId};

/// What a reader accepts. An archive over any of these is refused before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Bytes of heap.
    pub heap: u64,
    /// Bytes of stable memory.
    pub stable: u64,
    /// Pages stored.
    pub pages: u64,
    /// Bytes of `meta`.
    pub meta: u64,
    /// Bytes of the module, which is held in memory.
    pub module: u64,
}

impl Default for ArchiveLimits {
    /// What the format allows, and a module of 100 MiB.
    fn default() -> Self {
        ArchiveLimits {
            heap: MAX_SIZE,
            stable: MAX_SIZE,
            pages: u64::MAX,
            meta: MAX_META as u64,
            module: 100 << 20,
        }
    }
}

/// An archive that is being read, from front to back.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    input: Input<R>,
    header: ArchiveHeader,
    meta: Vec<u8>,
    module: Vec<u8>,
    totals: Totals,
    /// The last page so far.
    last: Option<PageId>,
    /// The fields of a frame that is read but not taken yet.
    next: [u8; FRAME_FIELDS],
    ids: Vec<PageId>,
    contents: Vec<u8>,
    done: bool,
}

/// Bytes that are read, with what is to be known of them.
struct Input<R> {
    source: R,
    offset: u64,
    hash: blake3::Hasher,
    decompressor: zstd::bulk::Decompressor<'static>,
    /// A frame's fields and its compressed contents.
    frame: Vec<u8>,
}

impl<R> std::fmt::Debug for Input<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl<R: Read> ArchiveReader<R> {
    /// Reads the header, `meta` and the module, and checks them.
    ///
    /// # Errors
    ///
    /// If it is no archive, over a limit, damaged so far, or can't be read.
    pub fn open(source: R, limits: &ArchiveLimits) -> Result<ArchiveReader<R>, ArchiveError> {
        let mut input = Input {
            source,
            offset: 0,
            hash: blake3::Hasher::new(),
            decompressor: zstd::bulk::Decompressor::new()
                .map_err(|source| ArchiveError::Decompress { offset: 0, source })?,
            frame: Vec::new(),
        };
        let mut bytes = [0; HEADER];
        input.fill(&mut bytes)?;
        let header = ArchiveHeader::decode(&bytes).map_err(|error| record(0, error))?;
        for (what, found, limit) in [
            ("bytes of heap", header.sizes.heap, limits.heap),
            ("bytes of stable memory", header.sizes.stable, limits.stable),
            ("pages", header.pages, limits.pages),
            ("bytes of meta", header.meta_len, limits.meta),
            ("bytes of module", header.module_len, limits.module),
        ] {
            if found > limit {
                return Err(ArchiveError::Limit { what, found, limit });
            }
        }
        let mut reader = ArchiveReader {
            input,
            header,
            meta: Vec::new(),
            module: Vec::new(),
            totals: Totals::default(),
            last: None,
            next: [0; FRAME_FIELDS],
            ids: Vec::new(),
            contents: Vec::new(),
            done: false,
        };
        reader.advance()?;
        reader.meta = reader.string(Kind::Meta, reader.header.meta_len)?;
        reader.module = reader.string(Kind::Module, reader.header.module_len)?;
        if *blake3::hash(&reader.module).as_bytes() != reader.header.module_hash {
            return Err(ArchiveError::ModuleHash);
        }
        Ok(reader)
    }

    /// What it says of itself.
    pub fn header(&self) -> &ArchiveHeader {
        &self.header
    }

    /// The opaque bytes that the host keeps with a version.
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// The module.
    pub fn module(&self) -> &[u8] {
        &self.module
    }

    /// Takes the module out: [`module`](ArchiveReader::module) is empty from then on.
    pub fn take_module(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.module)
    }

    /// The next pages, ascending, and their contents one after the other. `None` when there are no more; only then is
    /// it known that the archive is whole and as it was written.
    ///
    /// # Errors
    ///
    /// If it is damaged or can't be read. Nothing that came of it before may be used then.
    #[expect(clippy::type_complexity, reason = "a pair of borrowed halves")]
    pub fn next_pages(&mut self) -> Result<Option<(&[PageId], &[u8])>, ArchiveError> {
        if self.done {
            return Ok(None);
        }
        if self.kind() == 0 {
            self.trailer()?;
            self.done = true;
            return Ok(None);
        }
        let at = self.at();
        let mut contents = std::mem::take(&mut self.contents);
        let pages = self.frame(Kind::Pages, &mut contents)?;
        self.contents = contents;
        let (addresses, data) = self
            .contents
            .split_at_checked(pages * 8)
            .ok_or(ArchiveError::Truncated { offset: at })?;
        self.ids.clear();
        for address in addresses.chunks_exact(8) {
            let bits = u64::from_le_bytes(address.try_into().unwrap_or_default());
            let page = PageId::from_bits(bits).ok_or(ArchiveError::Record {
                offset: at,
                source: DecodeError::Field {
                    field: "address",
                    value: bits,
                },
            })?;
            if let Some(previous) = self.last.filter(|last| *last >= page) {
                return Err(ArchiveError::Order {
                    offset: at,
                    page,
                    previous,
                });
            }
            if !self.header.sizes.contain(page) {
                return Err(ArchiveError::Outside {
                    offset: at,
                    page,
                    size: self.header.sizes.of(page.region()),
                });
            }
            self.last = Some(page);
            self.ids.push(page);
        }
        self.totals.pages += pages as u64;
        if self.totals.pages > self.header.pages {
            return Err(ArchiveError::Count {
                what: "pages",
                stated: self.header.pages,
                found: self.totals.pages,
            });
        }
        Ok(Some((&self.ids, data)))
    }

    /// The kind of the frame that comes.
    fn kind(&self) -> u32 {
        self.next
            .first_chunk()
            .map_or(0, |kind| u32::from_le_bytes(*kind))
    }

    /// Where it begins.
    fn at(&self) -> u64 {
        self.input.offset - FRAME_FIELDS as u64
    }

    /// Reads the fields of the next frame, or the first ones of the trailer, which are as long.
    fn advance(&mut self) -> Result<(), ArchiveError> {
        let mut fields = [0; FRAME_FIELDS];
        self.input.fill(&mut fields)?;
        self.next = fields;
        Ok(())
    }

    /// Takes the frame that comes, which is to be of this kind, into `contents`, and reads on. How many pages it has.
    fn frame(&mut self, kind: Kind, contents: &mut Vec<u8>) -> Result<usize, ArchiveError> {
        let at = self.at();
        let found = self.kind();
        if found != kind.number() {
            return Err(ArchiveError::Kind {
                offset: at,
                expected: kind.name(),
                found,
            });
        }
        let frame = Frame::decode(self.next).map_err(|error| record(at, error))?;
        self.input.contents(at, self.next, frame, contents)?;
        self.totals.frames += 1;
        self.totals.bytes += contents.len() as u64;
        self.advance()?;
        Ok(frame.pages as usize)
    }

    /// All of `meta` or of the module.
    fn string(&mut self, kind: Kind, length: u64) -> Result<Vec<u8>, ArchiveError> {
        // Grows with what is read, not with what the header says.
        let mut all: Vec<u8> = Vec::new();
        let mut piece = Vec::new();
        while (all.len() as u64) < length {
            let at = self.at();
            self.frame(kind, &mut piece)?;
            let expected = (length - all.len() as u64).min(MAX_FRAME as u64);
            if piece.len() as u64 != expected {
                return Err(ArchiveError::FrameLength {
                    offset: at,
                    expected,
                    found: piece.len() as u64,
                });
            }
            all.append(&mut piece);
        }
        Ok(all)
    }

    fn trailer(&mut self) -> Result<(), ArchiveError> {
        let at = self.at();
        let mut rest = [0; TRAILER_FIELDS - FRAME_FIELDS];
        self.input.fill(&mut rest)?;
        let stated = Totals::decode(&rest, self.next).map_err(|error| record(at, error))?;
        let hash = self.input.hash.finalize();
        let mut found = [0; TRAILER - TRAILER_FIELDS];
        self.input.fill(&mut found)?;
        if hash != found {
            return Err(ArchiveError::Hash);
        }
        for (what, stated, found) in [
            ("frames", stated.frames, self.totals.frames),
            ("pages", stated.pages, self.totals.pages),
            ("pages", self.header.pages, self.totals.pages),
            ("bytes", stated.bytes, self.totals.bytes),
        ] {
            if stated != found {
                return Err(ArchiveError::Count {
                    what,
                    stated,
                    found,
                });
            }
        }
        self.input.end()
    }
}

impl<R: Read> Input<R> {
    fn fill(&mut self, into: &mut [u8]) -> Result<(), ArchiveError> {
        read_exact(&mut self.source, into, self.offset)?;
        self.hash.update(into);
        self.offset += into.len() as u64;
        Ok(())
    }

    /// Checks and decompresses the contents of the frame at `at`.
    fn contents(
        &mut self,
        at: u64,
        fields: [u8; FRAME_FIELDS],
        frame: Frame,
        contents: &mut Vec<u8>,
    ) -> Result<(), ArchiveError> {
        let mut checksum = [0; CHECKSUM_SIZE];
        self.fill(&mut checksum)?;
        let mut bytes = std::mem::take(&mut self.frame);
        bytes.clear();
        bytes.extend_from_slice(&fields);
        // Both lengths are bounded: `Frame::decode` has looked.
        bytes.resize(FRAME_FIELDS + frame.compressed as usize, 0);
        let (_, compressed) = bytes
            .split_at_mut_checked(FRAME_FIELDS)
            .ok_or(ArchiveError::Truncated { offset: at })?;
        self.fill(compressed)?;
        let compressed = bytes.get(FRAME_FIELDS..).unwrap_or_default();
        if header_checksum(&bytes) != checksum {
            return Err(ArchiveError::Checksum { offset: at });
        }
        contents.clear();
        contents.resize(frame.uncompressed as usize, 0);
        // Into a slice, so that there is room for that much and no more.
        let length = self
            .decompressor
            .decompress_to_buffer(compressed, contents.as_mut_slice())
            .map_err(|source| ArchiveError::Decompress {
                offset: at + FRAME as u64,
                source,
            })?;
        if length != contents.len() {
            return Err(ArchiveError::FrameLength {
                offset: at,
                expected: frame.uncompressed.into(),
                found: length as u64,
            });
        }
        self.frame = bytes;
        Ok(())
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<(), ArchiveError> {
        match read_exact(&mut self.source, &mut [0], self.offset) {
            Err(ArchiveError::Truncated { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(ArchiveError::Behind {
                offset: self.offset,
            }),
        }
    }
}

fn read_exact(source: &mut impl Read, into: &mut [u8], offset: u64) -> Result<(), ArchiveError> {
    source
        .read_exact(into)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated { offset },
            _ => ArchiveError::Read { offset, source },
        })
}

/// The error for a record at `offset` that doesn't decode.
fn record(offset: u64, source: DecodeError) -> ArchiveError {
    match source {
        DecodeError::NewerFormat { found } => ArchiveError::NewerFormat { found },
        DecodeError::Magic { .. } if offset == 0 => ArchiveError::NotAnArchive,
        source => ArchiveError::Record { offset, source },
    }
}
