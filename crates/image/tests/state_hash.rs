//! The state's hash against a naive one over all of memory, whatever the history, and from a file.

mod fault_storage;
mod model;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use fault_storage::{FaultStorage, Numbers};
use lazaret_image::{
    Accept, Durability, FoldJob, Image, PAGE_SIZE, PageId, ReadAt, ReadError, Region, Sizes,
    StateHasher, StateRoots, Storage, Verify, View,
};
use model::{Contents, State, random_pages, random_sizes};

type Hash = [u8; 32];

const CONTEXT: &str = "Lazaret 2026-11-22 state hash 1: ";

fn key(what: &str) -> Hash {
    blake3::derive_key(&format!("{CONTEXT}{what}"), b"")
}

fn keyed(key: &Hash, bytes: &[u8]) -> Hash {
    *blake3::keyed_hash(key, bytes).as_bytes()
}

/// The root over a region as the format defines it: every page, every node.
fn naive_root<F: ReadAt>(view: &View<F>, region: Region) -> Hash {
    let pages = view.sizes().pages(region);
    let mut width = 64;
    while width < pages {
        width *= 64;
    }
    let (page_key, node_key) = (key("page"), key("node"));
    let mut level: Vec<Hash> = (0..pages)
        .map(|page| {
            let mut bytes = [0; PAGE_SIZE];
            let id = PageId::new(region, page).unwrap();
            view.read_pages(&[id], &mut bytes, Verify::Yes).unwrap();
            keyed(&page_key, &bytes)
        })
        .collect();
    level.resize(width as usize, keyed(&page_key, &[0; PAGE_SIZE]));
    while level.len() > 1 {
        level = (level.chunks_exact(4))
            .map(|children| keyed(&node_key, children.as_flattened()))
            .collect();
    }
    level[0]
}

fn naive<F: ReadAt>(view: &View<F>) -> StateRoots {
    StateRoots {
        sizes: view.sizes(),
        heap: naive_root(view, Region::Heap),
        stable: naive_root(view, Region::Stable),
    }
}

/// Hashes the newest version, compares, and returns how many pages were hashed.
fn check<S: Storage>(hasher: &mut StateHasher, image: &Image<S>, context: &str) -> u64 {
    let hashed = hasher.update(&image.reader(), Verify::Yes).unwrap();
    assert_eq!(hashed.view.version(), image.version(), "{context}");
    assert_eq!(hasher.version(), Some(image.version()), "{context}");
    assert_eq!(hashed.roots, naive(&hashed.view), "{context}");
    hashed.pages
}

fn commit<S: Storage>(image: &mut Image<S>, pages: &[(PageId, u64)], sizes: Sizes) {
    let ids: Vec<PageId> = pages.iter().map(|(page, _)| *page).collect();
    let source = &mut Contents::of(pages);
    image
        .commit(&ids, source, sizes, b"", Durability::Relaxed)
        .unwrap();
}

fn random_commit<S: Storage>(image: &mut Image<S>, numbers: &mut Numbers) {
    let sizes = random_sizes(numbers);
    let pages = random_pages(numbers, sizes, 30);
    commit(image, &pages, sizes);
}

fn heap(pages: impl IntoIterator<Item = u64>, content: u64) -> Vec<(PageId, u64)> {
    pages
        .into_iter()
        .map(|page| (PageId::new(Region::Heap, page).unwrap(), content))
        .collect()
}

const SIZES: Sizes = Sizes {
    heap: 1000 * PAGE_SIZE as u64,
    stable: 5000,
};

fn sample(path: &Path) -> Image {
    let mut image = Image::create(path).unwrap();
    commit(&mut image, &heap(0..300, 7), SIZES);
    image
}

/// If this fails the state hash has changed, and all hashes that anybody has written down are void: raise the number
/// in the contexts of the keys, here and in the format.
#[test]
fn golden_values() {
    let hex = |hash: Hash| hash.map(|byte| format!("{byte:02x}")).concat();
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(&directory.path().join("image")).unwrap();
    let empty = StateHasher::new()
        .update(&image.reader(), Verify::Yes)
        .unwrap()
        .roots;
    assert_eq!(empty.heap, empty.stable);
    let mut pages = heap([0, 63, 64, 4097], 1);
    pages.push((PageId::new(Region::Stable, 1).unwrap(), 2));
    let sizes = Sizes {
        heap: 4098 * PAGE_SIZE as u64,
        stable: PAGE_SIZE as u64 + 1,
    };
    commit(&mut image, &pages, sizes);
    let roots = StateHasher::new()
        .update(&image.reader(), Verify::Yes)
        .unwrap()
        .roots;
    let found = [
        hex(empty.heap),
        hex(empty.state_hash(b"")),
        hex(roots.heap),
        hex(roots.stable),
        hex(roots.state_hash(b"rest")),
    ];
    let golden = [
        "9343d5bb8840602fbde76201b8e9456be5a6069aa44d89a96d2ad19ff6dc6233",
        "e078fdf001d054b7710dc5de9ab9161066cef10bcf0363b44154df94e5caec49",
        "0c40476e6170d7bc1749b0a26ee4de6d7635ad06b89d454dbe6242e072debce8",
        "d0b86fd2081ac050e5585e42536f4d98391fe205d995064a9fc50786d5917676",
        "5467b71445c6e87655367678fa3897be9654dce1292a8bd7e13f06d988d654b9",
    ];
    assert_eq!(found, golden);
}

#[test]
fn the_hash_is_of_sizes_roots_and_rest() {
    let roots = StateRoots {
        sizes: SIZES,
        heap: [1; 32],
        stable: [2; 32],
    };
    let (mut bytes, rest) = (Vec::new(), b"globals");
    bytes.extend(SIZES.heap.to_le_bytes());
    bytes.extend(SIZES.stable.to_le_bytes());
    bytes.extend([1; 32]);
    bytes.extend([2; 32]);
    bytes.extend(rest);
    assert_eq!(roots.state_hash(rest), keyed(&key("state"), &bytes));
}

/// A fold that may be under way.
fn finish(image: &mut Image, job: &mut Option<FoldJob>) {
    if let Some(mut job) = job.take() {
        job.run(None, &AtomicBool::new(false)).unwrap();
        image.finish_fold(&mut job).unwrap();
    }
}

#[test]
fn random_histories() {
    for seed in 0..40 {
        let mut numbers = Numbers(seed);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        let mut image = Image::create(&path).unwrap();
        let mut hasher = StateHasher::new();
        let (mut job, mut snapshots) = (None, 0);
        for step in 0..60 {
            let context = format!("seed {seed}, step {step}");
            match numbers.below(16) {
                0..8 => random_commit(&mut image, &mut numbers),
                8..10 => drop(check(&mut hasher, &image, &context)),
                10 => drop(image.save_hashes(&hasher).unwrap()),
                11 => {
                    // Reopened, after an orderly end or not.
                    job = None;
                    drop(image);
                    image = Image::open(&path).unwrap().0;
                    hasher = image.state_hasher();
                    if numbers.below(2) == 0 {
                        check(&mut hasher, &image, &context);
                    }
                }
                12 => finish(&mut image, &mut job),
                13 if job.is_none() => job = Some(image.begin_fold().unwrap()),
                14 => {
                    snapshots += 1;
                    let to = directory.path().join(format!("{snapshots}"));
                    image.snapshot(&to).unwrap();
                }
                15 if snapshots > 0 => {
                    job = None;
                    let from = format!("{}", 1 + numbers.below(snapshots));
                    let from = directory.path().join(from);
                    image.restore(&from, Accept::SameTenant).unwrap();
                }
                _ => {}
            }
        }
        check(&mut hasher, &image, &format!("seed {seed}, end"));
    }
}

#[test]
fn only_changed_pages_are_hashed() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = sample(&directory.path().join("image"));
    let mut hasher = StateHasher::new();
    assert_eq!(check(&mut hasher, &image, "first"), 300);
    assert_eq!(check(&mut hasher, &image, "nothing"), 0);
    commit(&mut image, &heap([3, 4, 299], 8), SIZES);
    commit(&mut image, &heap([4, 5, 900], 9), SIZES);
    assert_eq!(check(&mut hasher, &image, "two commits"), 5);
    image.fold().unwrap();
    assert_eq!(check(&mut hasher, &image, "a fold"), 0);
    // Zeros needn't be hashed.
    commit(&mut image, &heap(0..100, 0), SIZES);
    let small = Sizes {
        heap: 200 * PAGE_SIZE as u64,
        ..SIZES
    };
    commit(&mut image, &[], small);
    commit(&mut image, &[], SIZES);
    assert_eq!(check(&mut hasher, &image, "shrunk and grown"), 0);
    // Another hasher takes the image from the first.
    let mut other = StateHasher::new();
    assert_eq!(check(&mut other, &image, "another"), 100);
    assert_eq!(check(&mut hasher, &image, "the first again"), 100);
}

#[test]
fn branches_have_the_same_roots() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = sample(&directory.path().join("image"));
    let mut hasher = StateHasher::new();
    let origin = hasher.update(&image.reader(), Verify::Yes).unwrap().roots;
    let (snapshot, fork) = (directory.path().join("s"), directory.path().join("f"));
    image.snapshot(&snapshot).unwrap();
    image.fork(&fork).unwrap();
    for branch in [&snapshot, &fork] {
        let (branch, _) = Image::open(branch).unwrap();
        let roots = branch
            .state_hasher()
            .update(&branch.reader(), Verify::Yes)
            .unwrap()
            .roots;
        assert_eq!(roots, origin);
    }
    commit(&mut image, &heap([1], 2), SIZES);
    let changed = hasher.update(&image.reader(), Verify::Yes).unwrap().roots;
    assert_ne!(changed.heap, origin.heap);
    assert_eq!(changed.stable, origin.stable);
    image.restore(&snapshot, Accept::SameTenant).unwrap();
    let restored = hasher.update(&image.reader(), Verify::Yes).unwrap().roots;
    assert_eq!(restored, origin);
}

#[test]
fn a_saved_tree_needs_only_what_came_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut image = sample(&path);
    let mut hasher = StateHasher::new();
    assert!(!image.save_hashes(&hasher).unwrap(), "nothing is known yet");
    check(&mut hasher, &image, "first");
    commit(&mut image, &heap([2], 5), SIZES);
    assert!(image.save_hashes(&hasher).unwrap());
    commit(&mut image, &heap([3], 5), SIZES);
    commit(&mut image, &heap([4, 5], 0), SIZES);
    drop(image);

    let (mut image, recovery) = Image::open(&path).unwrap();
    assert!(recovery.leftovers.is_empty());
    let mut hasher = image.state_hasher();
    assert_eq!(check(&mut hasher, &image, "reopened"), 2);
    assert!(image.save_hashes(&hasher).unwrap());
    // What was loaded and not brought to the newest version is saved as what it is.
    commit(&mut image, &heap([9], 3), SIZES);
    let loaded = image.state_hasher();
    assert!(image.save_hashes(&loaded).unwrap());
    assert_eq!(check(&mut image.state_hasher(), &image, "saved again"), 1);
    // A log that was begun since: hashing again makes it savable.
    commit(&mut image, &heap([10], 3), SIZES);
    let mut hasher = image.state_hasher();
    image.fold().unwrap();
    assert!(!image.save_hashes(&hasher).unwrap());
    assert!(image.state_hasher().version().is_none(), "of another log");
    check(&mut hasher, &image, "after the fold");
    assert!(image.save_hashes(&hasher).unwrap());
    assert_eq!(
        check(&mut image.state_hasher(), &image, "of the new log"),
        0
    );
    // Not another image's.
    let mut other = sample(&directory.path().join("other"));
    assert!(!other.save_hashes(&hasher).unwrap());
    check(&mut hasher, &other, "another image");
    drop(other);
    fs::copy(path.join("tree"), directory.path().join("other/tree")).unwrap();
    let (other, _) = Image::open(&directory.path().join("other")).unwrap();
    assert!(other.state_hasher().version().is_none());
    drop((image, other));
    Image::remove(&path).unwrap();
}

#[test]
fn a_damaged_file_only_costs_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut image = sample(&path);
    let mut hasher = StateHasher::new();
    check(&mut hasher, &image, "first");
    assert!(image.save_hashes(&hasher).unwrap());
    drop(image);
    let whole = fs::read(path.join("tree")).unwrap();
    let (image, _) = Image::open(&path).unwrap();
    let refused = |bytes: &[u8], context: String| {
        fs::write(path.join("tree"), bytes).unwrap();
        let mut hasher = image.state_hasher();
        assert_eq!(hasher.version(), None, "{context}");
        let hashed = hasher.update(&image.reader(), Verify::No).unwrap();
        assert_eq!(hashed.pages, 300, "{context}");
    };
    for at in (0..whole.len()).step_by(97).chain(0..250) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes, format!("byte {at}"));
    }
    for length in [0, 1, 191, 192, 193, whole.len() - 1, whole.len() + 1] {
        let mut bytes = whole.clone();
        bytes.resize(length, 0);
        refused(&bytes, format!("{length} bytes"));
    }
    fs::write(path.join("tree"), &whole).unwrap();
    assert_eq!(check(&mut image.state_hasher(), &image, "whole"), 0);
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_and_the_next_hash_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut image = sample(&path);
    let mut hasher = StateHasher::new();
    check(&mut hasher, &image, "first");
    commit(&mut image, &heap([7], 1), SIZES);
    let log = path.join("log-0.log");
    let whole = fs::read(&log).unwrap();
    let mut damaged = whole.clone();
    // The last of the page: what is behind are zeros that were written ahead.
    *damaged.iter_mut().rfind(|byte| **byte != 0).unwrap() ^= 1;
    fs::write(&log, damaged).unwrap();
    let error = hasher.update(&image.reader(), Verify::Yes).err().unwrap();
    assert!(matches!(error, ReadError::Checksum { .. }), "{error}");
    assert_eq!(hasher.version(), None);
    assert!(!image.save_hashes(&hasher).unwrap());
    fs::write(&log, whole).unwrap();
    assert_eq!(check(&mut hasher, &image, "again"), 300);
}

/// The power fails at every operation of saving, also over an older file.
#[test]
fn power_cuts_while_saving() {
    let mut cuts = 0;
    for at in 1.. {
        let storage = FaultStorage::new(at);
        let mut numbers = Numbers(at);
        let mut image = Image::create_on(storage.clone()).unwrap();
        let mut hasher = StateHasher::new();
        for _ in 0..2 {
            random_commit(&mut image, &mut numbers);
            check(&mut hasher, &image, "before");
            assert!(image.save_hashes(&hasher).unwrap());
        }
        random_commit(&mut image, &mut numbers);
        random_commit(&mut image, &mut numbers);
        check(&mut hasher, &image, "before");
        storage.cut_at(at);
        let saved = image.save_hashes(&hasher);
        let cut = storage.is_cut();
        assert_eq!(cut, saved.is_err(), "cut at {at}");
        drop(image);
        storage.power_cut(&mut numbers);
        let (mut image, _) = Image::open_on(storage.clone()).unwrap();
        let mut hasher = image.state_hasher();
        check(&mut hasher, &image, &format!("cut at {at}"));
        // The log may be shorter than it was, and grows over its old end.
        for _ in 0..3 {
            random_commit(&mut image, &mut numbers);
            check(
                &mut image.state_hasher(),
                &image,
                &format!("cut at {at}, anew"),
            );
            check(&mut hasher, &image, &format!("cut at {at}, on"));
        }
        if !cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 8, "{cuts}");
}

/// The model knows what the pages are; the naive hash only what the image says.
#[test]
fn the_model_agrees() {
    let mut numbers = Numbers(5);
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(&directory.path().join("image")).unwrap();
    let mut state = State::default();
    for _ in 0..20 {
        let sizes = random_sizes(&mut numbers);
        let pages = random_pages(&mut numbers, sizes, 60);
        commit(&mut image, &pages, sizes);
        state = state.after(&pages, sizes, b"");
    }
    state.check(&image, "model");
    check(&mut StateHasher::new(), &image, "model");
}
