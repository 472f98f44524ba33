//! Walking a log from segment to segment: which are published, and which of them must be verified.

use std::path::PathBuf;

use crate::checksum::{Checksum, is_zero, page_checksum, pages_of};
use crate::commit::CHUNK_PAGES;
use crate::decode::{DecodeError, decode_segment_fields, decode_segment_header};
use crate::error::{Action, Damage, FileError, OpenError};
use crate::format::{SEGMENT_MAGIC, SegmentHeader};
use crate::page::{PAGE_BYTES, PAGE_SIZE, TenantId, Version};
use crate::recovery::record;
use crate::storage::{ReadAt, Storage};

/// Why walking the log stopped.
enum Stop {
    Torn(Damage),
    Fatal(OpenError),
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Stop {
        Stop::Fatal(error)
    }
}

/// A segment found while walking.
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) header: SegmentHeader,
}

/// What the next segment must link to.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) offset: u64,
    pub(crate) version: Version,
    pub(crate) chain: Checksum,
}

/// A log being walked.
pub(crate) struct Walk<'a, S: Storage> {
    pub(crate) storage: &'a S,
    pub(crate) name: &'a str,
    pub(crate) file: &'a S::File,
    pub(crate) length: u64,
    pub(crate) tenant: TenantId,
}

/// A log after the walk.
pub(crate) struct Walked {
    pub(crate) segments: Vec<Found>,
    pub(crate) verified: u64,
    pub(crate) end: Link,
    pub(crate) durable: u64,
    pub(crate) torn: Option<Damage>,
}

impl<S: Storage> Walk<'_, S> {
    /// The algorithm of `docs/format.md`, section "Recovery".
    pub(crate) fn recover(&self, begin: Link, durable_len: u64) -> Result<Walked, OpenError> {
        let mut segments = Vec::new();
        let (mut end, torn) = self.follow(begin, &mut segments, false)?;
        let torn = self.unless_zeros(end, torn)?;
        let claims = segments
            .iter()
            .map(|found| found.header.fields.durable_upto);
        let mut durable = claims.fold(durable_len, u64::max);
        if torn.is_some() {
            durable = durable.max(self.claims_beyond(end)?);
        }
        if durable > end.offset {
            let damage = torn.unwrap_or(Damage::Short {
                expected: durable - end.offset,
                found: 0,
            });
            return Err(OpenError::Segment {
                path: self.path(),
                offset: end.offset,
                damage,
            });
        }
        let settled = segments.partition_point(|found| found.offset < durable);
        let mut torn = torn;
        if settled < segments.len() || torn.is_some() {
            // Again from there, from the disk and page by page.
            segments.truncate(settled);
            self.storage.forget(self.file, durable);
            end = segments.last().map_or(begin, Found::link);
            (end, torn) = self.follow(end, &mut segments, true)?;
            torn = self.unless_zeros(end, torn)?;
        }
        let verified = (segments.len() - settled) as u64;
        Ok(Walked {
            segments,
            verified,
            end,
            durable,
            torn,
        })
    }

    /// Zeros up to the end of the file aren't torn: they are written ahead.
    fn unless_zeros(&self, end: Link, torn: Option<Damage>) -> Result<Option<Damage>, OpenError> {
        let Some(damage) = torn else {
            return Ok(None);
        };
        let mut buffer = Vec::new();
        let mut offset = end.offset;
        while offset < self.length {
            // A page first: mostly that settles it.
            let most = if offset == end.offset {
                PAGE_BYTES
            } else {
                CHUNK_PAGES as u64 * PAGE_BYTES
            };
            buffer.resize((self.length - offset).min(most) as usize, 0);
            self.read(&mut buffer, offset)?;
            if !is_zero(&buffer) {
                return Ok(Some(damage));
            }
            offset += buffer.len() as u64;
        }
        Ok(None)
    }

    /// The segments of a sealed log: exactly `length` bytes of them, all of which were on disk when it was sealed.
    pub(crate) fn sealed(
        &self,
        begin: Link,
        length: u64,
        checksum: Checksum,
    ) -> Result<Vec<Found>, OpenError> {
        let mut segments = Vec::new();
        let (end, torn) = self.follow(begin, &mut segments, false)?;
        if end.offset != length {
            let damage = torn.unwrap_or(Damage::Short {
                expected: length - end.offset,
                found: 0,
            });
            return Err(OpenError::Segment {
                path: self.path(),
                offset: end.offset,
                damage,
            });
        }
        if end.chain != checksum {
            return Err(OpenError::Mismatch {
                path: self.path(),
                what: "last segment",
            });
        }
        Ok(segments)
    }

    /// The segments in front of the first bad one, by their headers alone: to look at what a damaged log still has.
    pub(crate) fn sound(&self, begin: Link) -> Vec<Found> {
        let mut segments = Vec::new();
        // Whoever asks has been told already why the walk ends early.
        let _ = self.follow(begin, &mut segments, false);
        segments
    }

    /// Collects segments up to the end of the file, or to one that isn't published.
    fn follow(
        &self,
        begin: Link,
        into: &mut Vec<Found>,
        verify: bool,
    ) -> Result<(Link, Option<Damage>), OpenError> {
        let mut link = begin;
        while link.offset < self.length {
            match self.segment(link, verify) {
                Ok(found) => {
                    link = found.link();
                    into.push(found);
                }
                Err(Stop::Torn(damage)) => return Ok((link, Some(damage))),
                Err(Stop::Fatal(error)) => return Err(error),
            }
        }
        Ok((link, None))
    }

    /// The segment at `link`, if it is published.
    fn segment(&self, link: Link, verify: bool) -> Result<Found, Stop> {
        let header = self.header(link.offset)?;
        let fields = &header.fields;
        let left = self.length - link.offset;
        if fields.tenant != self.tenant {
            let (expected, found) = (self.tenant, fields.tenant);
            return Err(OpenError::OtherTenant {
                path: self.path(),
                offset: link.offset,
                expected,
                found,
            }
            .into());
        }
        if fields.version.0.checked_sub(1) != Some(link.version.0) || fields.previous != link.chain
        {
            let expected = link.version.0.saturating_add(1);
            return Err(Stop::Torn(Damage::Chain {
                expected,
                found: fields.version.0,
            }));
        }
        if fields.durable_upto > link.offset {
            return Err(Stop::Torn(Damage::DurableUpto {
                durable_upto: fields.durable_upto,
            }));
        }
        if header.segment_len() > left {
            return Err(Stop::Torn(Damage::Short {
                expected: header.segment_len(),
                found: left,
            }));
        }
        if verify {
            self.verify(link.offset + header.header_len, &header)?;
        }
        Ok(Found {
            offset: link.offset,
            header,
        })
    }

    /// Reads and decodes the header at `offset`. Allocates no more than the file has.
    fn header(&self, offset: u64) -> Result<SegmentHeader, Stop> {
        let left = self.length - offset;
        let mut bytes = vec![0; left.min(PAGE_BYTES) as usize];
        self.read(&mut bytes, offset)?;
        let (_, header_len) =
            decode_segment_fields(&bytes).map_err(|error| self.bad_header(offset, error))?;
        if header_len > left {
            return Err(Stop::Torn(Damage::Short {
                expected: header_len,
                found: left,
            }));
        }
        if header_len > PAGE_BYTES {
            let length = usize::try_from(header_len)
                .map_err(|_| OpenError::TooLarge { path: self.path() })?;
            bytes.resize(length, 0);
            if let Some(rest) = bytes.get_mut(PAGE_SIZE..) {
                self.read(rest, offset + PAGE_BYTES)?;
            }
        }
        decode_segment_header(&bytes).map_err(|error| self.bad_header(offset, error))
    }

    fn bad_header(&self, offset: u64, error: DecodeError) -> Stop {
        match error {
            DecodeError::NewerFormat { .. } => {
                record(self.storage, self.name, offset, error).into()
            }
            error => Stop::Torn(Damage::Header(error)),
        }
    }

    fn verify(&self, data: u64, header: &SegmentHeader) -> Result<(), Stop> {
        let mut buffer = vec![0; header.data.len().min(CHUNK_PAGES) * PAGE_SIZE];
        let mut offset = data;
        for entries in header.data.chunks(CHUNK_PAGES) {
            let chunk = buffer
                .get_mut(..entries.len() * PAGE_SIZE)
                .unwrap_or_default();
            self.read(chunk, offset)?;
            offset += chunk.len() as u64;
            for ((page, checksum), bytes) in entries.iter().zip(pages_of(chunk)) {
                if page_checksum(bytes) != *checksum {
                    return Err(Stop::Torn(Damage::Page { page: *page }));
                }
            }
        }
        Ok(())
    }

    /// The most that valid headers behind a bad one claim to be durable: a torn tail has none that claims anything
    /// behind `end`, so they tell it from damage in the middle. Page data can't be taken for a header, as no
    /// tenant knows its id.
    fn claims_beyond(&self, end: Link) -> Result<u64, OpenError> {
        let mut claimed = 0;
        let mut buffer = vec![0; CHUNK_PAGES * PAGE_SIZE];
        let mut offset = end.offset.saturating_add(PAGE_BYTES);
        while offset < self.length {
            let length = (self.length - offset).min(buffer.len() as u64);
            let chunk = buffer.get_mut(..length as usize).unwrap_or_default();
            self.read(chunk, offset)?;
            for (position, block) in chunk.chunks(PAGE_SIZE).enumerate() {
                let at = offset + (position * PAGE_SIZE) as u64;
                let ours = block.starts_with(&SEGMENT_MAGIC)
                    && decode_segment_fields(block).is_ok_and(|(fields, _)| {
                        fields.tenant == self.tenant
                            && fields.version > end.version
                            && fields.durable_upto <= at
                    });
                if !ours {
                    continue;
                }
                match self.header(at) {
                    Ok(header) => claimed = claimed.max(header.fields.durable_upto),
                    Err(Stop::Torn(_)) => {}
                    Err(Stop::Fatal(error)) => return Err(error),
                }
            }
            offset += length;
        }
        Ok(claimed)
    }

    fn read(&self, into: &mut [u8], offset: u64) -> Result<(), OpenError> {
        let read = self.file.pread(into, offset);
        Ok(read.map_err(|error| {
            FileError::new(self.storage, Action::Read, self.name, offset, error)
        })?)
    }

    fn path(&self) -> PathBuf {
        self.storage.path().join(self.name)
    }
}

impl Found {
    fn link(&self) -> Link {
        Link {
            offset: self.offset + self.header.segment_len(),
            version: self.header.fields.version,
            chain: self.header.checksum,
        }
    }
}
