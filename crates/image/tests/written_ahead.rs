//! The zeros that a commit writes behind itself for the next ones.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lazaret_image::{
    CheckEvent, Depth, Durability, Image, PAGE_SIZE, PageId, PageSource, Region, Sizes, Verify,
    check,
};

/// Pages filled with one byte.
struct Filled(u8);

impl PageSource for Filled {
    fn read(&mut self, _: &[PageId], into: &mut [u8]) -> io::Result<()> {
        into.fill(self.0);
        Ok(())
    }
}

const SIZES: Sizes = Sizes {
    heap: 1000 * PAGE_SIZE as u64,
    stable: 0,
};

fn page(number: u64) -> PageId {
    PageId::new(Region::Heap, number).unwrap()
}

fn commit(image: &mut Image, pages: u64, byte: u8, durability: Durability) {
    let ids: Vec<PageId> = (0..pages).map(page).collect();
    image
        .commit(&ids, &mut Filled(byte), SIZES, b"", durability)
        .unwrap();
}

fn byte_of(image: &Image, number: u64) -> u8 {
    let mut bytes = [0; PAGE_SIZE];
    image
        .read_pages(&[page(number)], &mut bytes, Verify::Yes)
        .unwrap();
    bytes[0]
}

fn log_bytes(path: &Path) -> u64 {
    fs::metadata(path.join("log-0.log")).unwrap().len()
}

#[test]
fn zeros_behind_the_last_segment_are_no_torn_tail_and_are_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut image = Image::create(&path).unwrap();
    for round in 1..=40u8 {
        commit(
            &mut image,
            u64::from(round % 5) + 1,
            round,
            Durability::Relaxed,
        );
        assert!(log_bytes(&path) >= image.log_len());
        assert_eq!(log_bytes(&path) % (128 << 10), 0);
        if round % 3 == 0 {
            let length = image.log_len();
            drop(image);
            let checked = check(&path, Depth::Pages, &mut |event| {
                assert!(matches!(event, CheckEvent::Verified { .. }), "{event:?}");
            });
            assert_eq!(checked.unwrap().newest.unwrap().version.0, u64::from(round));
            let (opened, recovery) = Image::open(&path).unwrap();
            assert!(recovery.cut.is_none(), "{:?}", recovery.cut);
            assert_eq!(
                (opened.version().0, opened.log_len()),
                (u64::from(round), length)
            );
            image = opened;
        }
        assert_eq!(byte_of(&image, 0), round);
    }
}

#[test]
fn anything_but_zeros_there_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut image = Image::create(&path).unwrap();
    commit(&mut image, 3, 1, Durability::Relaxed);
    let (end, length) = (image.log_len(), log_bytes(&path));
    drop(image);
    for at in [end, end + 4096, length - 1] {
        let log = fs::OpenOptions::new()
            .write(true)
            .open(path.join("log-0.log"))
            .unwrap();
        log.set_len(length).unwrap();
        log.write_all_at(&[1], at).unwrap();
        let (image, recovery) = Image::open(&path).unwrap();
        let cut = recovery.cut.unwrap();
        assert_eq!((cut.offset, cut.bytes), (end, length - end));
        assert_eq!(log_bytes(&path), end);
        assert_eq!(byte_of(&image, 2), 1);
    }
}

#[test]
fn a_segment_whose_pages_are_still_zeros_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut image = Image::create(&path).unwrap();
    commit(&mut image, 3, 1, Durability::Relaxed);
    let end = image.log_len();
    commit(&mut image, 3, 2, Durability::Relaxed);
    let behind = image.log_len();
    drop(image);
    // As if the host was killed while the kernel copied: the header is there, the last page isn't.
    let log = fs::OpenOptions::new()
        .write(true)
        .open(path.join("log-0.log"))
        .unwrap();
    log.write_all_at(&[0; PAGE_SIZE], behind - PAGE_SIZE as u64)
        .unwrap();
    let (image, recovery) = Image::open(&path).unwrap();
    assert_eq!(recovery.cut.unwrap().offset, end);
    assert_eq!((image.version().0, byte_of(&image, 2)), (1, 1));
}

#[test]
fn what_is_synced_at_once_is_written_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut image = Image::create(&path).unwrap();
    for round in 1..=3 {
        commit(&mut image, 2, round, Durability::Durable);
        assert_eq!(log_bytes(&path), image.log_len());
    }
}
