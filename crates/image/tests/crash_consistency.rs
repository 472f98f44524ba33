//! Whatever fails, and whenever the power goes: an image is at its last acknowledged version, or a later one that
//! was being written, whole.
//!
//! The story behind it: a store that looked right for years lost data because after a failed fsync it asked again
//! and was told that all was well (<https://lwn.net/Articles/752063/>). The simulated disk does the same.

mod fault_storage;
mod model;

use fault_storage::{FaultStorage, Numbers};
use lazaret_image::{CommitError, Durability, FoldError, Image, OpenError, SyncError};
use model::{Contents, State, random_pages, random_sizes};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// An image, and what it should be.
struct Run {
    storage: FaultStorage,
    image: Option<Image<FaultStorage>>,
    /// The state at each version up to the newest that may have been written.
    states: Vec<State>,
    /// The image's version.
    version: usize,
    /// The newest version that is on disk for sure.
    durable: usize,
    numbers: Numbers,
    context: String,
}

impl Run {
    fn new(seed: u64) -> Run {
        let storage = FaultStorage::new(seed);
        let image = Image::create_on(storage.clone()).unwrap();
        Run {
            storage,
            image: Some(image),
            states: vec![State::default()],
            version: 0,
            durable: 0,
            numbers: Numbers(seed),
            context: format!("seed {seed}"),
        }
    }

    /// One random step. `Err(poisoned)` if it failed.
    fn step(&mut self) -> Result<(), bool> {
        let Some(image) = &mut self.image else {
            return self.open();
        };
        match self.numbers.below(16) {
            0 => match image.fold() {
                Ok(folded) => {
                    assert_eq!(folded.version.0 as usize, self.version);
                    self.durable = self.version;
                    Ok(())
                }
                Err(FoldError::Poisoned { .. } | FoldError::Switch(_)) => Err(true),
                Err(_) => Err(false),
            },
            1 | 2 => {
                let done = if self.numbers.below(2) == 0 {
                    image.sync()
                } else {
                    image.checkpoint()
                };
                match done {
                    Ok(()) => {
                        self.durable = self.version;
                        Ok(())
                    }
                    Err(SyncError::Poisoned { .. }) => Err(true),
                    // Whether the log's sync failed or the manifest's: to open again is right for both.
                    Err(_) => Err(true),
                }
            }
            3 => {
                // As if the host was killed: the page cache stays.
                self.image = None;
                self.open()
            }
            4 => {
                let pages = random_pages(&mut self.numbers, self.states[self.version].sizes, 8);
                if pages.is_empty() {
                    return Ok(());
                }
                let fail_at = Some(1 + self.numbers.below(pages.len()));
                let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
                let mut source = Contents {
                    fail_at,
                    ..Contents::of(&pages)
                };
                let error = image
                    .commit(
                        &ids,
                        &mut source,
                        image.sizes(),
                        b"never",
                        Durability::Durable,
                    )
                    .unwrap_err();
                match error {
                    CommitError::Source(_) => Ok(()),
                    CommitError::Poisoned { .. } => Err(true),
                    _ => Err(false),
                }
            }
            _ => {
                let sizes = random_sizes(&mut self.numbers);
                let most = [0, 1, 4, 40][self.numbers.below(4)];
                let pages = random_pages(&mut self.numbers, sizes, most);
                let meta = vec![self.numbers.next() as u8; self.numbers.below(300)];
                let durability = if self.numbers.below(2) == 0 {
                    Durability::Durable
                } else {
                    Durability::Relaxed
                };
                self.states.truncate(self.version + 1);
                self.states
                    .push(self.states[self.version].after(&pages, sizes, &meta));
                let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
                match image.commit(&ids, &mut Contents::of(&pages), sizes, &meta, durability) {
                    Ok(committed) => {
                        self.version += 1;
                        assert_eq!(committed.version.0 as usize, self.version);
                        let zeros =
                            pages.iter().filter(|(_, content)| *content == 0).count() as u64;
                        assert_eq!(
                            (committed.zero_pages, committed.pages),
                            (zeros, pages.len() as u64 - zeros)
                        );
                        if durability == Durability::Durable {
                            self.durable = self.version;
                        }
                        Ok(())
                    }
                    Err(CommitError::Sync(_) | CommitError::Poisoned { .. }) => Err(true),
                    Err(_) => Err(false),
                }
            }
        }
    }

    /// Opens the image, which must be at a version between the last durable and the last written.
    fn open(&mut self) -> Result<(), bool> {
        let (image, recovery) = match Image::open_on(self.storage.clone()) {
            Ok(opened) => opened,
            // The injected fault; real damage is another error, and fails the test.
            Err(OpenError::File(_)) => return Err(false),
            Err(error) => panic!("{}: {error}", self.context),
        };
        let version = image.version().0 as usize;
        assert_eq!(recovery.version, image.version());
        assert!(
            version >= self.durable,
            "{}: at {version}, but {} was acknowledged",
            self.context,
            self.durable
        );
        assert!(
            version < self.states.len(),
            "{}: at {version}, which was never written",
            self.context
        );
        self.version = version;
        self.storage
            .look(|| self.states[version].check(&image, &self.context));
        self.image = Some(image);
        Ok(())
    }

    fn check(&self) {
        let Some(image) = &self.image else { return };
        assert_eq!(image.version().0 as usize, self.version, "{}", self.context);
        self.storage
            .look(|| self.states[self.version].check(image, &self.context));
    }

    /// Loses power, opens, works on, loses power once more.
    fn lose_power(&mut self) {
        for _ in 0..2 {
            self.image = None;
            self.storage.power_cut(&mut self.numbers);
            self.open().unwrap();
            for _ in 0..4 {
                self.step().unwrap();
            }
            self.check();
        }
    }
}

const STEPS: usize = 24;

#[test]
fn without_faults_an_image_is_its_model() {
    for seed in 0..20 {
        let mut run = Run::new(seed);
        for _ in 0..3 * STEPS {
            run.step().unwrap();
            run.check();
        }
    }
}

#[test]
fn power_may_go_at_every_operation() {
    let mut cuts = 0;
    for seed in 100..108 {
        let operations = {
            let mut run = Run::new(seed);
            let before = run.storage.mutations();
            (0..STEPS).for_each(|_| run.step().unwrap());
            run.storage.mutations() - before
        };
        for at in 1..=operations {
            let mut run = Run::new(seed);
            run.context = format!("seed {seed}, power cut at operation {at} of {operations}");
            run.storage.cut_at(at);
            while run.step().is_ok() {}
            assert!(run.storage.is_cut(), "{}", run.context);
            // The same moment ends in many ways: what the disk kept is chance.
            for chance in 0..2 {
                let mut again = Run {
                    storage: run.storage.copy(),
                    image: None,
                    states: run.states.clone(),
                    numbers: Numbers(run.numbers.0 ^ chance),
                    context: format!("{}, chance {chance}", run.context),
                    ..run
                };
                again.lose_power();
                cuts += 1;
            }
        }
    }
    assert!(cuts > 500, "only {cuts} power cuts were tried");
}

#[test]
fn every_operation_may_fail() {
    let mut failures = [0; 2];
    for seed in 200..204 {
        let operations = {
            let mut run = Run::new(seed);
            let before = run.storage.operations();
            (0..STEPS).for_each(|_| run.step().unwrap());
            run.storage.operations() - before
        };
        for at in 1..=operations {
            let errno = [ENOSPC, EIO][at as usize % 2];
            let mut run = Run::new(seed);
            run.context = format!("seed {seed}, error {errno} at operation {at} of {operations}");
            run.storage.fail_at(at, errno);
            for _ in 0..STEPS + 8 {
                if let Err(poisoned) = run.step() {
                    failures[usize::from(poisoned)] += 1;
                    if poisoned {
                        run.image = None;
                        run.open().unwrap();
                    }
                    // Otherwise the image is at the version it had, and the next steps use it.
                }
            }
            run.check();
            run.lose_power();
        }
    }
    assert!(failures.iter().all(|count| *count > 50), "{failures:?}");
}

#[test]
fn after_a_failed_sync_nothing_is_committed_until_reopened() {
    let mut run = Run::new(1);
    let sizes = lazaret_image::Sizes {
        heap: 1 << 16,
        stable: 0,
    };
    let pages = [(
        lazaret_image::PageId::new(lazaret_image::Region::Heap, 3).unwrap(),
        7,
    )];
    let ids = [pages[0].0];
    let mut image = run.image.take().unwrap();
    image
        .commit(
            &ids,
            &mut Contents::of(&pages),
            sizes,
            b"one",
            Durability::Durable,
        )
        .unwrap();
    run.storage.fail_at(3, EIO); // Data, header, sync.
    let error = image
        .commit(
            &ids,
            &mut Contents::of(&pages),
            sizes,
            b"two",
            Durability::Durable,
        )
        .unwrap_err();
    assert!(matches!(error, CommitError::Sync(_)), "{error}");
    assert!(
        error.to_string().contains("cannot sync /image/log-0.log"),
        "{error}"
    );
    let error = image
        .commit(
            &ids,
            &mut Contents::of(&pages),
            sizes,
            b"two",
            Durability::Relaxed,
        )
        .unwrap_err();
    assert!(matches!(error, CommitError::Poisoned { .. }), "{error}");
    assert!(matches!(image.sync(), Err(SyncError::Poisoned { .. })));
    assert!(matches!(image.fold(), Err(FoldError::Poisoned { .. })));
    assert_eq!(image.meta(), b"one");
    drop(image);
    let (mut image, _) = Image::open_on(run.storage.clone()).unwrap();
    assert_eq!(image.meta(), b"one");
    image
        .commit(
            &ids,
            &mut Contents::of(&pages),
            sizes,
            b"two",
            Durability::Durable,
        )
        .unwrap();
}

#[test]
fn a_full_disk_is_its_own_error_and_passes() {
    let mut run = Run::new(1);
    let sizes = lazaret_image::Sizes {
        heap: 1 << 16,
        stable: 0,
    };
    let pages = [(
        lazaret_image::PageId::new(lazaret_image::Region::Heap, 3).unwrap(),
        7,
    )];
    let image = run.image.as_mut().unwrap();
    for operation in [1, 2] {
        run.storage.fail_at(operation, ENOSPC);
        let error = image
            .commit(
                &[pages[0].0],
                &mut Contents::of(&pages),
                sizes,
                b"x",
                Durability::Durable,
            )
            .unwrap_err();
        assert!(matches!(error, CommitError::NoSpace(_)), "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(
            run.storage.bytes("log-0.log").len(),
            0,
            "the space is given back"
        );
    }
    image
        .commit(
            &[pages[0].0],
            &mut Contents::of(&pages),
            sizes,
            b"x",
            Durability::Durable,
        )
        .unwrap();
    assert_eq!(image.version().0, 1);
}

#[test]
fn a_fold_that_may_have_switched_takes_no_more_commits() {
    let mut unsure = 0;
    for at in 1.. {
        let run = Run::new(3);
        let (mut image, storage) = (run.image.unwrap(), run.storage);
        storage.fail_at(at, EIO);
        match image.fold() {
            Ok(_) => break,
            Err(FoldError::Switch(_)) => {
                unsure += 1;
                assert!(matches!(
                    image.checkpoint(),
                    Err(SyncError::Poisoned { .. })
                ));
            }
            Err(_) => image.checkpoint().unwrap(),
        }
    }
    assert_eq!(
        unsure, 2,
        "the rename, and the sync of the directory after it"
    );
}
