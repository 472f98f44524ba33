//! Folds on a real file system, while commits go on.

use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lazaret_image::{
    BytesPerSecond, CommitError, Durability, FoldError, Image, MAPPED_RUN_PAGES, PAGE_SIZE, PageId,
    PageSource, Region, Sizes, Verify,
};

const SIZES: Sizes = Sizes {
    heap: 1 << 34,
    stable: 0,
};
const WINDOW: u64 = 1 << 14;

/// Fills every page with one byte.
struct Filled(u8);

impl PageSource for Filled {
    fn read(&mut self, _: &[PageId], into: &mut [u8]) -> io::Result<()> {
        into.fill(self.0);
        Ok(())
    }
}

fn commit(image: &mut Image, pages: impl IntoIterator<Item = u64>, byte: u8) {
    let ids: Vec<_> = pages
        .into_iter()
        .map(|page| PageId::new(Region::Heap, page).unwrap())
        .collect();
    image
        .commit(&ids, &mut Filled(byte), SIZES, &[byte], Durability::Relaxed)
        .unwrap();
}

fn byte(image: &Image, page: u64) -> u8 {
    let mut bytes = [0; PAGE_SIZE];
    let id = PageId::new(Region::Heap, page).unwrap();
    image.read_pages(&[id], &mut bytes, Verify::Yes).unwrap();
    bytes[77]
}

fn shards(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap();
    names
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().ends_with(".shard")
        })
        .count()
}

#[test]
fn only_what_the_logs_touch_is_rewritten() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    // Five windows, two thirds full.
    for window in 0..5 {
        commit(&mut image, window * WINDOW..window * WINDOW + 11_000, 1);
    }
    let folded = image.fold().unwrap();
    assert_eq!((folded.shards, folded.kept), (5, 0));
    commit(&mut image, [2 * WINDOW + 5, 2 * WINDOW + 12_000], 2);
    let folded = image.fold().unwrap();
    assert_eq!((folded.shards, folded.kept), (1, 4));
    assert!(folded.bytes < 64 << 20, "{}", folded.bytes);
    assert_eq!(image.fold().unwrap().bytes, 0, "nothing to do");
    assert_eq!(shards(directory.path()), 5);
    // What became zeros is rewritten too, or it would come back.
    let smaller = Sizes {
        heap: (4 * WINDOW + 10) * PAGE_SIZE as u64,
        stable: 0,
    };
    image
        .commit(&[], &mut Filled(0), smaller, b"", Durability::Relaxed)
        .unwrap();
    let folded = image.fold().unwrap();
    assert_eq!((folded.shards, folded.kept, folded.pages), (1, 4, 10));
    drop(image);
    let image = Image::open(directory.path()).unwrap().0;
    let seen =
        [0, 2 * WINDOW + 5, 2 * WINDOW + 12_000, 4 * WINDOW + 9].map(|page| byte(&image, page));
    assert_eq!(seen, [1, 2, 2, 1]);
    assert_eq!(byte(&image, 4 * WINDOW + 10), 0);
}

#[test]
fn commits_go_on_while_a_fold_runs_and_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    commit(&mut image, 0..4000, 1);
    let mut job = image.begin_fold().unwrap();
    assert!(matches!(image.begin_fold(), Err(FoldError::Busy { .. })));
    assert!(matches!(
        image.finish_fold(&mut job),
        Err(FoldError::Unfinished)
    ));
    const WRITTEN: u64 = 3000;
    let mut rounds = 0u64;
    let mut job = std::thread::scope(|scope| {
        let folding = scope.spawn(move || {
            job.run(None, &AtomicBool::new(false)).unwrap();
            job
        });
        while !folding.is_finished() || rounds < 20 {
            rounds += 1;
            // However slow the fold, the pages around these keep their bytes.
            commit(
                &mut image,
                [1 + (rounds - 1) % WRITTEN, 5000 + rounds % 100],
                2,
            );
        }
        folding.join().unwrap()
    });
    let held = image.view();
    let folded = image.finish_fold(&mut job).unwrap();
    assert_eq!((folded.version.0, folded.pages), (1, 4000));
    assert_eq!(shards(directory.path()), 1);
    let log = image.log_len();
    drop(job);
    assert_eq!(image.disk_bytes() - log, folded.bytes);
    assert_eq!(log, rounds * 3 * PAGE_SIZE as u64);
    let written = rounds.min(WRITTEN);
    for page in [0, 1, written, written + 1, 3999, 5001] {
        let expected = if (1..=written).contains(&page) || page > 4000 {
            2
        } else {
            1
        };
        assert_eq!(byte(&image, page), expected, "page {page}");
    }
    assert!(held.pages().eq(image.view().pages()));
    let version = image.version();
    drop(image);
    let (image, recovery) = Image::open(directory.path()).unwrap();
    assert_eq!((image.version(), recovery.segments), (version, rounds));
    assert_eq!((byte(&image, 1), byte(&image, 3999)), (2, 1));
}

#[test]
fn a_fold_keeps_to_its_rate_and_stops_soon() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    commit(&mut image, 0..2048, 1);
    let mut job = image.begin_fold().unwrap();
    // 8 MiB at 32 MiB a second can't be done in less than a quarter of a second.
    let rate = BytesPerSecond(NonZeroU64::new(32 << 20).unwrap());
    let begin = Instant::now();
    job.run(Some(rate), &AtomicBool::new(false)).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(250));
    image.finish_fold(&mut job).unwrap();
    drop(job);

    commit(&mut image, 0..2048, 2);
    let mut job = image.begin_fold().unwrap();
    // At this rate it would take months; it ends because it is told to.
    let slow = BytesPerSecond(NonZeroU64::MIN);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let folding = scope.spawn(|| job.run(Some(slow), &stop));
        std::thread::sleep(Duration::from_millis(30));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(folding.join().unwrap(), Err(FoldError::Stopped)));
    });
    assert_eq!(shards(directory.path()), 1, "the unfinished shard is gone");
    job.run(None, &AtomicBool::new(false)).unwrap();
    image.finish_fold(&mut job).unwrap();
    assert_eq!(byte(&image, 2000), 2);
}

#[test]
fn a_job_that_is_dropped_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    commit(&mut image, 0..100, 1);
    let mut job = image.begin_fold().unwrap();
    job.run(None, &AtomicBool::new(false)).unwrap();
    assert_eq!(shards(directory.path()), 1);
    drop(job);
    assert_eq!(shards(directory.path()), 0);
    commit(&mut image, 50..150, 2);
    assert_eq!(image.fold().unwrap().pages, 150);
    drop(image);
    let (image, recovery) = Image::open(directory.path()).unwrap();
    assert!(recovery.leftovers.is_empty(), "{recovery:?}");
    assert_eq!((byte(&image, 0), byte(&image, 149)), (1, 2));
}

#[test]
fn many_long_runs_are_worth_folding() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    commit(&mut image, 0..8000, 1);
    image.fold().unwrap();
    // Each cuts the base into one more run that a worker has to map.
    let apart = MAPPED_RUN_PAGES + 24;
    for round in 1..=50 {
        commit(&mut image, [round * apart], 2);
    }
    assert!(image.should_fold(98) && !image.should_fold(103));
    image.fold().unwrap();
    assert!(!image.should_fold(10));
    assert_eq!(image.plan().runs.len(), 1);
}

#[test]
fn a_quota_refuses_what_is_over_it_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Image::create(directory.path()).unwrap();
    let page = PAGE_SIZE as u64;
    image.set_quota(Some(20 * page));
    commit(&mut image, 0..9, 1);
    assert_eq!(image.disk_bytes(), 10 * page);
    let ids: Vec<_> = (0..10)
        .map(|page| PageId::new(Region::Heap, page).unwrap())
        .collect();
    let error = image
        .commit(&ids, &mut Filled(2), SIZES, b"", Durability::Durable)
        .unwrap_err();
    assert!(
        matches!(error, CommitError::Quota { quota, used, .. } if (quota, used) == (20 * page, 10 * page)),
        "{error}"
    );
    assert_eq!((image.version().0, byte(&image, 0)), (1, 1));
    // Zeros take no room.
    image
        .commit(&ids, &mut Filled(0), SIZES, b"", Durability::Durable)
        .unwrap();
    commit(&mut image, 0..8, 3);
    assert_eq!(image.disk_bytes(), 20 * page);
    let error = image.commit(&[], &mut Filled(0), SIZES, b"", Durability::Durable);
    assert!(matches!(error, Err(CommitError::Quota { .. })));
    // A fold makes room.
    image.fold().unwrap();
    assert_eq!(image.disk_bytes(), 9 * page);
    commit(&mut image, 0..3, 4);
    drop(image);
    let image = Image::open(directory.path()).unwrap().0;
    assert_eq!(
        (image.disk_bytes(), byte(&image, 0), byte(&image, 7)),
        (13 * page, 4, 3)
    );
}
