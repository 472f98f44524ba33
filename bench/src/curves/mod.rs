//! Curves: what an update costs for any number of pages, in any order, and what
//! a start costs for any size of the state. As data and as plots.

mod data;
mod plot;
mod start;
mod updates;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Options;
use crate::error::BenchError;
use crate::machine::Machine;
use updates::Point;

/// How long all updates together are measured, about.
const UPDATES: Duration = Duration::from_secs(140);
/// The same, to see that everything runs.
const QUICK: Duration = Duration::from_secs(2);

/// An update of fewer pages isn't held against the target.
const FROM_PAGES: u64 = 100;

/// What was measured and drawn.
#[derive(Debug)]
pub struct Curves {
    /// The files that were written, plots first.
    pub files: Vec<PathBuf>,
    /// Where it was measured.
    pub machine: Machine,
    points: Vec<Point>,
    took: Duration,
}

/// Measures the curves and writes them to `directory`, which is made: data as
/// CSV, plots as SVG. It takes about three minutes. `progress` is told what
/// comes next.
///
/// # Errors
/// As [`run`](crate::run), and if a file can't be written.
pub fn curves(
    options: &Options,
    directory: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Curves, BenchError> {
    let machine = Machine::look();
    fs::create_dir_all(directory).map_err(BenchError::system("making the directory for curves"))?;
    let begin = Instant::now();
    let time = if options.quick { QUICK } else { UPDATES };
    let points = updates::measure(options, time, progress)?;
    let sizes = start::measure(options, progress)?;
    let mut files = Vec::new();
    let mut path = |name: &str| {
        files.push(directory.join(name));
        directory.join(name)
    };
    plot::ratios(&path("update-ratio.svg"), &points)?;
    plot::times(&path("update-time.svg"), &points)?;
    plot::starts(&path("start.svg"), &sizes)?;
    data::updates(&path("updates.csv"), &machine, &points)?;
    data::starts(&path("start.csv"), &machine, &sizes)?;
    Ok(Curves {
        files,
        machine,
        points,
        took: begin.elapsed(),
    })
}

impl fmt::Display for Curves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let mut counted: Vec<&Point> = self.points.iter().collect();
        counted.retain(|point| point.pages >= FROM_PAGES);
        counted.sort_by(|a, b| b.ratio().total_cmp(&a.ratio()));
        let within = counted.iter().filter(|point| point.ratio() <= 1.0).count();
        writeln!(
            f,
            "updates that write {FROM_PAGES} pages and more, committed to the page cache: {within} of {} points at most 1.0 x of a fresh in-process instance that keeps nothing",
            counted.len()
        )?;
        for point in counted.iter().take(12) {
            writeln!(
                f,
                "  {:.2} x: {} pages, stride {} KiB, {}, heap of {} MiB: {:.1} us against {:.1} us (n = {})",
                point.ratio(),
                point.pages,
                point.stride >> 10,
                point.order.name(),
                point.heap >> 20,
                point.ours.p50,
                point.baseline.p50,
                point.n
            )?;
        }
        writeln!(f, "\n{:.0} s; written:", self.took.as_secs_f64())?;
        for file in &self.files {
            writeln!(f, "  {}", file.display())?;
        }
        Ok(())
    }
}
