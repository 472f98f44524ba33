//! What a checkpointer has put on disk survives a power cut, whatever was committed meanwhile.

mod fault_storage;
mod model;

use std::collections::BTreeMap;

use fault_storage::{FaultStorage, Numbers};
use lazaret_image::{CommitError, Durability, Image, PAGE_SIZE, Sizes, SyncError, Synced};
use model::{Contents, State, random_pages};

const SIZES: Sizes = Sizes {
    heap: 160 * PAGE_SIZE as u64,
    stable: 160 * PAGE_SIZE as u64,
};

/// Commits some pages, relaxed, and returns the state after and how many pages were stored.
fn commit(image: &mut Image<FaultStorage>, state: &State, numbers: &mut Numbers) -> (State, u64) {
    let count = 1 + numbers.below(12);
    let pages = random_pages(numbers, SIZES, count);
    let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
    let meta = image.version().0.to_le_bytes();
    let source = &mut Contents::of(&pages);
    let committed = image
        .commit(&ids, source, SIZES, &meta, Durability::Relaxed)
        .unwrap();
    (state.after(&pages, SIZES, &meta), committed.pages)
}

#[test]
fn a_power_cut_takes_nothing_that_was_put_on_disk() {
    for seed in 0..200 {
        let mut numbers = Numbers(seed);
        let storage = FaultStorage::new(seed);
        let mut image = Image::create_on(storage.clone()).unwrap();
        let checkpointer = image.checkpointer();
        let mut states = BTreeMap::from([(image.version().0, State::default())]);
        let (mut state, mut stored, mut synced) = (State::default(), 0, None::<Synced>);
        for _ in 0..4 + numbers.below(12) {
            let (after, pages) = commit(&mut image, &state, &mut numbers);
            (state, stored) = (after, stored + pages);
            states.insert(image.version().0, state.clone());
            match numbers.below(8) {
                0 | 1 => {
                    let done = checkpointer.sync().unwrap();
                    assert_eq!((done.version, done.pages), (image.version(), stored));
                    (synced, stored) = (Some(done), 0);
                }
                2 => image.record().unwrap(),
                3 => drop(image.fold().unwrap()),
                _ => {}
            }
        }
        drop((image, checkpointer));
        storage.power_cut(&mut numbers);
        let (image, recovery) = Image::open_on(storage.clone()).unwrap();
        let least = synced.map_or(0, |synced| synced.version.0);
        assert!(
            recovery.version.0 >= least,
            "seed {seed}: {} is gone, {} is there",
            least,
            recovery.version.0
        );
        states[&recovery.version.0].check(&image, &format!("seed {seed}"));
    }
}

#[test]
fn what_is_recorded_is_never_cut_off_and_what_is_only_written_is() {
    for record in [false, true] {
        let storage = FaultStorage::new(7);
        let mut numbers = Numbers(7);
        let mut image = Image::create_on(storage.clone()).unwrap();
        let checkpointer = image.checkpointer();
        let (state, _) = commit(&mut image, &State::default(), &mut numbers);
        commit(&mut image, &state, &mut numbers);
        checkpointer.sync().unwrap();
        assert!(image.unrecorded() > 0);
        if record {
            image.record().unwrap();
            assert_eq!(image.unrecorded(), 0);
        }
        drop((image, checkpointer));
        let mut bytes = storage.bytes("log-0.log");
        let end = written(&bytes);
        bytes[end - 1] ^= 0xff;
        storage.set_bytes("log-0.log", bytes);
        let (image, recovery) = Image::open_on(storage).unwrap();
        match record {
            // The last version is there, and says which of its pages is damaged.
            true => assert!(
                recovery.cut.is_none() && recovery.version.0 == 2 && is_damaged(&image),
                "{recovery:?}"
            ),
            false => assert!(
                recovery.cut.is_some() && recovery.version.0 == 1,
                "{recovery:?}"
            ),
        }
    }
}

/// Bytes up to the last that isn't zero: zeros behind are written ahead.
fn written(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// Whether any page isn't what was written.
fn is_damaged(image: &Image<FaultStorage>) -> bool {
    let mut pages = image.view().pages().collect::<Vec<_>>().into_iter();
    pages.any(|page| image.verify_page(page).is_err())
}

#[test]
fn a_commit_says_what_a_checkpointer_put_on_disk() {
    let storage = FaultStorage::new(9);
    let mut numbers = Numbers(9);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let checkpointer = image.checkpointer();
    let (state, _) = commit(&mut image, &State::default(), &mut numbers);
    let first = written(&storage.bytes("log-0.log"));
    checkpointer.sync().unwrap();
    commit(&mut image, &state, &mut numbers);
    drop((image, checkpointer));
    // The second segment claims the first, so damage to that is no torn tail.
    let mut bytes = storage.bytes("log-0.log");
    bytes[first - 1] ^= 0xff;
    storage.set_bytes("log-0.log", bytes);
    let (image, recovery) = Image::open_on(storage).unwrap();
    assert!(
        recovery.cut.is_none() && recovery.version.0 == 2 && is_damaged(&image),
        "{recovery:?}"
    );
}

#[test]
fn after_a_failed_sync_nothing_is_committed_any_more() {
    let storage = FaultStorage::new(3);
    let mut numbers = Numbers(3);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let checkpointer = image.checkpointer();
    commit(&mut image, &State::default(), &mut numbers);
    storage.fail_at(1, 5);
    assert!(matches!(checkpointer.sync(), Err(SyncError::File(_))));
    assert!(matches!(
        checkpointer.sync(),
        Err(SyncError::Poisoned { .. })
    ));
    assert!(matches!(image.record(), Err(SyncError::Poisoned { .. })));
    let refused = image.commit(&[], &mut Contents::of(&[]), SIZES, b"", Durability::Relaxed);
    assert!(matches!(refused, Err(CommitError::Poisoned { .. })));
}

#[test]
fn nothing_new_costs_nothing() {
    let storage = FaultStorage::new(5);
    let mut numbers = Numbers(5);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let checkpointer = image.checkpointer();
    commit(&mut image, &State::default(), &mut numbers);
    checkpointer.sync().unwrap();
    let before = storage.operations();
    let again = checkpointer.sync().unwrap();
    assert_eq!((again.version, again.pages), (image.version(), 0));
    assert_eq!(storage.operations(), before);
}
