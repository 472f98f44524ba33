//! What hashing a state costs after some of its pages were written, against blake3 over the same pages.
//!
//! `cargo run --release -p lazaret-image --example hash_speed [DIR]`; DIR should be on the disk in question. Each figure is
//! the median of many rounds, in which the two alternate.

use std::error::Error;
use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use lazaret_image::{
    Durability, Image, PAGE_SIZE, PageId, PageSource, Region, Sizes, StateHasher, Verify,
};

/// Pages that differ from each other and from round to round.
struct Numbers(u64);

impl PageSource for Numbers {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        for (page, into) in pages.iter().zip(into.chunks_exact_mut(PAGE_SIZE)) {
            into.fill(page.page() as u8 | 1);
            for (place, byte) in into
                .iter_mut()
                .zip((self.0 << 32 | page.page()).to_le_bytes())
            {
                *place = byte;
            }
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

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

const PAGES: u64 = 1 << 18;

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let path = directory.path().join("image");
    let mut image = Image::create(&path)?;
    let sizes = Sizes {
        heap: PAGES * PAGE_SIZE as u64,
        stable: 0,
    };
    let heap = |step: u64, offset: u64| -> Vec<PageId> {
        (0..PAGES)
            .step_by(step as usize)
            .filter_map(|page| PageId::new(Region::Heap, (page + offset) % PAGES))
            .collect()
    };
    image.commit(
        &heap(1, 0),
        &mut Numbers(0),
        sizes,
        b"",
        Durability::Relaxed,
    )?;
    let mut hasher = StateHasher::new();
    let (first, hashed) = timed(|| hasher.update(&image.reader(), Verify::No));
    println!(
        "1 GiB, first hash: {:.0} ms, {} pages",
        first / 1e3,
        hashed?.pages
    );
    let (save, saved) = timed(|| image.save_hashes(&hasher));
    let length = std::fs::metadata(path.join("tree"))?.len();
    let (load, _) = timed(|| image.state_hasher());
    println!(
        "saved: {}, {:.0} ms, {:.1} MiB; loaded and verified: {:.0} ms",
        saved?,
        save / 1e3,
        length as f64 / f64::from(1 << 20),
        load / 1e3,
    );
    // The floor for one page: nothing above it can be hashed before what is below.
    let mut path = [0; 128];
    let mut floors: Vec<f64> = (0..1001)
        .map(|_| {
            let chain = || {
                for _ in 0..9 {
                    let hash = blake3::keyed_hash(&[1; 32], &path);
                    path.as_chunks_mut().0[0] = *hash.as_bytes();
                }
                black_box(path)
            };
            timed(chain).0
        })
        .collect();
    println!(
        "the path of one page, 9 nodes one after the other: {:.2} us",
        median(&mut floors)
    );
    println!("us a page; scattered evenly. Reading is from the page cache.");
    println!(
        "{:>7}  {:>9}  {:>9} {:>9} {:>6}  {:>9} {:>9} {:>6}",
        "N", "commit", "hash", "blake3", "ratio", "verified", "blake3", "ratio"
    );
    println!(
        "{:>7}  {:>9}  {:>27}  {:>27}",
        "", "", "reading the pages, both", "with their checksums, both"
    );
    // One count alone, many times: for a profiler.
    let only: Option<u64> = match std::env::args().nth(2) {
        Some(count) => Some(PAGES / count.parse::<u64>()?.clamp(1, PAGES)),
        None => None,
    };
    let steps = [PAGES, PAGES / 10, PAGES / 100, PAGES / 1000, 26, 1];
    for step in only.map_or(steps.to_vec(), |step| vec![step]) {
        let rounds = match step {
            ..100 => 5,
            _ if only.is_some() => 2001,
            _ => 201,
        };
        let mut columns: [Vec<f64>; 5] = Default::default();
        let mut pages = 0;
        // The hasher that was loaded took over.
        hasher.update(&image.reader(), Verify::No)?;
        for round in 1..=rounds {
            let mut bytes = Vec::new();
            for (verify, first) in [(Verify::No, 1), (Verify::Yes, 3)] {
                let mut ids = heap(step, round * 37 + first);
                ids.sort_unstable();
                pages = ids.len();
                bytes.resize(pages * PAGE_SIZE, 0);
                let source = &mut Numbers(round * 2 + first);
                let (time, done) =
                    timed(|| image.commit(&ids, source, sizes, b"", Durability::Relaxed));
                done?;
                columns[0].push(time);
                let mut blake3 = || {
                    timed(|| {
                        let read = image.read_pages(&ids, &mut bytes, verify);
                        black_box(blake3::hash(&bytes));
                        read
                    })
                };
                // One to have both find the same caches.
                blake3().1?;
                let (time, hashed) = timed(|| hasher.update(&image.reader(), verify));
                assert_eq!(hashed?.pages, pages as u64);
                columns[first as usize].push(time);
                let (time, read) = blake3();
                read?;
                columns[first as usize + 1].push(time);
            }
            if step < 100 {
                image.fold()?;
            }
        }
        let [commit, hash, blake3, verified, verified_blake3] =
            columns.each_mut().map(|times| median(times) / pages as f64);
        println!(
            "{pages:>7}  {commit:>9.3}  {hash:>9.3} {blake3:>9.3} {:>6.2}  {verified:>9.3} {verified_blake3:>9.3} {:>6.2}",
            hash / blake3,
            verified / verified_blake3,
        );
    }
    Ok(())
}
