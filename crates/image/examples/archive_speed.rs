//! What export, import and a deep check cost, beside a plain write of as many bytes: `archive_speed [DIR]`.
//!
//! The state is 256 MiB whose pages are half noise and half zeros, so that it compresses to about half.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use lazaret_image::{
    ArchiveLimits, ArchiveReader, CheckEvent, Depth, Durability, Image, PAGE_SIZE, PageId,
    PageSource, Region, Sizes, check, export,
};

const PAGES: u64 = 65_536;
const ROUNDS: usize = 5;

/// Pages whose first half is noise.
struct HalfNoise(u64);

impl PageSource for HalfNoise {
    fn read(&mut self, _: &[PageId], into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        for page in into.chunks_exact_mut(PAGE_SIZE) {
            for word in page.chunks_exact_mut(8).take(PAGE_SIZE / 16) {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                word.copy_from_slice(&self.0.to_le_bytes());
            }
        }
        Ok(())
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let directory = tempfile::tempdir_in(parent)?;
    let at = |name: &str| directory.path().join(name);
    let mut image = Image::create(&at("image"))?;
    let pages: Vec<PageId> = (0..PAGES)
        .filter_map(|page| PageId::new(Region::Heap, page))
        .collect();
    let sizes = Sizes {
        heap: PAGES * PAGE_SIZE as u64,
        stable: 0,
    };
    image.commit(&pages, &mut HalfNoise(1), sizes, b"", Durability::Durable)?;
    image.checkpoint()?;
    let view = image.view();
    let tenant = image.tenant();
    drop(image);
    let mut times = [const { Vec::new() }; 4];
    let mut length = 0;
    for round in 0..ROUNDS {
        let mut timed = |kind: usize, what: &mut dyn FnMut() -> Result<(), Box<dyn Error>>| {
            let begin = Instant::now();
            what()?;
            times[kind].push(begin.elapsed());
            Ok::<_, Box<dyn Error>>(())
        };
        timed(0, &mut || {
            let mut file = File::create(at("plain"))?;
            let chunk = vec![7; 1 << 20];
            for _ in 0..sizes.heap >> 20 {
                file.write_all(&chunk)?;
            }
            Ok(file.sync_all()?)
        })?;
        timed(1, &mut || {
            let mut file = File::create(at("archive"))?;
            length = export(&view, tenant, b"", &mut file, &mut |_| {})?.bytes;
            Ok(file.sync_all()?)
        })?;
        let made = at(&format!("made-{round}"));
        timed(2, &mut || {
            let file = BufReader::new(File::open(at("archive"))?);
            let reader = ArchiveReader::open(file, &ArchiveLimits::default())?;
            reader.into_image(Path::new(&made), &mut |_| {})?;
            Ok(())
        })?;
        timed(3, &mut || {
            check(&made, Depth::Pages, &mut |event| {
                assert!(matches!(event, CheckEvent::Verified { .. }), "{event:?}");
            })?;
            Ok(())
        })?;
        Image::remove(&made)?;
    }
    println!("256 MiB of state, {length} bytes of archive, medians of {ROUNDS}:");
    for (name, times) in ["plain write", "export", "import", "deep check"]
        .iter()
        .zip(times)
    {
        println!("{name:12} {:6.0} ms", median(times).as_secs_f64() * 1e3);
    }
    Ok(())
}
