//! Bounded reading of the fields of a record.

use crate::decode::DecodeError;
use crate::format::{LogEntry, Origin, SealedLog, ShardEntry};
use crate::page::{FileId, PAGE_BYTES, PageId, Region, Sizes, TenantId, Version};

/// Reads fields one after the other, never beyond the end.
pub(crate) struct Input<'a> {
    pub(crate) bytes: &'a [u8],
    position: usize,
}

impl<'a> Input<'a> {
    /// Fields without a magic.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Input { bytes, position: 0 }
    }

    /// Checks length, magic and format version, and returns the latter.
    pub(crate) fn open(
        bytes: &'a [u8],
        magic: [u8; 8],
        newest: u32,
        least: usize,
    ) -> Result<(Self, u32), DecodeError> {
        if bytes.len() < least {
            return Err(DecodeError::Length {
                expected: least as u64,
                found: bytes.len() as u64,
            });
        }
        let mut input = Input { bytes, position: 0 };
        if input.array::<8>()? != magic {
            return Err(DecodeError::Magic { expected: magic });
        }
        match input.u32()? {
            version if (1..=newest).contains(&version) => Ok((input, version)),
            0 => Err(DecodeError::Field {
                field: "format version",
                value: 0,
            }),
            found => Err(DecodeError::NewerFormat { found }),
        }
    }

    pub(crate) fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.position.checked_add(length));
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or(DecodeError::Length {
            expected: (self.position as u64).saturating_add(length),
            found: self.bytes.len() as u64,
        })?;
        self.position += taken.len();
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bounded32(
        &mut self,
        field: &'static str,
        limit: u32,
    ) -> Result<u32, DecodeError> {
        match self.u32()? {
            value if value > limit => Err(DecodeError::Field {
                field,
                value: value.into(),
            }),
            value => Ok(value),
        }
    }

    /// Skips `N` reserved bytes.
    pub(crate) fn zeros<const N: usize>(&mut self) -> Result<(), DecodeError> {
        match self.array::<N>()?.iter().find(|byte| **byte != 0) {
            Some(byte) => Err(DecodeError::Field {
                field: "reserved",
                value: u64::from(*byte),
            }),
            None => Ok(()),
        }
    }

    /// What is left is padding.
    pub(crate) fn padding(&mut self) -> Result<(), DecodeError> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        match rest.iter().find(|byte| **byte != 0) {
            Some(byte) => Err(DecodeError::Field {
                field: "padding",
                value: u64::from(*byte),
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn flags(&mut self) -> Result<(), DecodeError> {
        match self.u32()? {
            0 => Ok(()),
            value => Err(DecodeError::Field {
                field: "flags",
                value: value.into(),
            }),
        }
    }

    pub(crate) fn sizes(&mut self) -> Result<Sizes, DecodeError> {
        let sizes = Sizes {
            heap: self.u64()?,
            stable: self.u64()?,
        };
        match sizes.excess() {
            Some((Region::Heap, value)) => Err(DecodeError::Field {
                field: "size of the heap",
                value,
            }),
            Some((Region::Stable, value)) => Err(DecodeError::Field {
                field: "size of stable memory",
                value,
            }),
            None => Ok(sizes),
        }
    }

    pub(crate) fn region(&mut self) -> Result<Region, DecodeError> {
        let number = self.u32()?;
        Region::from_number(number).ok_or(DecodeError::Field {
            field: "region",
            value: number.into(),
        })
    }

    pub(crate) fn file(&mut self, next: FileId) -> Result<FileId, DecodeError> {
        match FileId(self.u64()?) {
            file if file < next => Ok(file),
            FileId(value) => Err(DecodeError::Field {
                field: "file number",
                value,
            }),
        }
    }

    pub(crate) fn page(&self, region: Region, page: u64) -> Result<PageId, DecodeError> {
        PageId::new(region, page).ok_or(DecodeError::Field {
            field: "page",
            value: page,
        })
    }

    fn origin(&mut self) -> Result<Origin, DecodeError> {
        Ok(Origin {
            tenant: TenantId(self.array()?),
            file: FileId(self.u64()?),
        })
    }

    /// A shard's entry; of version 1 if it is given whose.
    pub(crate) fn shard_entry(
        &mut self,
        next: FileId,
        version_1: Option<TenantId>,
    ) -> Result<ShardEntry, DecodeError> {
        let file = self.file(next)?;
        let origin = match version_1 {
            Some(tenant) => Origin { tenant, file },
            None => self.origin()?,
        };
        let region = self.region()?;
        self.zeros::<4>()?;
        let entry = ShardEntry {
            file,
            origin,
            region,
            first_page: self.u64()?,
            last_page: self.u64()?,
            pages: self.u64()?,
            header_len: self.u64()?,
            checksum: self.array()?,
        };
        if version_1.is_none() {
            self.zeros::<8>()?;
        }
        Ok(entry)
    }

    pub(crate) fn sealed_log(&mut self, next: FileId) -> Result<SealedLog, DecodeError> {
        let log = SealedLog {
            file: self.file(next)?,
            origin: self.origin()?,
            seed: self.array()?,
            begin: Version(self.u64()?),
            length: self.u64()?,
            checksum: self.array()?,
        };
        if log.length == 0 || !log.length.is_multiple_of(PAGE_BYTES) {
            return Err(DecodeError::Field {
                field: "length of a sealed log",
                value: log.length,
            });
        }
        Ok(log)
    }

    pub(crate) fn active_log(
        &mut self,
        next: FileId,
        tenant: TenantId,
        version: Version,
    ) -> Result<LogEntry, DecodeError> {
        let file = self.file(next)?;
        let origin = self.origin()?;
        if origin != (Origin { tenant, file }) {
            return Err(DecodeError::Field {
                field: "origin of the active log",
                value: origin.file.0,
            });
        }
        let seed = self.array()?;
        let begin = self.u64()?;
        if begin != version.0 {
            return Err(DecodeError::Field {
                field: "version before the active log",
                value: begin,
            });
        }
        let durable_len = self.u64()?;
        self.zeros::<16>()?;
        Ok(LogEntry {
            file,
            seed,
            durable_len,
        })
    }

    /// A page address above `after` and inside `sizes`.
    pub(crate) fn address(
        &mut self,
        sizes: &Sizes,
        after: Option<PageId>,
    ) -> Result<PageId, DecodeError> {
        let value = self.u64()?;
        PageId::from_bits(value)
            .filter(|page| sizes.contain(*page) && after < Some(*page))
            .ok_or(DecodeError::Field {
                field: "address",
                value,
            })
    }

    /// How many entries to make room for: `count`, if that many can be left.
    pub(crate) fn entries(&self, count: u64, size: usize) -> Result<usize, DecodeError> {
        let left = self.bytes.len().saturating_sub(self.position) / size;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= left)
            .ok_or(DecodeError::Length {
                expected: count.saturating_mul(size as u64),
                found: self.bytes.len() as u64,
            })
    }
}
