//! Whatever fails, and whenever the power goes: an image is at its last acknowledged version, or a later one that
//! was being written, whole.
//!
//! The story behind it: a store that looked right for years lost data because after a failed fsync it asked again
//! and was told that all was well (<https://lwn.net/Articles/752063/>). The simulated disk does the same.

mod crash_run;
mod fault_storage;
mod model;

use crash_run::Run;
use fault_storage::Numbers;
use lazaret_image::{CommitError, Durability, FoldError, Image, SyncError};
use model::Contents;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

const STEPS: usize = 24;

#[test]
fn without_faults_an_image_is_its_model() {
    for seed in 0..20 {
        let mut run = Run::new(seed);
        for step in 0..3 * STEPS {
            run.step().unwrap();
            run.check();
            if step % 9 == 0 {
                run.hold();
            }
        }
        run.check_held();
        run.check_branches();
        run.remove_origin();
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
                let mut again = run.copy(chance);
                again.lose_power();
                cuts += 1;
            }
        }
    }
    assert!(cuts > 500, "only {cuts} power cuts were tried");
}

/// As many power cuts as `LAZARET_CRASH_POINTS` says, each in a history of its own.
#[test]
fn power_may_go_at_any_moment_of_any_history() {
    let points = match std::env::var("LAZARET_CRASH_POINTS") {
        Ok(points) => points.parse().expect("LAZARET_CRASH_POINTS is a number"),
        Err(_) => 1000,
    };
    for point in 0..points {
        let seed = 10_000 + point;
        let mut run = Run::new(seed);
        // Histories of all lengths; a step takes about five operations that change something.
        let at = 1 + Numbers(seed ^ 0x5555).below(400) as u64;
        run.context = format!("seed {seed}, power cut at operation {at}");
        run.storage.cut_at(at);
        while run.step().is_ok() {}
        assert!(run.storage.is_cut(), "{}", run.context);
        run.lose_power();
        if point % 4 == 0 {
            run.remove_origin();
        }
    }
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
                    run.check();
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
    run.storage.fail_at(2, EIO); // The write, then the sync.
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
    run.storage.fail_at(1, ENOSPC);
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
    // More operations than a fold has: some may fail and it doesn't matter.
    for at in 1..64 {
        let run = Run::new(3);
        let (mut image, storage) = (run.image.unwrap(), run.storage);
        image
            .commit(
                &[],
                &mut Contents::of(&[]),
                image.sizes(),
                b"x",
                Durability::Durable,
            )
            .unwrap();
        storage.fail_at(at, EIO);
        match image.fold() {
            Ok(_) => {}
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
        unsure, 4,
        "the rename, and the sync of the directory after it, to seal the log and to finish"
    );
}
