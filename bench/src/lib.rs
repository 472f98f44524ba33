//! What Lazaret costs, each time against a baseline measured in the same run.
//!
//! [`run`] measures and gives a [`Table`]. A baseline is what one would do
//! without Lazaret: an instance in the same process, `fork` and `exec`, another
//! sandbox. Batches of ours and of the baseline alternate, so that whatever
//! drifts on the machine (frequency, neighbours, caches) drifts for both.
//!
//! [`scale`] measures what many tenants cost, and [`peers`] what others need for the
//! same as `lazaret run`.
//!
//! [`curves`] measures how the costs go with the number of pages that an update
//! writes and with the size of the state, and draws it.
//!
//! Nothing here is asserted: a table says what was measured and what was to
//! reach, and a reader judges.
//!
//! The process that calls [`run`] must have begun its `main` with
//! `lazaret::init()`: its own executable is what workers are started from.
#![deny(missing_docs)]

mod chart;
mod command;
mod csv;
mod curves;
mod error;
mod filter;
mod floor;
mod hogs;
mod in_process;
mod machine;
mod memory;
mod page_cache;
mod peers;
mod query;
mod sample;
mod scale;
mod snapshot;
mod start;
mod state;
mod table;
mod trackers;
mod update;
mod wall;

use std::path::PathBuf;

use lazaret::wall::{Layer, Profile};
use lazaret::{Builder, Host};

pub use curves::{Curves, curves};
pub use error::BenchError;
pub use machine::Machine;
pub use peers::peers;
pub use sample::Quantiles;
pub use scale::scale;
pub use table::{Baseline, Row, Table, Target};

/// What to measure, and how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// A hundredth of the calls: to see that everything runs, not to quote.
    pub quick: bool,
    /// Only the row whose [`Row::key`] is this, and those below it: `update`
    /// for all updates, `update/100` for those of 100 pages.
    pub filter: Option<String>,
    /// Where tenants are kept meanwhile (their file system is part of what is
    /// measured); the system's directory for temporary files if not set.
    pub directory: Option<PathBuf>,
    /// The `lazaret` command, for the rows that run it whole; this process's
    /// own executable if that is called `lazaret`, else those rows are left
    /// without its numbers.
    pub command: Option<PathBuf>,
    /// A large WASI program, for the rows about one; without it they have no numbers.
    pub module: Option<PathBuf>,
    /// Layers of the wall that may be missing on this host, for every host that
    /// is measured. The figures are then those of a weaker wall.
    pub accept_missing: Vec<Layer>,
    /// Which wall there is to be, for every host that is measured.
    pub profile: Profile,
}

impl Options {
    fn wants(&self, key: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| {
            key.strip_prefix(filter.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn wants_any(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.wants(key))
    }

    /// `full` repetitions, or so many that it takes no time.
    fn times(&self, full: usize) -> usize {
        if self.quick {
            (full / 100).max(3)
        } else {
            full
        }
    }

    /// How every host that is measured is built: without a pool, unless it is about
    /// that.
    fn host(&self) -> Builder {
        let builder = Host::builder().profile(self.profile).pool(|pool| {
            pool.blanks = 0;
            pool.idle = None;
        });
        self.accept_missing
            .iter()
            .fold(builder, |builder, layer| builder.accept_missing(*layer))
    }

    fn temporary(&self) -> Result<tempfile::TempDir, BenchError> {
        let made = match &self.directory {
            Some(directory) => tempfile::tempdir_in(directory),
            None => tempfile::tempdir(),
        };
        made.map_err(BenchError::system("making a directory for temporary files"))
    }
}

/// Measures. `progress` is told what comes next, in a few words.
///
/// # Errors
/// If a worker can't be started, a call fails, or a baseline can't be run that
/// is part of this program. A baseline that isn't installed is no error: its
/// row says so in its notes.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Table, BenchError> {
    let machine = Machine::look();
    let mut rows = Vec::new();
    query::rows(options, progress, &mut rows)?;
    floor::row(options, progress, &mut rows)?;
    update::rows(options, progress, &mut rows)?;
    trackers::rows(options, progress, &mut rows)?;
    state::rows(options, progress, &mut rows)?;
    start::rows(options, progress, &mut rows)?;
    wall::rows(options, progress, &mut rows)?;
    filter::rows(options, progress, &mut rows)?;
    hogs::rows(options, progress, &mut rows)?;
    snapshot::row(options, progress, &mut rows)?;
    memory::row(options, progress, &mut rows)?;
    Ok(Table { machine, rows })
}
