//! What snapshots, forks, restores and folds cost for states of different sizes, and how long they hold the image.
//!
//! `cargo run --release -p lazaret-image --example snapshot_speed [DIR]`; DIR should be on the disk in question.

use std::error::Error;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use lazaret_image::{
    Accept, CHUNK_PAGES, Durability, Image, PAGE_SIZE, PageId, PageSource, Region, Sizes,
};

/// Pages filled with their number.
struct Numbers;

impl PageSource for Numbers {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        for (page, into) in pages.iter().zip(into.chunks_exact_mut(PAGE_SIZE)) {
            into.fill(page.page() as u8 | 1);
        }
        Ok(())
    }
}

/// Milliseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let done = work();
    (begin.elapsed().as_secs_f64() * 1e3, done)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn heap(pages: impl Iterator<Item = u64>) -> Vec<PageId> {
    pages
        .filter_map(|page| PageId::new(Region::Heap, page))
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    // The floor: a snapshot waits for the disk six times, whatever the state's size.
    let file = std::fs::File::create(directory.path().join("floor"))?;
    let mut syncs = Vec::new();
    for offset in 0..50 {
        file.write_all_at(&[1; PAGE_SIZE], offset * PAGE_SIZE as u64)?;
        let (time, synced) = timed(|| file.sync_all());
        synced?;
        syncs.push(time);
    }
    println!("one fsync of a page: {:.2} ms", median(syncs));
    println!(
        "{:>9} {:>6}  {:>9} {:>9} {:>9}  {:>9} {:>9} {:>9} {:>9} {:>9}  {:>9}",
        "state",
        "files",
        "snapshot",
        "fork",
        "restore",
        "begin",
        "run",
        "finish",
        "remove",
        "kept",
        "open"
    );
    for pages in [1 << 8, 1 << 14, 1 << 18] {
        let sizes = Sizes {
            heap: pages * PAGE_SIZE as u64,
            stable: 0,
        };
        let path = directory.path().join("image");
        let mut image = Image::create(&path)?;
        for first in (0..pages).step_by(CHUNK_PAGES * 16) {
            let ids = heap(first..pages.min(first + CHUNK_PAGES as u64 * 16));
            image.commit(&ids, &mut Numbers, sizes, b"", Durability::Relaxed)?;
        }
        image.fold()?;
        let (mut snapshots, mut forks, mut restores) = (Vec::new(), Vec::new(), Vec::new());
        let branch = directory.path().join("branch");
        for round in 0..15 {
            // A call that wrote a page, as there is before most snapshots.
            image.commit(
                &heap(round..round + 1),
                &mut Numbers,
                sizes,
                b"",
                Durability::Durable,
            )?;
            let (time, made) = timed(|| image.snapshot(&branch));
            made?;
            snapshots.push(time);
            if round < 3 {
                let (time, restored) = timed(|| image.restore(&branch, Accept::SameTenant));
                restored?;
                restores.push(time);
            }
            Image::remove(&branch)?;
            let (time, made) = timed(|| image.fork(&branch));
            made?;
            forks.push(time);
            Image::remove(&branch)?;
        }
        // One page in a hundred, in one half of the state.
        let ids = heap((0..pages / 2).step_by(100));
        image.commit(&ids, &mut Numbers, sizes, b"", Durability::Durable)?;
        let (begin, job) = timed(|| image.begin_fold());
        let mut job = job?;
        let (run, done) = timed(|| job.run(None, &AtomicBool::new(false)));
        done?;
        let (finish, folded) = timed(|| image.finish_fold(&mut job));
        let folded = folded?;
        let (removed, ()) = timed(|| drop(job));
        let files = image.view().files()?.len();
        drop(image);
        let (open, image) = timed(|| Image::open(&path));
        drop(image?);
        println!(
            "{:>5} MiB {files:>6}  {:>6.2} ms {:>6.2} ms {:>6.1} ms  {begin:>6.2} ms {run:>6.0} ms {finish:>6.2} ms {removed:>6.1} ms {:>4} of {:<3} {open:>5.1} ms",
            (pages * PAGE_SIZE as u64) >> 20,
            median(snapshots),
            median(forks),
            median(restores),
            folded.kept,
            folded.kept + folded.shards,
        );
        Image::remove(&path)?;
    }
    Ok(())
}
