//! Bounded encoding: fixed widths, little endian, lengths before bytes.
//!
//! A [`Reader`] borrows its input, checks every length against what is left
//! and against the bound of the field, and never panics. A [`Writer`] writes
//! into a buffer and refuses what is over a bound, so that a message that
//! can't be decoded is not sent either.

use thiserror::Error;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside a field.
    #[error("{field}: needs {needed} bytes at offset {at}, but only {left} are left")]
    Short {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
        /// How many bytes it needs.
        needed: usize,
        /// How many are there.
        left: usize,
    },
    /// A length or count is over its bound.
    #[error("{field}: {value} is over the bound of {bound}")]
    Bound {
        /// The field.
        field: &'static str,
        /// The value found.
        value: u64,
        /// The bound.
        bound: u64,
    },
    /// A tag has no meaning.
    #[error("{field}: {value} is not a known value")]
    Tag {
        /// The field.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// Text is not UTF-8.
    #[error("{field}: not UTF-8")]
    Utf8 {
        /// The field.
        field: &'static str,
    },
    /// Bytes follow the message.
    #[error("{left} bytes follow the end of the message")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// Why a message can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A length or count is over its bound.
    #[error("{field}: {value} is over the bound of {bound}")]
    Bound {
        /// The field.
        field: &'static str,
        /// The value given.
        value: u64,
        /// The bound.
        bound: u64,
    },
    /// The message is longer than its area.
    #[error("the message has {length} bytes, and its area only {area}")]
    Area {
        /// Bytes of the message.
        length: usize,
        /// Bytes of the area.
        area: usize,
    },
}

/// Reads fields off a byte slice, in order.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, field: &'static str, n: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.bytes.len() - self.at;
        match self.bytes[self.at..].get(..n) {
            Some(found) => {
                self.at += n;
                Ok(found)
            }
            None => Err(DecodeError::Short {
                field,
                at: self.at,
                needed: n,
                left,
            }),
        }
    }

    /// The next byte, which stays to be read.
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// A 16-bit number.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// A 32-bit number.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A 64-bit number.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A 128-bit number.
    pub fn u128(&mut self, field: &'static str) -> Result<u128, DecodeError> {
        self.array(field).map(u128::from_le_bytes)
    }

    /// A truth value: 0 or 1 and nothing else.
    pub fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Tag {
                field,
                value: other.into(),
            }),
        }
    }

    /// A count of at most `bound`.
    pub fn count(&mut self, field: &'static str, bound: usize) -> Result<usize, DecodeError> {
        let value = self.u32(field)?;
        match usize::try_from(value) {
            Ok(n) if n <= bound => Ok(n),
            _ => Err(DecodeError::Bound {
                field,
                value: value.into(),
                bound: bound as u64,
            }),
        }
    }

    /// A length of at most `bound`, then as many bytes.
    pub fn bytes(&mut self, field: &'static str, bound: usize) -> Result<&'a [u8], DecodeError> {
        let n = self.count(field, bound)?;
        self.take(field, n)
    }

    /// The same as text.
    pub fn text(&mut self, field: &'static str, bound: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field, bound)?).map_err(|_| DecodeError::Utf8 { field })
    }

    /// A presence flag, then what `read` reads.
    pub fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag(field)? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A count of at most `bound`, then as many of what `read` reads. Room is
    /// set aside only for what the rest of the input could hold.
    pub fn list<T>(
        &mut self,
        field: &'static str,
        bound: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut out = Vec::new();
        self.list_over(field, bound, &mut out, &mut read)?;
        Ok(out)
    }

    /// The same into a list that is there already.
    pub fn list_over<T>(
        &mut self,
        field: &'static str,
        bound: usize,
        out: &mut Vec<T>,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<(), DecodeError> {
        let n = self.count(field, bound)?;
        out.clear();
        out.reserve(n.min(self.bytes.len() - self.at));
        for _ in 0..n {
            out.push(read(self)?);
        }
        Ok(())
    }

    /// A length of at most `bound`, then as many bytes, into a buffer that is
    /// there already.
    pub fn bytes_over(
        &mut self,
        field: &'static str,
        bound: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let bytes = self.bytes(field, bound)?;
        out.clear();
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { left }),
        }
    }
}

/// Appends fields to a buffer that is kept between messages.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that replaces what `out` holds.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self { out }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// A 16-bit number.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A 32-bit number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A 64-bit number.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A 128-bit number.
    pub fn u128(&mut self, value: u128) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A truth value.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(value.into())
    }

    /// A count of at most `bound`.
    pub fn count(
        &mut self,
        field: &'static str,
        n: usize,
        bound: usize,
    ) -> Result<&mut Self, EncodeError> {
        match u32::try_from(n) {
            Ok(value) if n <= bound => Ok(self.u32(value)),
            _ => Err(EncodeError::Bound {
                field,
                value: n as u64,
                bound: bound as u64,
            }),
        }
    }

    /// A length of at most `bound`, then the bytes.
    pub fn bytes(
        &mut self,
        field: &'static str,
        bytes: &[u8],
        bound: usize,
    ) -> Result<&mut Self, EncodeError> {
        Ok(self.count(field, bytes.len(), bound)?.raw(bytes))
    }

    /// A presence flag, then what `write` writes.
    pub fn option<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<&mut Self, EncodeError> {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value)?;
        }
        Ok(self)
    }

    /// A count of at most `bound`, then what `write` writes of each.
    pub fn list<T>(
        &mut self,
        field: &'static str,
        items: &[T],
        bound: usize,
        mut write: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<&mut Self, EncodeError> {
        self.count(field, items.len(), bound)?;
        for item in items {
            write(self, item)?;
        }
        Ok(self)
    }

    /// How many bytes are written.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing is written yet.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }
}

/// A message with one encoding.
pub trait Message: Sized {
    /// Appends the message.
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError>;
    /// Reads the message.
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads the message into self, whose buffers are used again where that
    /// saves an allocation. After an error self is a mixture.
    fn replace_decoded(&mut self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        *self = Self::decode(from)?;
        Ok(())
    }

    /// Decodes a message that fills `bytes`.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = Self::decode(&mut reader)?;
        reader.end()?;
        Ok(message)
    }

    /// Decodes a message that fills `bytes` into self ([`Message::replace_decoded`]).
    fn replace_from_bytes(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        self.replace_decoded(&mut reader)?;
        reader.end()
    }

    /// Encodes into `out`, replacing what it holds.
    fn to_bytes(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode(&mut Writer::new(out))
    }
}
