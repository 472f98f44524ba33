//! What it costs to have many tenants: a crowd of idle workers grows, and at some
//! sizes of it everything is measured again, each against the smallest crowd of the
//! same run.

mod at_once;
mod calls;
mod crossings;
mod idle;
mod plot;
mod starts;
mod submitted;

use std::path::Path;

use lazaret::{Host, PoolOptions, Tenant};

use crate::Options;
use crate::error::BenchError;
use crate::machine::Machine;
use crate::table::Table;

const EMPTY: &str = include_str!("../../../tests/fixtures/wat/empty.wat");

/// How many idle workers there are when it is measured.
const SIZES: [usize; 4] = [1, 100, 1_000, 5_000];
/// The same, to see that everything runs.
const QUICK: [usize; 2] = [1, 8];

/// Idle workers of one host, a tenant each.
struct Crowd {
    host: Host,
    tenants: Vec<Tenant>,
    /// The host's with one of them, without those of images.
    descriptors: usize,
    _directory: tempfile::TempDir,
}

impl Crowd {
    fn new(options: &Options) -> Result<Self, BenchError> {
        Self::with(options, |_| ())
    }

    /// One whose host has this pool.
    fn with(options: &Options, change: impl FnOnce(&mut PoolOptions)) -> Result<Self, BenchError> {
        let directory = options.temporary()?;
        let host = options
            .host()
            .data_dir(directory.path())
            .relaxed_durability()
            .pool(|pool| pool.blanks = 8)
            .pool(change)
            .build()?;
        Ok(Self {
            host,
            tenants: Vec::new(),
            descriptors: 0,
            _directory: directory,
        })
    }

    /// Lets it grow to so many, each with a worker.
    fn grow(&mut self, to: usize, progress: &mut dyn FnMut(&str)) -> Result<(), BenchError> {
        while self.tenants.len() < to {
            let number = self.tenants.len();
            let tenant = self.host.install(&format!("tenant-{number}"), EMPTY, &[])?;
            tenant.query("empty", &[])?;
            self.tenants.push(tenant);
            if number == 0 {
                let images = self.host.pool().image_files;
                self.descriptors = idle::descriptors().saturating_sub(images);
            }
            if number.is_multiple_of(50) {
                progress(&format!(
                    "a crowd of {} of {to} workers, {} MiB available",
                    number + 1,
                    available() >> 20
                ));
            }
        }
        // Who was there for long may have been killed, or have left.
        for tenant in &self.tenants {
            if !tenant.has_worker() {
                tenant.query("empty", &[])?;
            }
        }
        Ok(())
    }
}

/// Bytes of memory that the kernel could give to somebody (proc_meminfo(5)).
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// Measures what many tenants cost, and draws it into files of the directory `figures`
/// if that is given. `progress` is told what comes next, in a few words.
///
/// # Errors
/// As [`run`](crate::run), and if a file can't be written.
pub fn scale(
    options: &Options,
    figures: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<Table, BenchError> {
    let machine = Machine::look();
    let mut rows = Vec::new();
    let sizes: &[usize] = match options.quick {
        true => &QUICK,
        false => &SIZES,
    };
    let mut crowd = Crowd::new(options)?;
    let before = available();
    let mut starts = starts::Starts::new(options)?;
    let mut calls = calls::Calls::default();
    let mut submitted = submitted::Submitted::default();
    let whole = options.wants_any(&[
        "scale/memory",
        "scale/descriptors",
        "scale/idle",
        "scale/at-once",
    ]);
    for &size in sizes {
        let kinds = |kinds: &[&str]| {
            kinds
                .iter()
                .any(|kind| options.wants(&format!("scale/{kind}/{size}")))
        };
        // A crowd that nobody asked for isn't waited for.
        if !whole && !kinds(&["start/pool", "start/cold", "query", "update", "submitted"]) {
            continue;
        }
        crowd.grow(size, progress)?;
        if kinds(&["start/pool", "start/cold"]) {
            progress(&format!("starts beside {size} idle workers"));
            starts.measure(options, size)?;
        }
        if kinds(&["query", "update"]) {
            progress(&format!("calls to {size} tenants in turns"));
            calls.measure(options, &crowd.tenants)?;
        }
        if kinds(&["submitted"]) {
            progress(&format!("calls that are submitted for {size} tenants"));
            submitted.measure(options, &crowd.host, &crowd.tenants)?;
        }
    }
    starts.rows(options, &mut rows);
    calls.rows(options, &mut rows);
    submitted.rows(options, &mut rows);
    idle::rows(options, &crowd, before, progress, &mut rows)?;
    at_once::rows(options, &crowd, progress, &mut rows)?;
    if let Some(directory) = figures {
        plot::write(directory, &machine, &starts, &calls)?;
    }
    Ok(Table { machine, rows })
}
