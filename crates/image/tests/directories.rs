//! Images on a real file system: making, locking, mapping, removing.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use lazaret_image::{
    CommitError, CreateError, Durability, Image, OpenError, PAGE_SIZE, PageId, PageSource, Region,
    RemoveError, Sizes,
};

const SIZES: Sizes = Sizes {
    heap: 1 << 30,
    stable: 1 << 20,
};

/// Every page is filled with its number, but for zeros where asked.
struct Numbers;

impl PageSource for Numbers {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        assert!(pages.len() <= lazaret_image::CHUNK_PAGES);
        for (page, into) in pages.iter().zip(into.chunks_exact_mut(PAGE_SIZE)) {
            into.fill(page.page() as u8);
        }
        Ok(())
    }
}

fn heap(pages: impl IntoIterator<Item = u64>) -> Vec<PageId> {
    pages
        .into_iter()
        .map(|page| PageId::new(Region::Heap, page).unwrap())
        .collect()
}

#[test]
fn an_image_is_made_once_and_locked_while_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tenant");
    assert!(matches!(Image::open(&path), Err(OpenError::Missing { .. })));
    assert!(matches!(
        Image::remove(&path),
        Err(RemoveError::Missing { .. })
    ));
    let image = Image::create(&path).unwrap();
    assert!(matches!(Image::open(&path), Err(OpenError::InUse { .. })));
    assert!(matches!(
        Image::create(&path),
        Err(CreateError::InUse { .. })
    ));
    assert!(matches!(
        Image::remove(&path),
        Err(RemoveError::InUse { .. })
    ));
    let tenant = image.tenant();
    drop(image);
    assert!(matches!(
        Image::create(&path),
        Err(CreateError::Exists { .. })
    ));
    let (image, recovery) = Image::open(&path).unwrap();
    assert_eq!((image.tenant(), recovery.version.0), (tenant, 0));
    drop(image);
    Image::remove(&path).unwrap();
    assert!(!path.exists());
    assert_ne!(Image::create(&path).unwrap().tenant(), tenant);
}

#[test]
fn removing_spares_other_peoples_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tenant");
    drop(Image::create(&path).unwrap());
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let error = Image::remove(&path).unwrap_err();
    assert!(
        matches!(&error, RemoveError::Foreign { name, .. } if name == "notes.txt"),
        "{error}"
    );
    Image::open(&path).unwrap();
    assert!(path.join("notes.txt").exists());
}

#[test]
fn a_directory_that_is_a_file_or_cant_be_made_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(Image::open(&file), Err(OpenError::File(_))));
    assert!(matches!(Image::create(&file), Err(CreateError::File(_))));
    let error = Image::create(&directory.path().join("no/such/parent"))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("no/such/parent: No such file"),
        "{error}"
    );
}

#[test]
fn a_link_in_the_place_of_a_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tenant");
    drop(Image::create(&path).unwrap());
    fs::rename(path.join("log-0.log"), directory.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", path.join("log-0.log")).unwrap();
    assert!(matches!(Image::open(&path), Err(OpenError::File(_))));
}

#[test]
fn what_a_crash_left_is_removed_at_open() {
    let directory = tempfile::tempdir().unwrap();
    drop(Image::create(directory.path()).unwrap());
    for name in ["base-7.shard", "log-8.log", "manifest.new", "notes.txt"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    let (_, mut recovery) = Image::open(directory.path()).unwrap();
    recovery.leftovers.sort();
    assert_eq!(
        recovery.leftovers,
        ["base-7.shard", "log-8.log", "manifest.new"]
    );
    assert!(directory.path().join("notes.txt").exists());
}

#[test]
fn a_plan_says_where_every_page_is_and_stays_true() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    // More than two chunks, with a page of zeros in each.
    image
        .commit(&heap(0..600), &mut Numbers, SIZES, b"", Durability::Relaxed)
        .unwrap();
    let plan = image.plan();
    let ranges: Vec<_> = plan
        .runs
        .iter()
        .map(|run| (run.first_page, run.pages))
        .collect();
    assert_eq!(ranges, [(1, 255), (257, 255), (513, 87)]);
    let files: Vec<_> = image
        .view()
        .files()
        .unwrap()
        .into_iter()
        .map(|(id, file)| {
            let file = file.as_fd().try_clone_to_owned().unwrap();
            (id, fs::File::from(file))
        })
        .collect();
    image
        .commit(
            &heap([1, 300]),
            &mut Numbers,
            SIZES,
            b"",
            Durability::Relaxed,
        )
        .unwrap();
    let later = image.plan();
    let ranges: Vec<_> = later
        .runs
        .iter()
        .map(|run| (run.first_page, run.pages))
        .collect();
    assert_eq!(
        ranges,
        [(1, 1), (2, 254), (257, 43), (300, 1), (301, 211), (513, 87)]
    );
    image.fold().unwrap();
    assert_eq!(image.log_len(), 0);
    // Three pages of zeros are less than an eighth: they were filled in.
    let folded = image.plan();
    assert_eq!(
        folded
            .runs
            .iter()
            .map(|run| (run.first_page, run.pages))
            .collect::<Vec<_>>(),
        [(1, 599)]
    );
    // The old plan holds although its file is gone.
    for run in &plan.runs {
        let (_, file) = files.iter().find(|(id, _)| *id == run.file).unwrap();
        assert_eq!(run.offset % PAGE_SIZE as u64, 0);
        for page in 0..run.pages {
            let mut byte = [0];
            file.read_exact_at(&mut byte, run.offset + page * PAGE_SIZE as u64 + 9)
                .unwrap();
            assert_eq!(byte[0], (run.first_page + page) as u8);
        }
        assert!(
            file.write_at(b"x", run.offset).is_err(),
            "the descriptor must be read-only"
        );
    }
}

#[test]
fn folding_pays_when_the_log_is_long_or_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    image
        .commit(
            &heap((0..1024).map(|page| page * 40 + 1)),
            &mut Numbers,
            SIZES,
            b"",
            Durability::Relaxed,
        )
        .unwrap();
    assert!(!image.should_fold(4000));
    image
        .commit(
            &heap([50_001, 50_100]),
            &mut Numbers,
            SIZES,
            b"",
            Durability::Relaxed,
        )
        .unwrap();
    assert!(image.should_fold(4000), "{} runs", image.plan().runs.len());
    // They stay as many, for they are far apart: folding again would not help.
    image.fold().unwrap();
    assert!(image.plan().runs.len() > 1000 && !image.should_fold(4000));
    let mut rounds = 0;
    while !image.should_fold(4000) {
        image
            .commit(
                &heap(60_001..60_200),
                &mut Numbers,
                SIZES,
                b"",
                Durability::Relaxed,
            )
            .unwrap();
        rounds += 1;
    }
    assert!(
        image.log_len() > 64 << 20 && rounds > 70,
        "{rounds} rounds, {} bytes",
        image.log_len()
    );
}

#[test]
fn what_cannot_be_committed_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    let mut commit = |pages: &[u64], sizes, meta: &[u8]| {
        image
            .commit(
                &heap(pages.iter().copied()),
                &mut Numbers,
                sizes,
                meta,
                Durability::Relaxed,
            )
            .unwrap_err()
            .to_string()
    };
    let small = Sizes {
        heap: 4097,
        stable: 0,
    };
    assert_eq!(
        commit(&[1, 1], small, b""),
        "heap page 1 follows heap page 1: pages must be in ascending order, each once"
    );
    assert_eq!(
        commit(&[1, 0], small, b""),
        "heap page 0 follows heap page 1: pages must be in ascending order, each once"
    );
    assert_eq!(
        commit(&[2], small, b""),
        "heap page 2 lies outside the region, which has 4097 bytes"
    );
    assert!(
        commit(
            &[],
            Sizes {
                heap: 0,
                stable: u64::MAX
            },
            b""
        )
        .contains("bytes of stable are more than the limit")
    );
    assert!(
        commit(&[], small, &vec![0; (1 << 20) + 1])
            .contains("1048577 bytes of meta are more than the limit")
    );
    assert_eq!((image.version().0, image.log_len()), (0, 0));
    image
        .commit(
            &heap([1]),
            &mut Numbers,
            small,
            &vec![7; 1 << 20],
            Durability::Relaxed,
        )
        .unwrap();
    drop(image);
    let (image, _) = Image::open(directory.path()).unwrap();
    assert_eq!(image.meta(), vec![7; 1 << 20]);
}

#[test]
fn a_source_may_commit_to_another_image() {
    struct Nested(Image);
    impl PageSource for Nested {
        fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
            self.0
                .commit(pages, &mut Numbers, SIZES, b"", Durability::Relaxed)
                .map_err(io::Error::other)?;
            Numbers.read(pages, into)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut outer = Image::create(&directory.path().join("outer")).unwrap();
    let mut inner = Nested(Image::create(&directory.path().join("inner")).unwrap());
    outer
        .commit(&heap(1..300), &mut inner, SIZES, b"", Durability::Relaxed)
        .unwrap();
    assert_eq!((outer.version().0, inner.0.version().0), (1, 2));
    outer.verify_page(heap([299])[0]).unwrap();
    inner.0.verify_page(heap([299])[0]).unwrap();
}

#[test]
fn a_dead_worker_leaves_the_image_as_it_was() {
    struct Dead;
    impl PageSource for Dead {
        fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
            if pages.iter().any(|page| page.page() > 500) {
                Err(io::Error::from_raw_os_error(3))
            } else {
                Numbers.read(pages, into)
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    let error = image
        .commit(&heap(1..600), &mut Dead, SIZES, b"", Durability::Durable)
        .unwrap_err();
    assert!(matches!(error, CommitError::Source(_)), "{error}");
    assert_eq!(
        fs::metadata(directory.path().join("log-0.log"))
            .unwrap()
            .len(),
        0
    );
    image
        .commit(&heap([7]), &mut Numbers, SIZES, b"", Durability::Durable)
        .unwrap();
    drop(image);
    let (image, recovery) = Image::open(directory.path()).unwrap();
    assert!(recovery.cut.is_none());
    assert_eq!(image.plan().runs.len(), 1);
}

#[test]
fn images_can_move_between_threads() {
    fn check<T: Send>() {}
    check::<Image>();
}
