//! [`View`]: one version, which stays as it is.

use std::io;
use std::sync::Arc;

use crate::files::Files;
use crate::index::Index;
use crate::page::{FileId, PageId, Sizes, Version};
use crate::storage::{Descriptor, OsFile, ReadAt};

/// An image at one version. Whatever is committed, folded or restored meanwhile, it reads the same.
///
/// Cheap to clone: it shares everything with the image and with other views. While views are held, the space of
/// files that they need and the image doesn't is not given back.
pub struct View<F: ReadAt = OsFile> {
    pub(crate) version: Version,
    pub(crate) sizes: Sizes,
    pub(crate) meta: Arc<[u8]>,
    pub(crate) index: Arc<Index>,
    pub(crate) files: Arc<Files<F>>,
    /// The active log and its length. What is behind is newer than the view.
    pub(crate) log: (FileId, u64),
}

impl<F: ReadAt> Clone for View<F> {
    fn clone(&self) -> Self {
        View {
            version: self.version,
            sizes: self.sizes,
            meta: self.meta.clone(),
            index: self.index.clone(),
            files: self.files.clone(),
            log: self.log,
        }
    }
}

impl<F: ReadAt> View<F> {
    /// Which version it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The sizes of the regions.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The opaque bytes that the host keeps with the version.
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// The stored pages, ascending; all others are zero. (Some that are stored may be zero too: a fold may fill
    /// short gaps.)
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        self.index.iter().map(|(page, _)| page)
    }

    /// How many pages are stored.
    pub fn stored_pages(&self) -> u64 {
        self.index.pages()
    }
}

impl View<OsFile> {
    /// The files that [`plan`](View::plan) refers to: their numbers and read-only descriptors.
    ///
    /// A descriptor stays valid for who has duplicated or mapped it, also when a fold has removed the file.
    ///
    /// # Errors
    ///
    /// If one was closed and can't be opened again.
    pub fn files(&self) -> io::Result<Vec<(FileId, Arc<Descriptor>)>> {
        self.files
            .iter()
            .map(|source| Ok((source.file, source.handle.get()?)))
            .collect()
    }
}
