//! `lazaret import`: a tenant from an archive.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use lazaret::Host;

use crate::failure::Failure;
use crate::host_options::{Budgets, Data};
use crate::output;
use crate::progress::{Bar, Unit};

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// Make a new tenant of an archive
///
/// It has the module and the state of the tenant that was exported, and an
/// identity of its own: nothing tells that the other one is gone. The archive is
/// verified to its end before there is a tenant.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret import counter-copy counter.lazaret
  ssh elsewhere lazaret export counter - | lazaret import counter -

Exit codes: 1 the host failed; 2 bad usage, or an archive that is damaged or too large.")]
pub(crate) struct Import {
    /// The new tenant
    #[arg(value_name = "NEW")]
    name: String,
    /// The archive, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    budgets: Budgets,
}

impl Import {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        // Before a data directory is made.
        let source: Box<dyn Read> = match self.file == Path::new("-") {
            true => Box::new(io::stdin().lock()),
            false => {
                let opened = File::open(&self.file);
                Box::new(opened.map_err(|source| Failure::ReadArchive {
                    path: self.file.clone(),
                    source,
                })?)
            }
        };
        let mut source = BufReader::with_capacity(BUFFER, source);
        let host = self
            .budgets
            .set(Host::builder().data_dir(&self.data.data))
            .build()?;
        let mut bar = None;
        let tenant = host.import(&self.name, &mut source, &mut |progress| {
            bar.get_or_insert_with(|| Bar::new("importing", progress.total, Unit::Pages))
                .set(progress.pages);
        })?;
        drop(bar);
        output::print(&format!(
            "imported {} at version {}\n",
            self.name,
            tenant.info().version
        ))?;
        Ok(0)
    }
}
