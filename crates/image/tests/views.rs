//! A view stays what it was, whatever happens to the image; a reader gives what is published, and what changed.

mod fault_storage;
mod model;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fault_storage::{FaultStorage, Numbers};
use lazaret_image::{
    Accept, Durability, Image, PAGE_SIZE, PageId, PageSource, Reader, Region, Sizes,
};
use model::{Contents, State, random_pages, random_sizes};

const SIZES: Sizes = Sizes {
    heap: 160 * PAGE_SIZE as u64,
    stable: 160 * PAGE_SIZE as u64,
};

fn commit(
    image: &mut Image<FaultStorage>,
    state: &State,
    pages: &[(PageId, u64)],
    sizes: Sizes,
    durability: Durability,
) -> State {
    let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
    let meta = image.version().0.to_le_bytes();
    image
        .commit(&ids, &mut Contents::of(pages), sizes, &meta, durability)
        .unwrap();
    state.after(pages, sizes, &meta)
}

#[test]
fn a_held_view_reads_the_same_after_a_thousand_commits_folds_and_a_restore() {
    let storage = FaultStorage::new(1);
    let mut image = Image::create_on(storage).unwrap();
    let mut numbers = Numbers(1);
    let (mut state, mut held, mut snapshot) = (State::default(), Vec::new(), None);
    for round in 0..1000 {
        if round % 100 == 50 {
            held.push((image.view(), state.clone()));
        }
        if round % 230 == 70 {
            image.fold().unwrap();
        }
        if round == 500 {
            let path = Path::new("/snapshot");
            image.snapshot(path).unwrap();
            snapshot = Some(state.clone());
        }
        if round == 800 {
            image
                .restore(Path::new("/snapshot"), Accept::SameTenant)
                .unwrap();
            state = snapshot.take().unwrap();
        }
        let sizes = random_sizes(&mut numbers);
        let pages = random_pages(&mut numbers, sizes, 30);
        state = commit(&mut image, &state, &pages, sizes, Durability::Relaxed);
    }
    state.check(&image, "the newest");
    drop(image);
    for (view, state) in held {
        state.check_view(&view, &format!("version {}", view.version()));
    }
}

#[test]
fn what_differs_from_any_recent_version_is_listed() {
    for seed in 0..30 {
        let mut image = Image::create_on(FaultStorage::new(seed)).unwrap();
        let reader = image.reader();
        let mut numbers = Numbers(seed);
        let mut states = vec![State::default()];
        for round in 0..20 {
            let sizes = random_sizes(&mut numbers);
            let pages = random_pages(&mut numbers, sizes, 20);
            let next = commit(
                &mut image,
                &states[round],
                &pages,
                sizes,
                Durability::Relaxed,
            );
            states.push(next);
            if round == 9 {
                image.fold().unwrap();
            }
            for (version, old) in states.iter().enumerate() {
                let version = lazaret_image::Version(version as u64);
                let changes = reader.changed_since(version).unwrap();
                assert_eq!(changes.view.version(), image.version());
                assert!(changes.pages.is_sorted_by(|a, b| a < b));
                assert!(changes.pages.iter().all(|page| sizes.contain(*page)));
                let (new, listed) = (states.last().unwrap(), BTreeSet::from_iter(changes.pages));
                let both = old.pages.keys().chain(new.pages.keys());
                for page in both.filter(|page| sizes.contain(**page)) {
                    assert!(
                        old.pages.get(page) == new.pages.get(page) || listed.contains(page),
                        "seed {seed}, round {round}: {page} differs from version {version}"
                    );
                }
            }
            assert!(
                reader
                    .changed_since(lazaret_image::Version(states.len() as u64))
                    .is_none()
            );
        }
        // What an image did before it was opened isn't remembered.
        assert_eq!(
            reader.changed_since(image.version()).unwrap().pages.len(),
            0
        );
    }
}

#[test]
fn a_page_that_was_cut_off_and_grew_back_as_zeros_is_listed() {
    let mut image = Image::create_on(FaultStorage::new(3)).unwrap();
    let page = PageId::new(Region::Heap, 100).unwrap();
    let small = Sizes {
        heap: 4096,
        stable: 0,
    };
    let state = commit(
        &mut image,
        &State::default(),
        &[(page, 7)],
        SIZES,
        Durability::Relaxed,
    );
    let state = commit(&mut image, &state, &[], small, Durability::Relaxed);
    let one = lazaret_image::Version(1);
    assert_eq!(image.reader().changed_since(one).unwrap().pages, []);
    commit(&mut image, &state, &[], SIZES, Durability::Relaxed);
    assert_eq!(image.reader().changed_since(one).unwrap().pages, [page]);
}

/// Looks at the reader while the image reads the pages to commit.
struct Looking<'a> {
    reader: Reader<fault_storage::FaultFile>,
    pages: Contents<'a>,
    expected: u64,
}

impl PageSource for Looking<'_> {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        assert_eq!(self.reader.view().version().0, self.expected);
        self.pages.read(pages, into)
    }
}

#[test]
fn a_commit_is_seen_when_it_is_durable_and_never_if_it_fails() {
    let storage = FaultStorage::new(4);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let pages = [(PageId::new(Region::Heap, 3).unwrap(), 9)];
    let reader = image.reader();
    let mut source = Looking {
        reader: reader.clone(),
        pages: Contents::of(&pages),
        expected: 0,
    };
    image
        .commit(&[pages[0].0], &mut source, SIZES, b"", Durability::Durable)
        .unwrap();
    assert_eq!(reader.view().version().0, 1);
    storage.fail_at(2, 5); // Data, header, sync.
    source = Looking {
        reader: reader.clone(),
        pages: Contents::of(&pages),
        expected: 1,
    };
    image
        .commit(&[pages[0].0], &mut source, SIZES, b"", Durability::Durable)
        .unwrap_err();
    assert_eq!(reader.view().version().0, 1);
    let changes = reader.changed_since(lazaret_image::Version(0)).unwrap();
    assert_eq!(changes.pages, [pages[0].0]);
}

/// Each commit writes its number into every page, so that a view that mixes two versions shows.
#[test]
fn views_taken_on_other_threads_while_commits_land_are_whole() {
    struct Round(u8);
    impl PageSource for Round {
        fn read(&mut self, _: &[PageId], into: &mut [u8]) -> io::Result<()> {
            into.fill(self.0);
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    let ids: Vec<PageId> = (0..40)
        .filter_map(|page| PageId::new(Region::Heap, page * 3))
        .collect();
    let (reader, done) = (image.reader(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut bytes = vec![0; ids.len() * PAGE_SIZE];
                    let mut seen = BTreeSet::new();
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let view = reader.view();
                        assert!(view.version().0 >= last, "views go forward");
                        last = view.version().0;
                        for _ in 0..2 {
                            view.read_pages(&ids, &mut bytes, lazaret_image::Verify::Yes)
                                .unwrap();
                            assert!(bytes.iter().all(|byte| *byte == last as u8));
                        }
                        seen.insert(last);
                    }
                    seen.len()
                })
            })
            .collect();
        for round in 1..=1000u64 {
            image
                .commit(
                    &ids,
                    &mut Round(round as u8),
                    SIZES,
                    b"",
                    Durability::Relaxed,
                )
                .unwrap();
            if round % 300 == 0 {
                image.fold().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        for thread in readers {
            assert!(thread.join().unwrap() > 1, "a reader saw one version only");
        }
    });
}

#[test]
fn views_and_readers_go_to_other_threads() {
    fn check<T: Clone + Send + Sync>() {}
    check::<lazaret_image::View>();
    check::<Reader>();
}
