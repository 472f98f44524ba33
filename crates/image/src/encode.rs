//! Records to bytes. The inverse of `decode`.

use crate::checksum::{CHECKSUM_SIZE, header_checksum};
use crate::format::{
    FORMAT_VERSION, MANIFEST_MAGIC, Manifest, Origin, RECORD_VERSION, SEGMENT_FIXED, SEGMENT_MAGIC,
    SHARD_MAGIC, SegmentFields, ShardHeader, shard_header_len,
};
use crate::page::{PageId, TenantId};

/// The bytes of `manifest`.
pub fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::new();
    start(&mut out, MANIFEST_MAGIC, FORMAT_VERSION, manifest.tenant);
    put64(&mut out, manifest.version.0);
    put64(&mut out, manifest.sizes.heap);
    put64(&mut out, manifest.sizes.stable);
    put64(&mut out, manifest.next_file.0);
    put32(&mut out, manifest.shards.len() as u32);
    put32(&mut out, manifest.sealed.len() as u32 + 1);
    put64(&mut out, manifest.meta.len() as u64);
    out.extend_from_slice(&[0; 16]);
    for shard in &manifest.shards {
        put64(&mut out, shard.file.0);
        put_origin(&mut out, &shard.origin);
        put32(&mut out, shard.region.number());
        put32(&mut out, 0);
        put64(&mut out, shard.first_page);
        put64(&mut out, shard.last_page);
        put64(&mut out, shard.pages);
        put64(&mut out, shard.header_len);
        out.extend_from_slice(&shard.checksum);
        put64(&mut out, 0);
    }
    for log in &manifest.sealed {
        put64(&mut out, log.file.0);
        put_origin(&mut out, &log.origin);
        out.extend_from_slice(&log.seed);
        put64(&mut out, log.begin.0);
        put64(&mut out, log.length);
        out.extend_from_slice(&log.checksum);
    }
    let log = &manifest.log;
    put64(&mut out, log.file.0);
    let origin = Origin {
        tenant: manifest.tenant,
        file: log.file,
    };
    put_origin(&mut out, &origin);
    out.extend_from_slice(&log.seed);
    put64(&mut out, manifest.version.0);
    put64(&mut out, log.durable_len);
    out.extend_from_slice(&[0; CHECKSUM_SIZE]);
    out.extend_from_slice(&manifest.meta);
    finish(&mut out);
    out
}

/// The bytes of a shard's header, padded to whole pages. `None` if its counts are out of bounds.
pub fn encode_shard_header(header: &ShardHeader) -> Option<Vec<u8>> {
    let (runs, pages) = (header.runs.len() as u64, header.checksums.len() as u64);
    let length = shard_header_len(runs, pages)?;
    let mut out = Vec::with_capacity(usize::try_from(length).ok()?);
    start(&mut out, SHARD_MAGIC, RECORD_VERSION, header.tenant);
    put64(&mut out, header.file.0);
    put32(&mut out, header.region.number());
    put32(&mut out, 0);
    put64(&mut out, runs);
    put64(&mut out, pages);
    put64(&mut out, length);
    out.extend_from_slice(&[0; 24]);
    for (first, pages) in &header.runs {
        put64(&mut out, *first);
        put64(&mut out, *pages);
    }
    for checksum in &header.checksums {
        put64(&mut out, *checksum);
    }
    out.resize(usize::try_from(length).ok()? - CHECKSUM_SIZE, 0);
    finish(&mut out);
    Some(out)
}

/// A segment's header under construction: the page table grows while the pages are being written, the
/// rest comes at the end, when it is known which of them were zero.
#[derive(Debug, Default)]
pub struct SegmentEncoder {
    bytes: Vec<u8>,
}

impl SegmentEncoder {
    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Begins a header, keeping the memory of the one before.
    pub fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.resize(SEGMENT_FIXED, 0);
    }

    /// Adds a page with data. Pages come in ascending order.
    #[inline]
    pub fn data_page(&mut self, page: PageId, checksum: u64) {
        put64(&mut self.bytes, page.bits());
        put64(&mut self.bytes, checksum);
    }

    /// Completes the header: `fields` must count the pages added, `zeros` and `meta`. Returns its bytes,
    /// or `None` if the counts are out of bounds or don't match.
    pub fn finish(
        &mut self,
        fields: &SegmentFields,
        zeros: &[PageId],
        meta: &[u8],
    ) -> Option<&[u8]> {
        let length = fields.header_len()?;
        let data = (self.bytes.len() - SEGMENT_FIXED) / crate::format::PAGE_ENTRY;
        let counts = (data as u64, zeros.len() as u64, meta.len() as u64);
        if counts != (fields.data_pages, fields.zero_pages, fields.meta_len) {
            return None;
        }
        let mut fixed = Vec::with_capacity(SEGMENT_FIXED);
        start(&mut fixed, SEGMENT_MAGIC, RECORD_VERSION, fields.tenant);
        put64(&mut fixed, fields.version.0);
        put64(&mut fixed, fields.durable_upto);
        put64(&mut fixed, fields.sizes.heap);
        put64(&mut fixed, fields.sizes.stable);
        put64(&mut fixed, fields.data_pages);
        put64(&mut fixed, fields.zero_pages);
        put64(&mut fixed, fields.meta_len);
        put64(&mut fixed, length);
        fixed.extend_from_slice(&fields.previous);
        fixed.resize(SEGMENT_FIXED, 0);
        self.bytes.get_mut(..SEGMENT_FIXED)?.copy_from_slice(&fixed);
        for zero in zeros {
            put64(&mut self.bytes, zero.bits());
        }
        self.bytes.extend_from_slice(meta);
        self.bytes
            .resize(usize::try_from(length).ok()? - CHECKSUM_SIZE, 0);
        finish(&mut self.bytes);
        Some(&self.bytes)
    }
}

fn start(out: &mut Vec<u8>, magic: [u8; 8], version: u32, tenant: TenantId) {
    out.extend_from_slice(&magic);
    put32(out, version);
    put32(out, 0);
    out.extend_from_slice(&tenant.0);
}

fn finish(out: &mut Vec<u8>) {
    let checksum = header_checksum(out);
    out.extend_from_slice(&checksum);
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    out.extend_from_slice(&origin.tenant.0);
    put64(out, origin.file.0);
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
