//! What a commit costs a page: 1, 100 and 10,000 pages scattered over a 256 MiB heap, to the page cache and to disk.
//!
//! `cargo run --release -p lazaret-image --example commit_speed [DIR]`; DIR should be on the disk in question.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use lazaret_image::{
    CHUNK_PAGES, Durability, Image, PAGE_SIZE, PageId, PageSource, Region, Sizes, page_checksum,
};

const HEAP_PAGES: u64 = 65_536;

/// A heap in this process, all of it touched.
struct Heap(Vec<u8>);

impl PageSource for Heap {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        for (page, into) in pages.iter().zip(into.chunks_exact_mut(PAGE_SIZE)) {
            let start = page.page() as usize * PAGE_SIZE;
            into.copy_from_slice(&self.0[start..start + PAGE_SIZE]);
        }
        Ok(())
    }
}

/// `count` pages, each in a stretch of its own.
fn scattered(count: u64, round: u64) -> Vec<PageId> {
    let stretch = HEAP_PAGES / count;
    let page =
        |index: u64| index * stretch + (index.wrapping_mul(0x9e37_79b9) + round * 7919) % stretch;
    (0..count)
        .filter_map(|index| PageId::new(Region::Heap, page(index)))
        .collect()
}

/// The same pages in every commit, and a plain write of as much to another file, one after the other.
fn hot(directory: &Path, heap: &mut Heap, sizes: Sizes) -> Result<(), Box<dyn Error>> {
    println!(
        "{:>7} {:>10}  {:>12} {:>12} {:>12}  {:>14} {:>12} {:>12}",
        "pages", "", "commit p50", "us/page", "mean", "plain p50", "us/page", "mean"
    );
    for (count, rounds) in [(1, 20_000), (10, 10_000), (100, 2_000)] {
        let path = directory.join("image");
        let mut image = Image::create(&path)?;
        let plain = File::create(directory.join("plain"))?;
        let ids = scattered(count, 0);
        let mut buffer = vec![0; (count as usize + 1) * PAGE_SIZE];
        let (mut commits, mut writes) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let begin = Instant::now();
            image.commit(&ids, heap, sizes, b"meta", Durability::Relaxed)?;
            commits.push(begin.elapsed().as_secs_f64() * 1e6);
            let begin = Instant::now();
            for ids in ids.chunks(CHUNK_PAGES) {
                heap.read(ids, &mut buffer[PAGE_SIZE..])?;
            }
            plain.write_all_at(&buffer, round * buffer.len() as u64)?;
            writes.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        let mean = |times: &Vec<f64>| times.iter().sum::<f64>() / times.len() as f64 / count as f64;
        let (commit_mean, write_mean) = (mean(&commits), mean(&writes));
        let p50 = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            percentile(times, 0.5)
        };
        let (commit, write) = (p50(&mut commits), p50(&mut writes));
        println!(
            "{count:>7} {:>10}  {commit:>9.2} us {:>12.2} {commit_mean:>12.2}  {write:>11.2} us {:>12.2} {write_mean:>12.2}",
            "hot",
            commit / count as f64,
            write / count as f64,
        );
        drop(image);
        Image::remove(&path)?;
    }
    Ok(())
}

/// Processor time of this thread in microseconds: what is left when others use the machine too.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let sizes = Sizes {
        heap: HEAP_PAGES * PAGE_SIZE as u64,
        stable: 0,
    };
    let mut heap = Heap(
        (0..HEAP_PAGES as usize * PAGE_SIZE / 8)
            .flat_map(|word| (word as u64 | 1).to_le_bytes())
            .collect(),
    );

    // Baselines: what reading and summing cost alone.
    let ids = scattered(10_000, 0);
    let mut chunk = vec![0; CHUNK_PAGES * PAGE_SIZE];
    let (mut read, mut sum) = (0.0, 0.0);
    let mut check = 0;
    for ids in ids.chunks(CHUNK_PAGES) {
        let begin = Instant::now();
        heap.read(ids, &mut chunk)?;
        read += begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        check ^= chunk
            .chunks_exact(PAGE_SIZE)
            .take(ids.len())
            .fold(0, |check, page| check ^ page_checksum(page));
        sum += begin.elapsed().as_secs_f64();
    }
    println!(
        "of which, a page: reading {:.2} us, checksum {:.2} us (all: {check:016x})",
        read * 100.0,
        sum * 100.0
    );

    hot(directory.path(), &mut heap, sizes)?;
    println!(
        "{:>7} {:>10}  {:>12} {:>12}  {:>12} {:>12} {:>12}",
        "pages", "", "write p50", "write p99", "sync p50", "us/page p50", "cpu us/page"
    );
    for durability in [Durability::Relaxed, Durability::Durable] {
        for (count, rounds) in [(1, 400), (100, 200), (10_000, 20)] {
            let path = directory.path().join("image");
            let mut image = Image::create(&path)?;
            let (mut writes, mut syncs, mut processor) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..rounds {
                let ids = scattered(count, round);
                let begin = processor_time();
                let done = image.commit(&ids, &mut heap, sizes, b"meta", durability)?;
                processor.push(processor_time() - begin);
                writes.push(done.write_time.as_secs_f64() * 1e6);
                syncs.push(done.sync_time.as_secs_f64() * 1e6);
            }
            writes.sort_by(f64::total_cmp);
            syncs.sort_by(f64::total_cmp);
            processor.sort_by(f64::total_cmp);
            let (p50, sync) = (percentile(&writes, 0.5), percentile(&syncs, 0.5));
            println!(
                "{count:>7} {:>10}  {p50:>9.1} us {:>9.1} us  {sync:>9.1} us {:>12.2} {:>12.2}",
                format!("{durability:?}"),
                percentile(&writes, 0.99),
                p50 / count as f64,
                percentile(&processor, 0.5) / count as f64,
            );
            if durability == Durability::Relaxed {
                drop(image);
                let begin = Instant::now();
                let (mut image, recovery) = Image::open(&path)?;
                let opened = begin.elapsed().as_secs_f64() * 1e3;
                let begin = Instant::now();
                let runs = image.plan().runs.len();
                let planned = begin.elapsed().as_secs_f64() * 1e3;
                let begin = Instant::now();
                let folded = image.fold()?;
                let fold = begin.elapsed().as_secs_f64() * 1e3;
                println!(
                    "        opened {} commits ({} verified) in {opened:.1} ms, planned {runs} runs in {planned:.2} ms, folded {} pages in {fold:.0} ms",
                    recovery.segments, recovery.verified, folded.pages
                );
                drop(image);
            } else {
                image.checkpoint()?;
                drop(image);
            }
            Image::remove(&path)?;
        }
    }
    Ok(())
}
