//! Reading pages of a version.

use crate::checksum::page_checksum;
use crate::error::{Action, FileError, ReadError};
use crate::files::SourceFile;
use crate::index::Location;
use crate::page::{PAGE_BYTES, PAGE_SIZE, PageId};
use crate::storage::ReadAt;
use crate::view::View;

/// Whether pages read are compared with their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// They are.
    Yes,
    /// They aren't: what the disk gives is believed.
    No,
}

impl<F: ReadAt> View<F> {
    /// Reads `pages`, in any order, into `into`. Pages that were never written are zeros, also beyond the sizes.
    ///
    /// Neighbours in `pages` that are neighbours in a file are read together.
    ///
    /// # Errors
    ///
    /// If `into` doesn't have the size of the pages, a page is damaged, or the operating system refuses.
    /// What is in `into` then is undefined.
    pub fn read_pages(
        &self,
        pages: &[PageId],
        into: &mut [u8],
        verify: Verify,
    ) -> Result<(), ReadError> {
        if pages.len().checked_mul(PAGE_SIZE) != Some(into.len()) {
            return Err(ReadError::Buffer {
                pages: pages.len(),
                found: into.len(),
            });
        }
        let (mut pages, mut into) = (pages, into);
        while let Some((first, _)) = pages.split_first() {
            let location = self.index.get(*first);
            let together = self.together(pages, location);
            let (run, rest) = pages.split_at(together);
            let (bytes, left) = std::mem::take(&mut into).split_at_mut(together * PAGE_SIZE);
            match location {
                Some(location) => self.read_run(run, location, bytes, verify)?,
                None => bytes.fill(0),
            }
            (pages, into) = (rest, left);
        }
        Ok(())
    }

    /// Checks one page against its checksum on disk. A page that isn't stored is right.
    ///
    /// # Errors
    ///
    /// If the page is damaged or can't be read.
    pub fn verify_page(&self, page: PageId) -> Result<(), ReadError> {
        self.read_pages(&[page], &mut [0; PAGE_SIZE], Verify::Yes)
    }

    /// How many of the pages can be read together with the first, which is at `location`.
    fn together(&self, pages: &[PageId], location: Option<Location>) -> usize {
        let mut last = location;
        let rest = pages.iter().skip(1).take_while(|page| {
            let next = self.index.get(**page);
            let joined = match (last, next) {
                (Some(last), Some(next)) => last.precedes(next),
                (None, None) => true,
                _ => false,
            };
            last = next;
            joined
        });
        1 + rest.count()
    }

    fn read_run(
        &self,
        run: &[PageId],
        location: Location,
        into: &mut [u8],
        verify: Verify,
    ) -> Result<(), ReadError> {
        // Locations are made for files in the list only.
        let Some(source) = self.files.get(location.slot()) else {
            return Ok(());
        };
        let offset = location.page_offset() * PAGE_BYTES;
        pread(source, into, offset)?;
        if verify == Verify::No {
            return Ok(());
        }
        let checksums = checksums(source, offset, run.len())?;
        for (position, ((page, bytes), checksum)) in run
            .iter()
            .zip(into.chunks_exact(PAGE_SIZE))
            .zip(checksums)
            .enumerate()
        {
            if page_checksum(bytes) != checksum {
                let path = source.path.clone();
                return Err(ReadError::Checksum {
                    path,
                    offset: offset + (position * PAGE_SIZE) as u64,
                    page: *page,
                });
            }
        }
        Ok(())
    }
}

/// The checksums of `count` pages whose data is at `offset`. They are of one block, as headers are between them.
fn checksums<F: ReadAt>(
    source: &SourceFile<F>,
    offset: u64,
    count: usize,
) -> Result<Vec<u64>, ReadError> {
    let Some(block) = source.block(offset) else {
        return Ok(Vec::new());
    };
    let stride = block.stride as usize;
    let mut bytes = vec![0; (count - 1) * stride + 8];
    pread(
        source,
        &mut bytes,
        block.checksums + (offset - block.data) / PAGE_BYTES * block.stride,
    )?;
    let entries = bytes
        .chunks(stride)
        .filter_map(|entry| entry.first_chunk::<8>());
    Ok(entries.map(|entry| u64::from_le_bytes(*entry)).collect())
}

fn pread<F: ReadAt>(source: &SourceFile<F>, into: &mut [u8], offset: u64) -> Result<(), FileError> {
    let read = source.handle.pread(into, offset);
    read.map_err(|error| FileError::at(Action::Read, source.path.clone(), offset, error))
}
