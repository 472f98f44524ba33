//! `lazaret checkpoint`: puts a tenant on disk.

use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output;

/// Put a tenant's newest version on disk
///
/// Calls with --durability relaxed are acknowledged when they are in the page
/// cache. After a checkpoint a power cut leaves this version or a later one. It
/// costs the pages that were written since the last, whatever the state's size.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret checkpoint counter
  lazaret checkpoint counter --json")]
pub(crate) struct Checkpoint {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Serialize)]
struct Printed {
    name: String,
    version: u64,
    /// How long updates were kept from beginning, in nanoseconds.
    pause: u64,
    /// How long it took, in nanoseconds.
    time: u64,
}

impl Checkpoint {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        let made = self.data.host()?.tenant(&self.name)?.checkpoint()?;
        // A checkpoint doesn't take 500 years.
        let nanoseconds = |time: std::time::Duration| time.as_nanos() as u64;
        match self.json {
            true => output::json(
                "lazaret.checkpoint/v1",
                Printed {
                    name: self.name,
                    version: made.version,
                    pause: nanoseconds(made.pause),
                    time: nanoseconds(made.time),
                },
            )?,
            false => output::print(&format!("version {} is on disk\n", made.version))?,
        }
        Ok(0)
    }
}
