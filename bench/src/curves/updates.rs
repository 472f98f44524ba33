//! Updates that write N pages, in strides and orders, of small and large heaps.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::time::{Duration, Instant};

use lazaret::Tenant;

use crate::Options;
use crate::error::BenchError;
use crate::in_process::InProcess;
use crate::page_cache::PageCache;
use crate::sample::{MICROSECOND, Quantiles, Sample};
use crate::state::{MIB, host};

const MODULE: &str = include_str!("orders.wat");

const HEAPS: [u64; 3] = [16 * MIB, 256 * MIB, 4096 * MIB];
const STRIDES: [u64; 3] = [4 << 10, 8 << 10, 64 << 10];
const MOST_PAGES: u64 = 1 << 16;

/// Calls of one side before it is the other's turn write about so many pages.
const BATCH_PAGES: u64 = 4096;
const BATCH: std::ops::RangeInclusive<u64> = 1..=32;
/// All points are measured so many times over, so that a busy while of the
/// machine's isn't all that some of them have seen.
const PASSES: u32 = 3;
/// How often a point is measured in each pass, at least and at most.
const LEAST: usize = 1;
const MOST: usize = 150;

/// In which order the pages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Forward,
    Backward,
    Random,
}

impl Order {
    pub(super) const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Random];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Random => "random",
        }
    }
}

/// One point of the curves. Times are in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// The heap's size and the distance of one written page to the next, bytes.
    pub heap: u64,
    pub stride: u64,
    pub order: Order,
    pub pages: u64,
    /// How often it was measured.
    pub n: usize,
    /// An update, committed to the page cache.
    pub ours: Quantiles,
    /// The same with a checkpoint behind it.
    pub on_disk: Quantiles,
    /// The same access in a fresh in-process instance.
    pub baseline: Quantiles,
    /// The very first such update of the tenant's, most of whose pages aren't in
    /// the worker's memory yet.
    pub first: f64,
}

impl Point {
    pub(super) fn ratio(&self) -> f64 {
        self.ours.p50 / self.baseline.p50
    }
}

/// What is known of a point so far.
#[derive(Default)]
struct Measured {
    ours: Sample,
    on_disk: Sample,
    theirs: Sample,
    first: Sample,
}

impl Measured {
    fn point(&self, series: &Series, pages: u64) -> Option<Point> {
        Some(Point {
            heap: series.heap,
            stride: series.stride,
            order: series.order,
            pages,
            n: self.ours.len(),
            ours: self.ours.quantiles(MICROSECOND)?,
            on_disk: self.on_disk.quantiles(MICROSECOND)?,
            baseline: self.theirs.quantiles(MICROSECOND)?,
            first: self.first.median(MICROSECOND),
        })
    }
}

/// One tenant's points: the numbers of pages for which the heap is large enough.
struct Series {
    heap: u64,
    stride: u64,
    order: Order,
}

impl Series {
    fn all(options: &Options) -> Vec<Self> {
        let heaps = if options.quick { &HEAPS[..1] } else { &HEAPS };
        // The heaps in turn, so that a busy while is not all one plot's.
        let mut all = Vec::new();
        for stride in STRIDES {
            for order in Order::ALL {
                all.extend(heaps.iter().map(|&heap| Self {
                    heap,
                    stride,
                    order,
                }));
            }
        }
        all
    }

    fn pages(&self) -> impl Iterator<Item = u64> {
        let most = (self.heap / self.stride).min(MOST_PAGES);
        std::iter::successors(Some(1), |pages| Some(pages * 4)).take_while(move |n| *n <= most)
    }

    fn argument(&self, pages: u64) -> Vec<u8> {
        [pages, self.stride, self.order as u64]
            .map(u64::to_le_bytes)
            .concat()
    }
}

fn module(heap: u64) -> String {
    MODULE.replace("{pages}", &(heap >> 16).to_string())
}

/// Measures all points in about that time.
pub(super) fn measure(
    options: &Options,
    time: Duration,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Point>, BenchError> {
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    let all = Series::all(options);
    let passes = if options.quick { 1 } else { PASSES };
    let end = Instant::now() + time;
    let count: u32 = all.iter().map(|series| series.pages().count() as u32).sum();
    let mut left = count * passes;
    let mut fresh = HashMap::new();
    let mut measured: HashMap<(usize, u64), Measured> = HashMap::new();
    for pass in 1..=passes {
        for (index, series) in all.iter().enumerate() {
            let text = module(series.heap);
            let fresh: &InProcess = match fresh.entry(series.heap) {
                Entry::Occupied(made) => made.into_mut(),
                Entry::Vacant(none) => none.insert(InProcess::new(&text, "canister_update write")?),
            };
            let tenant = host.install("curve", text, &[])?;
            // The worker's start is not part of the first update.
            tenant.query("read", &[])?;
            for pages in series.pages() {
                progress(&format!(
                    "{pass} of {passes}: updates of {} MiB, {pages} pages, stride {} KiB, {}",
                    series.heap / MIB,
                    series.stride >> 10,
                    series.order.name()
                ));
                // What is left for each; the large ones take more than that, the
                // small ones have enough with less.
                let share = end.saturating_duration_since(Instant::now()) / left.max(1);
                left -= 1;
                let sides = Sides {
                    tenant: &tenant,
                    fresh,
                    argument: series.argument(pages),
                    pages,
                };
                let known = measured.entry((index, pages)).or_default();
                measure_point(&sides, directory.path(), share, known)?;
            }
            drop(tenant);
            // What is removed isn't put on disk.
            host.remove("curve")?;
        }
    }
    let points = all.iter().enumerate().flat_map(|(index, series)| {
        let measured = &measured;
        let point = move |pages| measured.get(&(index, pages))?.point(series, pages);
        series.pages().filter_map(point)
    });
    Ok(points.collect())
}

/// The two that are measured against each other.
struct Sides<'a> {
    tenant: &'a Tenant,
    fresh: &'a InProcess,
    argument: Vec<u8>,
    pages: u64,
}

impl Sides<'_> {
    fn check(&self, who: &'static str, found: Vec<u8>) -> Result<(), BenchError> {
        let expected = self.pages.to_le_bytes();
        match found == expected {
            true => Ok(()),
            false => Err(BenchError::Answer {
                who,
                found,
                expected: expected.to_vec(),
            }),
        }
    }

    fn ours(&self, sample: &mut Sample) -> Result<(), BenchError> {
        let reply = sample.time(|| self.tenant.update("write", &self.argument))?;
        self.check("the tenant", reply.bytes)
    }

    fn ours_on_disk(&self, sample: &mut Sample) -> Result<(), BenchError> {
        let reply = sample.time(|| -> Result<_, BenchError> {
            let reply = self.tenant.update("write", &self.argument)?;
            self.tenant.checkpoint()?;
            Ok(reply)
        })?;
        self.check("the tenant", reply.bytes)
    }

    fn theirs(&self, sample: &mut Sample) -> Result<(), BenchError> {
        let reply = sample.time(|| self.fresh.call(&self.argument))?;
        self.check("the in-process instance", reply)
    }
}

/// Measures a point for about that time.
fn measure_point(
    sides: &Sides<'_>,
    directory: &Path,
    time: Duration,
    known: &mut Measured,
) -> Result<(), BenchError> {
    let batch = (BATCH_PAGES / sides.pages).clamp(*BATCH.start(), *BATCH.end()) as usize;
    let mut uncounted = Sample::default();
    let begin = Instant::now();
    sides.ours(&mut known.first)?;
    // So many updates as fit; the first is slower than most will be.
    let each = begin.elapsed().max(Duration::from_micros(1));
    let fit = time.as_secs_f64() / (3.0 * each.as_secs_f64());
    let rounds = (fit.clamp(LEAST as f64, MOST as f64) as usize).div_ceil(batch);
    let mut page_cache = PageCache::hold(directory, sides.pages, rounds * (batch + 2) + LEAST)?;
    let begin = Instant::now();
    for round in 0..rounds {
        if round > 0 && begin.elapsed() > time.mul_f64(0.7) {
            break;
        }
        page_cache.free(batch + 1)?;
        // The first of many short calls finds the worker asleep and other
        // caches; beside long ones that is nothing.
        if batch > 1 {
            sides.ours(&mut uncounted)?;
        }
        for _ in 0..batch {
            sides.ours(&mut known.ours)?;
        }
        // Theirs gives its memory back and gets it again; this is for whatever
        // somebody else has taken of it meanwhile.
        page_cache.free(1)?;
        if batch > 1 {
            sides.theirs(&mut uncounted)?;
        }
        for _ in 0..batch {
            sides.theirs(&mut known.theirs)?;
        }
    }
    // What was written until now isn't part of the next.
    sides.tenant.checkpoint()?;
    let begin = Instant::now();
    for count in 0..MOST {
        if count >= LEAST && begin.elapsed() > time.mul_f64(0.2) {
            break;
        }
        page_cache.free(1)?;
        sides.ours_on_disk(&mut known.on_disk)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_series_fills_its_heap_and_no_more() {
        for series in Series::all(&Options::default()) {
            let most = series.pages().last().unwrap();
            assert!(most * series.stride <= series.heap);
            assert!(most == MOST_PAGES || most * 4 * series.stride > series.heap);
        }
        let all = Series::all(&Options::default());
        assert_eq!(all.len(), 27);
        assert_eq!(
            all.iter().map(|one| one.pages().count()).sum::<usize>(),
            207
        );
    }

    /// The module's own permutation, in Rust.
    fn scatter(i: u32, count: u32) -> u32 {
        let mask = count - 1;
        let i = i.wrapping_mul(0x9e37_79b1) & mask;
        let i = i ^ (i >> (count.trailing_zeros() + 1).div_euclid(2));
        i.wrapping_mul(0x85eb_ca6b) & mask
    }

    #[test]
    fn scattered_means_every_page_once() {
        for count in [1, 4, 16, 1 << 10, 1 << 16] {
            let seen: BTreeSet<u32> = (0..count).map(|i| scatter(i, count)).collect();
            assert_eq!(seen.len(), count as usize);
            assert!(seen.iter().all(|index| *index < count));
        }
        // No two of the first hundred are neighbours.
        let order: Vec<u32> = (0..100).map(|i| scatter(i, 1 << 16)).collect();
        assert!(order.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1));
    }

    #[test]
    fn the_baseline_answers_in_every_order() {
        let fresh = InProcess::new(&module(16 * MIB), "canister_update write").unwrap();
        for series in Series::all(&Options {
            quick: true,
            ..Options::default()
        }) {
            let pages = series.pages().last().unwrap();
            let reply = fresh.call(&series.argument(pages)).unwrap();
            assert_eq!(reply, pages.to_le_bytes());
        }
    }
}
