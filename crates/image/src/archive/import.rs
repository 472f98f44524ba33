//! Making an image of an archive.

use std::io::{self, Read};
use std::path::Path;

use super::reader::ArchiveReader;
use crate::commit::{Durability, PageSource};
use crate::error::ImportError;
use crate::image::Image;
use crate::page::{PAGE_SIZE, PageId};
use crate::storage::{OsStorage, Storage};

/// Pages of one commit: 16 MiB, so that 8 GiB of state are 512 segments, and as many mappings.
const COMMIT_PAGES: usize = 4096;

impl<R: Read> ArchiveReader<R> {
    /// Makes the rest of the archive a new image in `dir`, of a fresh tenant. `progress` is told how many pages are read
    /// so far. When this returns, the archive is verified to its end, and all of it is on disk.
    ///
    /// Until then `dir` holds a part of the state: make it aside.
    ///
    /// # Errors
    ///
    /// If there is an image in `dir` already, the archive is damaged or can't be read, or the operating system
    /// refuses. What had been made is removed then, as far as that goes.
    pub fn into_image(
        self,
        dir: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image<OsStorage>, ImportError> {
        let image = Image::create(dir)?;
        self.fill(image, progress).inspect_err(|_| {
            // Dropped by now, so not in use. The first error is the one to be told.
            let _ = Image::remove(dir);
        })
    }

    /// [`into_image`](ArchiveReader::into_image) on any storage, which must hold no image. On an error, what had been
    /// made is left there.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn into_image_on<S: Storage>(
        self,
        storage: S,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image<S>, ImportError> {
        let image = Image::create_on(storage)?;
        self.fill(image, progress)
    }

    fn fill<S: Storage>(
        mut self,
        mut image: Image<S>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image<S>, ImportError> {
        let sizes = self.header().sizes;
        let mut batch = Batch::default();
        let mut read = 0;
        while let Some((ids, contents)) = self.next_pages()? {
            if batch.ids.len() + ids.len() > COMMIT_PAGES {
                // Not the last: nobody sees this version, so it needs no `meta`.
                batch.commit(&mut image, sizes, &[])?;
            }
            batch.ids.extend_from_slice(ids);
            batch.contents.extend_from_slice(contents);
            read += ids.len() as u64;
            progress(read);
        }
        batch.commit(&mut image, sizes, self.meta())?;
        image.checkpoint()?;
        Ok(image)
    }
}

/// Pages for the next commit.
#[derive(Default)]
struct Batch {
    ids: Vec<PageId>,
    contents: Vec<u8>,
    given: usize,
}

impl Batch {
    fn commit<S: Storage>(
        &mut self,
        image: &mut Image<S>,
        sizes: crate::page::Sizes,
        meta: &[u8],
    ) -> Result<(), ImportError> {
        let ids = std::mem::take(&mut self.ids);
        image.commit(&ids, self, sizes, meta, Durability::Relaxed)?;
        self.ids = ids;
        self.ids.clear();
        self.contents.clear();
        self.given = 0;
        Ok(())
    }
}

impl PageSource for Batch {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        // Asked for once each and in order.
        let end = self.given + pages.len() * PAGE_SIZE;
        let from = self.contents.get(self.given..end);
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        self.given = end;
        Ok(())
    }
}
