//! Bounded reading of the fields of a record.

use crate::decode::DecodeError;
use crate::format::{FORMAT_VERSION, ShardEntry};
use crate::page::{FileId, PageId, Region, Sizes};

/// Reads fields one after the other, never beyond the end.
pub(crate) struct Input<'a> {
    pub(crate) bytes: &'a [u8],
    position: usize,
}

impl<'a> Input<'a> {
    /// Checks length, magic and format version.
    pub(crate) fn open(bytes: &'a [u8], magic: [u8; 8], least: usize) -> Result<Self, DecodeError> {
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
            FORMAT_VERSION => Ok(input),
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

    pub(crate) fn shard_entry(&mut self, next: FileId) -> Result<ShardEntry, DecodeError> {
        let file = self.file(next)?;
        let region = self.region()?;
        self.zeros::<4>()?;
        Ok(ShardEntry {
            file,
            region,
            first_page: self.u64()?,
            last_page: self.u64()?,
            pages: self.u64()?,
            header_len: self.u64()?,
            checksum: self.array()?,
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
