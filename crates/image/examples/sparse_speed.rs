//! What opening, reading the plan, commits, snapshots and forks cost for large states with few pages: a page in every 256 KiB of
//! up to 16 GiB, as they came or folded into a base. None of it should follow the size of the address space, and no commit
//! the number of pages.
//!
//! `cargo run --release -p lazaret-image --example sparse_speed [DIR]`; DIR should be on the disk in question.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use lazaret_image::{Durability, Image, PAGE_SIZE, PageId, PageSource, Region, Sizes};

/// Pages filled with their number.
struct Numbers;

impl PageSource for Numbers {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        for (page, into) in pages.iter().zip(into.chunks_exact_mut(PAGE_SIZE)) {
            into.fill((page.page() >> 6) as u8 | 1);
        }
        Ok(())
    }
}

/// Microseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let done = work();
    (begin.elapsed().as_secs_f64() * 1e6, done)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

const ROUNDS: u64 = 101;

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    println!("microseconds, p50");
    println!(
        "{:>6} {:>7} {:>7}  {:>8} {:>8} {:>8} {:>9} {:>10}  {:>9} {:>9}",
        "heap", "pages", "", "open", "plan", "commit", "with view", "dropping", "snapshot", "fork"
    );
    for gibibytes in [1, 4, 16] {
        let heap: u64 = gibibytes << 18;
        let sizes = Sizes {
            heap: heap * PAGE_SIZE as u64,
            stable: 0,
        };
        let ids: Vec<PageId> = (0..heap)
            .step_by(64)
            .filter_map(|page| PageId::new(Region::Heap, page))
            .collect();
        for folded in [false, true] {
            let path = directory.path().join("image");
            let branch = directory.path().join("branch");
            let mut image = Image::create(&path)?;
            image.commit(&ids, &mut Numbers, sizes, b"", Durability::Relaxed)?;
            if folded {
                image.fold()?;
            }
            image.checkpoint()?;
            let (mut opens, mut plans, mut snapshots, mut forks) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..15 {
                drop(image);
                let (time, opened) = timed(|| Image::open(&path));
                image = opened?.0;
                opens.push(time);
                let (time, plan) = timed(|| image.plan());
                assert_eq!(plan.runs.len(), ids.len());
                plans.push(time);
                let (time, made) = timed(|| image.snapshot(&branch));
                made?;
                snapshots.push(time);
                Image::remove(&branch)?;
                let (time, made) = timed(|| image.fork(&branch).map(|_| Image::open(&branch)));
                drop(made??);
                forks.push(time);
                Image::remove(&branch)?;
            }
            let commit = |image: &mut Image, round: u64| {
                let page = PageId::new(Region::Heap, round * 7919 % heap);
                let pages: Vec<PageId> = page.into_iter().collect();
                timed(|| image.commit(&pages, &mut Numbers, sizes, b"", Durability::Relaxed))
            };
            let (mut commits, mut held, mut drops) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                let (time, done) = commit(&mut image, round * 2);
                done?;
                commits.push(time);
                let view = image.view();
                let (time, done) = commit(&mut image, round * 2 + 1);
                done?;
                held.push(time);
                drops.push(timed(|| drop(view)).0);
            }
            println!(
                "{gibibytes:>2} GiB {:>7} {:>7}  {:>8.0} {:>8.0} {:>8.2} {:>9.2} {:>10.2}  {:>9.0} {:>9.0}",
                ids.len(),
                if folded { "base" } else { "log" },
                median(opens),
                median(plans),
                median(commits),
                median(held),
                median(drops),
                median(snapshots),
                median(forks),
            );
            drop(image);
            Image::remove(&path)?;
        }
    }
    Ok(())
}
