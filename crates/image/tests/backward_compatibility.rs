//! Images written by older releases open and hold what they held.
//!
//! The fixtures are what `Image` of that release wrote; they are never regenerated. A format change adds a new
//! directory beside the old ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lazaret_image::{
    Accept, Durability, Image, PAGE_SIZE, PageId, PageSource, Region, Sizes, Verify,
};

const SIZES: Sizes = Sizes {
    heap: 20 * PAGE_SIZE as u64 - 5,
    stable: 3 * PAGE_SIZE as u64,
};

/// The content of a page that was written as number `content`.
fn fill(content: u8, into: &mut [u8]) {
    for (position, byte) in into.iter_mut().enumerate() {
        *byte = content.wrapping_mul((position / 7 % 251) as u8 | 1);
    }
}

struct Contents(Vec<u8>);

impl PageSource for Contents {
    fn read(&mut self, _: &[PageId], into: &mut [u8]) -> io::Result<()> {
        self.0
            .iter()
            .zip(into.chunks_exact_mut(PAGE_SIZE))
            .for_each(|(content, into)| fill(*content, into));
        Ok(())
    }
}

fn commit(image: &mut Image, pages: &[(Region, u64, u8)], sizes: Sizes, meta: &[u8]) {
    let ids: Vec<PageId> = pages
        .iter()
        .map(|(region, page, _)| PageId::new(*region, *page).unwrap())
        .collect();
    let mut source = Contents(pages.iter().map(|(.., content)| *content).collect());
    image
        .commit(&ids, &mut source, sizes, meta, Durability::Durable)
        .unwrap();
}

fn check(image: &Image, expected: &[(Region, u64, u8)]) {
    for region in Region::ALL {
        for page in 0..25 {
            let content = expected
                .iter()
                .find(|(r, p, _)| (*r, *p) == (region, page))
                .map_or(0, |(.., content)| *content);
            let (mut bytes, mut wanted) = ([0xee; PAGE_SIZE], [0; PAGE_SIZE]);
            fill(content, &mut wanted);
            image
                .read_pages(
                    &[PageId::new(region, page).unwrap()],
                    &mut bytes,
                    Verify::Yes,
                )
                .unwrap();
            assert!(bytes == wanted, "{region} page {page}");
        }
    }
}

const V1: &[(Region, u64, u8)] = &[
    (Region::Heap, 0, 1),
    (Region::Heap, 2, 8),
    (Region::Heap, 19, 9),
    (Region::Stable, 1, 5),
    (Region::Stable, 2, 10),
];

fn manifest_version(directory: &Path) -> u8 {
    fs::read(directory.join("manifest")).unwrap()[8]
}

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

/// Made the fixture of version 1; kept to say what is in it.
#[test]
#[ignore = "writes a fixture that exists already"]
fn write_version_1() {
    fs::create_dir_all(fixture(1)).unwrap();
    let mut image = Image::create(&fixture(1)).unwrap();
    let first = [
        (Region::Heap, 0, 1),
        (Region::Heap, 1, 2),
        (Region::Heap, 2, 3),
        (Region::Heap, 24, 4),
        (Region::Stable, 1, 5),
        (Region::Stable, 2, 6),
    ];
    commit(
        &mut image,
        &first,
        Sizes {
            heap: 25 * PAGE_SIZE as u64,
            ..SIZES
        },
        b"first",
    );
    image.fold().unwrap();
    commit(
        &mut image,
        &[
            (Region::Heap, 1, 0),
            (Region::Heap, 2, 7),
            (Region::Stable, 2, 10),
        ],
        SIZES,
        b"second",
    );
    image.checkpoint().unwrap();
    commit(
        &mut image,
        &[(Region::Heap, 2, 8), (Region::Heap, 19, 9)],
        SIZES,
        b"third",
    );
}

/// What a snapshot of a fork of version 1's fixture restored into an image of another tenant is, with commits on
/// both sides: shards and logs of several origins.
const V2: &[(Region, u64, u8)] = &[
    (Region::Heap, 0, 1),
    (Region::Heap, 2, 12),
    (Region::Heap, 5, 13),
    (Region::Heap, 19, 9),
    (Region::Stable, 0, 14),
    (Region::Stable, 1, 5),
    (Region::Stable, 2, 10),
];

/// Made the fixture of version 2; kept to say what is in it.
#[test]
#[ignore = "writes a fixture that exists already"]
fn write_version_2() {
    let aside = tempfile::tempdir().unwrap();
    let (old, fork, snapshot) = (
        aside.path().join("old"),
        aside.path().join("fork"),
        aside.path().join("snapshot"),
    );
    copy(&fixture(1), &old);
    let (mut image, _) = Image::open(&old).unwrap();
    image.fork(&fork).unwrap();
    let (mut image, _) = Image::open(&fork).unwrap();
    commit(
        &mut image,
        &[(Region::Heap, 2, 12), (Region::Stable, 0, 14)],
        SIZES,
        b"of the fork",
    );
    image.snapshot(&snapshot).unwrap();
    fs::create_dir_all(fixture(2)).unwrap();
    let mut image = Image::create(&fixture(2)).unwrap();
    for _ in 0..10 {
        commit(&mut image, &[(Region::Heap, 7, 15)], SIZES, b"replaced");
    }
    image.restore(&snapshot, Accept::AnyTenant).unwrap();
    commit(&mut image, &[(Region::Heap, 5, 16)], SIZES, b"sealed");
    drop(image.begin_fold().unwrap());
    commit(&mut image, &[(Region::Heap, 5, 13)], SIZES, b"active");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn version_2_opens() {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixture(2), directory.path());
    let (mut image, recovery) = Image::open(directory.path()).unwrap();
    assert!(
        recovery.cut.is_none() && recovery.leftovers.is_empty(),
        "{recovery:?}"
    );
    // Two segments of the first image, one of its fork, one in the image itself before it was folded, one after.
    assert_eq!(
        (recovery.version.0, recovery.segments, recovery.verified),
        (13, 5, 1)
    );
    assert_eq!((image.sizes(), image.meta()), (SIZES, b"active".as_slice()));
    check(&image, V2);
    image.fold().unwrap();
    drop(image);
    let (image, _) = Image::open(directory.path()).unwrap();
    assert_eq!(
        (image.version().0, image.meta()),
        (13, b"active".as_slice())
    );
    check(&image, V2);
}

#[test]
fn version_1_opens() {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixture(1), directory.path());
    let (mut image, recovery) = Image::open(directory.path()).unwrap();
    assert!(
        recovery.cut.is_none() && recovery.leftovers.is_empty(),
        "{recovery:?}"
    );
    assert_eq!(
        (recovery.version.0, recovery.segments, recovery.verified),
        (3, 2, 1)
    );
    assert_eq!(
        (image.version().0, image.sizes(), image.meta()),
        (3, SIZES, b"third".as_slice())
    );
    check(&image, V1);

    commit(&mut image, &[(Region::Heap, 3, 11)], SIZES, b"fourth");
    assert_eq!(manifest_version(directory.path()), 1);
    image.checkpoint().unwrap();
    assert_eq!(manifest_version(directory.path()), 2, "it was replaced");
    check(&image, &[V1, &[(Region::Heap, 3, 11)]].concat());
    image.fold().unwrap();
    drop(image);
    let (image, _) = Image::open(directory.path()).unwrap();
    assert_eq!((image.version().0, image.meta()), (4, b"fourth".as_slice()));
    check(&image, &[V1, &[(Region::Heap, 3, 11)]].concat());
}
