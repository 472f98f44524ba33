//! Descriptors of an image can be closed at any time, and nothing is different but their number.
//!
//! One test, as it counts what this process has open.

use std::fs;
use std::io;

use lazaret_image::{
    Durability, Image, OpenError, PAGE_SIZE, PageId, PageSource, Region, Sizes, Verify, View,
    open_descriptors,
};

const SIZES: Sizes = Sizes {
    heap: 1 << 20,
    stable: 0,
};

/// Every page is filled with this.
struct Filled(u8);

impl PageSource for Filled {
    fn read(&mut self, _: &[PageId], into: &mut [u8]) -> io::Result<()> {
        into.fill(self.0);
        Ok(())
    }
}

fn heap(pages: impl IntoIterator<Item = u64>) -> Vec<PageId> {
    let page = |page| PageId::new(Region::Heap, page).unwrap();
    pages.into_iter().map(page).collect()
}

fn commit(image: &mut Image, pages: &[PageId], with: u8) {
    let committed = image.commit(
        pages,
        &mut Filled(with),
        SIZES,
        b"meta",
        Durability::Durable,
    );
    committed.unwrap();
}

/// The first byte of a page.
fn byte(view: &View, page: u64) -> u8 {
    let mut bytes = vec![0; PAGE_SIZE];
    view.read_pages(&heap([page]), &mut bytes, Verify::Yes)
        .unwrap();
    bytes[0]
}

#[test]
fn what_is_closed_is_opened_again_when_it_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tenant");
    let mut image = Image::create(&path).unwrap();
    let open = image.open_files();
    commit(&mut image, &heap(0..8), 1);
    let before = open_descriptors();
    assert!(before >= 2, "both ends of its log: {before}");
    open.close();
    assert_eq!(open_descriptors(), 0);
    assert!(matches!(Image::open(&path), Err(OpenError::InUse { .. })));
    assert_eq!(byte(&image.view(), 3), 1);
    open.close();
    commit(&mut image, &heap([3]), 2);
    assert_eq!(byte(&image.view(), 3), 2);

    // A fold removes files that a view still reads.
    let old = image.view();
    open.close();
    image.fold().unwrap();
    open.close();
    commit(&mut image, &heap([3]), 3);
    assert_eq!((byte(&old, 3), byte(&image.view(), 3)), (2, 3));
    drop(old);
    open.close();
    assert_eq!(open_descriptors(), 0, "nothing that has no name is left");
    image.checkpoint().unwrap();

    // What isn't on disk stays open: who closes it would not hear that it can't be written.
    open.close();
    let pages = heap([3]);
    image
        .commit(&pages, &mut Filled(4), SIZES, b"", Durability::Relaxed)
        .unwrap();
    open.close();
    assert!(
        open_descriptors() > 0,
        "its log has writes that may be lost"
    );
    image.checkpoint().unwrap();
    open.close();
    assert_eq!(open_descriptors(), 0);

    // Another file in its place isn't taken for it.
    let names = fs::read_dir(&path).unwrap().flatten();
    let mut logs = names.filter(|entry| entry.file_name().to_string_lossy().starts_with("log-"));
    let file = logs.next().unwrap().path();
    let aside = path.join("aside");
    fs::rename(&file, &aside).unwrap();
    fs::copy(&aside, &file).unwrap();
    let view = image.view();
    let mut bytes = vec![0; PAGE_SIZE];
    let read = view.read_pages(&heap([3]), &mut bytes, Verify::Yes);
    assert!(read.is_err(), "it read another file");
    fs::rename(&aside, &file).unwrap();
    assert_eq!(byte(&view, 3), 4);
    drop(view);

    // Who reads it goes on when the image is gone, and keeps nobody from opening it.
    let view = image.view();
    open.close();
    drop(image);
    assert_eq!(byte(&view, 3), 4);
    drop(Image::open(&path).unwrap());
    drop(view);
    assert_eq!(open_descriptors(), 0);
    let (image, recovery) = Image::open(&path).unwrap();
    assert!(recovery.cut.is_none());
    assert_eq!(byte(&image.view(), 3), 4);
}
