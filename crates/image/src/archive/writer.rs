//! Writing an archive.

use std::io::{self, Write};

use super::format::{ArchiveHeader, FRAME_PAGES, Frame, Kind, MAX_FRAME, PAGE_AND_ADDRESS, Totals};
use crate::checksum::header_checksum;
use crate::error::ExportError;
use crate::page::{PageId, TenantId};
use crate::read::Verify;
use crate::storage::ReadAt;
use crate::view::View;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Pages in the archive.
    pub pages: u64,
    /// The archive's length in bytes.
    pub bytes: u64,
}

/// Writes the version of `view`, of `tenant`, with its module as an archive. `progress` is told how many pages are
/// written so far. Takes a few MiB of memory, however large the state.
///
/// # Errors
///
/// If a page is damaged or can't be read, or `to` can't be written. What was written then is no archive: a reader
/// refuses it.
pub fn export<F: ReadAt>(
    view: &View<F>,
    tenant: TenantId,
    module: &[u8],
    to: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<Exported, ExportError> {
    let header = ArchiveHeader {
        tenant,
        version: view.version(),
        sizes: view.sizes(),
        pages: view.stored_pages(),
        module_len: module.len() as u64,
        meta_len: view.meta().len() as u64,
        module_hash: *blake3::hash(module).as_bytes(),
    };
    let mut out = Output::new(to)?;
    out.write(&header.encode())?;
    if !view.meta().is_empty() {
        // At most 1 MiB, which a frame may have.
        out.frame(Kind::Meta, view.meta(), 0)?;
    }
    for piece in module.chunks(MAX_FRAME) {
        out.frame(Kind::Module, piece, 0)?;
    }
    let mut pages = view.pages();
    let mut ids: Vec<PageId> = Vec::with_capacity(FRAME_PAGES);
    let mut contents = vec![0; FRAME_PAGES * PAGE_AND_ADDRESS];
    loop {
        ids.clear();
        ids.extend(pages.by_ref().take(FRAME_PAGES));
        if ids.is_empty() {
            break;
        }
        let contents = contents
            .get_mut(..ids.len() * PAGE_AND_ADDRESS)
            .unwrap_or_default();
        let (addresses, data) = contents.split_at_mut(ids.len() * 8);
        for (id, address) in ids.iter().zip(addresses.chunks_exact_mut(8)) {
            address.copy_from_slice(&id.bits().to_le_bytes());
        }
        view.read_pages(&ids, data, Verify::Yes)?;
        out.frame(Kind::Pages, contents, ids.len() as u32)?;
        progress(out.totals.pages);
    }
    out.finish()
}

/// The archive as far as it is written.
struct Output<'a> {
    to: &'a mut dyn Write,
    hash: blake3::Hasher,
    compressor: zstd::bulk::Compressor<'static>,
    /// A frame's fields, checksum and contents, one after the other.
    fields_and_contents: Vec<u8>,
    totals: Totals,
    bytes: u64,
}

impl<'a> Output<'a> {
    fn new(to: &'a mut dyn Write) -> Result<Output<'a>, ExportError> {
        Ok(Output {
            to,
            hash: blake3::Hasher::new(),
            compressor: zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL)
                .map_err(ExportError::Compress)?,
            fields_and_contents: Vec::new(),
            totals: Totals::default(),
            bytes: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).map_err(ExportError::Write)
    }

    fn frame(&mut self, kind: Kind, contents: &[u8], pages: u32) -> Result<(), ExportError> {
        let compressed = self
            .compressor
            .compress(contents)
            .map_err(ExportError::Compress)?;
        let too_long = |_| ExportError::Compress(io::ErrorKind::FileTooLarge.into());
        let fields = Frame {
            kind: kind.number(),
            compressed: u32::try_from(compressed.len()).map_err(too_long)?,
            uncompressed: u32::try_from(contents.len()).map_err(too_long)?,
            pages,
        }
        .encode();
        let mut bytes = std::mem::take(&mut self.fields_and_contents);
        bytes.clear();
        bytes.extend_from_slice(&fields);
        bytes.extend_from_slice(&compressed);
        let checksum = header_checksum(&bytes);
        self.write(&fields)?;
        self.write(&checksum)?;
        self.write(&compressed)?;
        self.fields_and_contents = bytes;
        self.totals.frames += 1;
        self.totals.pages += u64::from(pages);
        self.totals.bytes += contents.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<Exported, ExportError> {
        let totals = self.totals.encode();
        self.write(&totals)?;
        let hash = self.hash.finalize();
        self.write(hash.as_bytes())?;
        self.to.flush().map_err(ExportError::Write)?;
        Ok(Exported {
            pages: self.totals.pages,
            bytes: self.bytes,
        })
    }
}
