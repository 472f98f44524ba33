//! Bytes to records: everything that is read from a file passes through here.
//!
//! No function here panics, whatever the bytes, and none allocates more than a small multiple of the
//! length of its input. They are public for fuzzing.

use crate::checksum::{CHECKSUM_SIZE, Checksum, header_checksum};
use crate::format::{
    FORMAT_VERSION, LOG_ENTRY, LOG_ENTRY_1, LogEntry, MANIFEST_FIXED, MANIFEST_MAGIC, MAX_LOGS,
    MAX_SHARD_PAGES, MAX_SHARDS, Manifest, PAGE_ENTRY, RECORD_VERSION, SEGMENT_FIXED,
    SEGMENT_MAGIC, SHARD_ENTRY, SHARD_ENTRY_1, SHARD_FIXED, SHARD_MAGIC, SegmentFields,
    SegmentHeader, ShardHeader, shard_header_len,
};
use crate::input::Input;
use crate::page::{FileId, MAX_META, MAX_PAGES, Region, TenantId, Version};

/// Why bytes are not a valid record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer (or, in a manifest, more) bytes than the record takes.
    #[error("{found} bytes where {expected} are needed")]
    Length {
        /// The bytes that the record takes.
        expected: u64,
        /// The bytes that there are.
        found: u64,
    },
    /// It doesn't begin with the record's magic.
    #[error("it does not begin with {:?}", String::from_utf8_lossy(.expected))]
    Magic {
        /// What it should begin with.
        expected: [u8; 8],
    },
    /// Written by a newer release of Lazaret.
    #[error("format version {found} is newer than this release reads")]
    NewerFormat {
        /// The version in the file.
        found: u32,
    },
    /// The checksum doesn't match: the bytes are damaged or incomplete.
    #[error("its checksum does not match")]
    Checksum,
    /// A field has a value that it can't have.
    #[error("field {field} has the impossible value {value}")]
    Field {
        /// The field's name in `docs/format.md`.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// Decodes a whole `manifest` file.
///
/// # Errors
///
/// Whatever is not exactly one valid manifest.
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, DecodeError> {
    let (mut input, format) = Input::open(
        bytes,
        MANIFEST_MAGIC,
        FORMAT_VERSION,
        MANIFEST_FIXED + LOG_ENTRY_1 + CHECKSUM_SIZE,
    )?;
    // Nothing in a manifest is needed before its checksum can be checked: it is the whole file.
    let (body, _) = checked(bytes)?;
    input.bytes = body;
    input.flags()?;
    let tenant = TenantId(input.array()?);
    let version = Version(input.u64()?);
    let sizes = input.sizes()?;
    let next_file = FileId(input.u64()?);
    let shard_count = input.bounded32("number of shards", MAX_SHARDS)?;
    let logs = input.u32()?;
    let (shard_entry, log_entry, most_logs) = match format {
        1 => (SHARD_ENTRY_1, LOG_ENTRY_1, 1),
        _ => (SHARD_ENTRY, LOG_ENTRY, MAX_LOGS),
    };
    if logs == 0 || logs > most_logs {
        return Err(DecodeError::Field {
            field: "number of logs",
            value: logs.into(),
        });
    }
    let meta_len = input.u64()?;
    if meta_len > MAX_META as u64 {
        return Err(DecodeError::Field {
            field: "length of meta",
            value: meta_len,
        });
    }
    input.zeros::<16>()?;
    let expected = MANIFEST_FIXED as u64
        + u64::from(shard_count) * shard_entry as u64
        + u64::from(logs) * log_entry as u64
        + meta_len
        + CHECKSUM_SIZE as u64;
    if bytes.len() as u64 != expected {
        return Err(DecodeError::Length {
            expected,
            found: bytes.len() as u64,
        });
    }
    let mut shards = Vec::with_capacity(shard_count as usize);
    let mut free_from = None;
    for _ in 0..shard_count {
        let shard = input.shard_entry(next_file, (format == 1).then_some(tenant))?;
        let first = input.page(shard.region, shard.first_page)?;
        let last = input.page(shard.region, shard.last_page)?;
        if last < first || free_from >= Some(first) {
            return Err(DecodeError::Field {
                field: "first page",
                value: shard.first_page,
            });
        }
        if shard.pages == 0 || shard.pages > (last.page() - first.page() + 1).min(MAX_SHARD_PAGES) {
            return Err(DecodeError::Field {
                field: "pages stored",
                value: shard.pages,
            });
        }
        if !sizes.contain(last) {
            return Err(DecodeError::Field {
                field: "last page",
                value: shard.last_page,
            });
        }
        free_from = Some(last);
        shards.push(shard);
    }
    let mut sealed = Vec::with_capacity(logs as usize - 1);
    for _ in 1..logs {
        sealed.push(input.sealed_log(next_file)?);
    }
    let log = if format == 1 {
        let log = LogEntry {
            file: input.file(next_file)?,
            seed: input.array()?,
            durable_len: input.u64()?,
        };
        input.zeros::<8>()?;
        log
    } else {
        input.active_log(next_file, tenant, version)?
    };
    let shard_files = shards.iter().map(|shard| shard.file);
    let log_files = sealed.iter().map(|log| log.file);
    let mut files: Vec<FileId> = shard_files.chain(log_files).chain([log.file]).collect();
    files.sort_unstable();
    if let Some([twice, _]) = files.windows(2).find(|pair| pair.first() == pair.last()) {
        return Err(DecodeError::Field {
            field: "file number",
            value: twice.0,
        });
    }
    let meta = input.take(meta_len)?.to_vec();
    Ok(Manifest {
        tenant,
        version,
        sizes,
        next_file,
        shards,
        sealed,
        log,
        meta,
    })
}

/// Decodes a shard's header, which `bytes` must begin with and may extend beyond.
///
/// # Errors
///
/// Whatever is not a valid header, and bytes that end before the header does.
pub fn decode_shard_header(bytes: &[u8]) -> Result<(ShardHeader, Checksum), DecodeError> {
    let (front, mut table, checksum) = shard_front(bytes)?;
    let mut checksums = Vec::with_capacity(front.pages as usize);
    for _ in 0..front.pages {
        checksums.push(table.u64()?);
    }
    let ShardFront {
        tenant,
        file,
        region,
        runs,
        ..
    } = front;
    Ok((
        ShardHeader {
            tenant,
            file,
            region,
            runs,
            checksums,
        },
        checksum,
    ))
}

/// A shard's header without the checksums of the pages, which opening an image has no use for.
pub(crate) struct ShardFront {
    pub(crate) tenant: TenantId,
    pub(crate) file: FileId,
    pub(crate) region: Region,
    /// First page and number of pages.
    pub(crate) runs: Vec<(u64, u64)>,
    /// How many pages the runs have.
    pub(crate) pages: u64,
}

/// Like [`decode_shard_header`], and as strict.
pub(crate) fn decode_shard_front(bytes: &[u8]) -> Result<(ShardFront, Checksum), DecodeError> {
    let (front, _, checksum) = shard_front(bytes)?;
    Ok((front, checksum))
}

/// Checks the whole header. Beside the front, gives the checksums of the pages, not yet decoded.
fn shard_front(bytes: &[u8]) -> Result<(ShardFront, Input<'_>, Checksum), DecodeError> {
    let (mut input, _) = Input::open(bytes, SHARD_MAGIC, RECORD_VERSION, SHARD_FIXED)?;
    input.flags()?;
    let tenant = TenantId(input.array()?);
    let file = FileId(input.u64()?);
    let region = input.region()?;
    input.zeros::<4>()?;
    let (run_count, page_count, header_len) = (input.u64()?, input.u64()?, input.u64()?);
    input.zeros::<24>()?;
    if shard_header_len(run_count, page_count) != Some(header_len) {
        return Err(DecodeError::Field {
            field: "length of the header",
            value: header_len,
        });
    }
    let (body, checksum) = checked(prefix(bytes, header_len)?)?;
    input.bytes = body;
    let mut runs = Vec::with_capacity(run_count as usize);
    let (mut total, mut free_from) = (0u64, 0);
    for _ in 0..run_count {
        let (first, pages) = (input.u64()?, input.u64()?);
        let end = first.checked_add(pages).filter(|end| *end <= MAX_PAGES);
        let Some(end) = end.filter(|_| pages > 0) else {
            return Err(DecodeError::Field {
                field: "number of pages of a run",
                value: pages,
            });
        };
        if first < free_from {
            return Err(DecodeError::Field {
                field: "first page of a run",
                value: first,
            });
        }
        free_from = end + 1;
        total += pages; // Each at most 2^36, at most 2^18 of them.
        runs.push((first, pages));
    }
    if total != page_count {
        return Err(DecodeError::Field {
            field: "number of pages",
            value: page_count,
        });
    }
    // The length of the header, which these are a part of, didn't overflow.
    let table = Input::of(input.take(8 * page_count)?);
    input.padding()?;
    let front = ShardFront {
        tenant,
        file,
        region,
        runs,
        pages: page_count,
    };
    Ok((front, table, checksum))
}

/// Decodes the fixed part of a segment's header, to learn how long the header is. Nothing in it can be
/// relied on before [`decode_segment_header`] has checked the whole.
///
/// # Errors
///
/// A wrong magic or format version, counts out of bounds, too few bytes.
pub fn decode_segment_fields(bytes: &[u8]) -> Result<(SegmentFields, u64), DecodeError> {
    segment_fields(bytes).map(|(fields, header_len, _)| (fields, header_len))
}

/// Decodes a segment's header, which `bytes` must begin with and may extend beyond.
///
/// # Errors
///
/// Whatever is not a valid header, and bytes that end before the header does.
pub fn decode_segment_header(bytes: &[u8]) -> Result<SegmentHeader, DecodeError> {
    let (fields, header_len, mut input) = segment_fields(bytes)?;
    let (body, checksum) = checked(prefix(bytes, header_len)?)?;
    input.bytes = body;
    let mut data = Vec::with_capacity(input.entries(fields.data_pages, PAGE_ENTRY)?);
    for _ in 0..fields.data_pages {
        let page = input.address(&fields.sizes, data.last().map(|(page, _)| *page))?;
        data.push((page, input.u64()?));
    }
    let mut zeros = Vec::with_capacity(input.entries(fields.zero_pages, 8)?);
    for _ in 0..fields.zero_pages {
        let page = input.address(&fields.sizes, zeros.last().copied())?;
        if data.binary_search_by_key(&page, |(page, _)| *page).is_ok() {
            return Err(DecodeError::Field {
                field: "address",
                value: page.bits(),
            });
        }
        zeros.push(page);
    }
    let meta = input.take(fields.meta_len)?.to_vec();
    input.padding()?;
    Ok(SegmentHeader {
        fields,
        header_len,
        data,
        zeros,
        meta,
        checksum,
    })
}

fn segment_fields(bytes: &[u8]) -> Result<(SegmentFields, u64, Input<'_>), DecodeError> {
    let (mut input, _) = Input::open(bytes, SEGMENT_MAGIC, RECORD_VERSION, SEGMENT_FIXED)?;
    input.flags()?;
    let tenant = TenantId(input.array()?);
    let version = Version(input.u64()?);
    let durable_upto = input.u64()?;
    let sizes = input.sizes()?;
    let (data_pages, zero_pages, meta_len) = (input.u64()?, input.u64()?, input.u64()?);
    let header_len = input.u64()?;
    let previous = input.array()?;
    input.zeros::<16>()?;
    let fields = SegmentFields {
        tenant,
        version,
        durable_upto,
        sizes,
        data_pages,
        zero_pages,
        meta_len,
        previous,
    };
    if fields.header_len() != Some(header_len) {
        return Err(DecodeError::Field {
            field: "length of the header",
            value: header_len,
        });
    }
    Ok((fields, header_len, input))
}

/// The first `length` bytes.
fn prefix(bytes: &[u8], length: u64) -> Result<&[u8], DecodeError> {
    let short = DecodeError::Length {
        expected: length,
        found: bytes.len() as u64,
    };
    usize::try_from(length)
        .ok()
        .and_then(|length| bytes.get(..length))
        .ok_or(short)
}

/// Splits off the checksum at the end, and checks it.
fn checked(bytes: &[u8]) -> Result<(&[u8], Checksum), DecodeError> {
    match bytes.split_last_chunk::<CHECKSUM_SIZE>() {
        Some((body, checksum)) if header_checksum(body) == *checksum => Ok((body, *checksum)),
        _ => Err(DecodeError::Checksum),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
