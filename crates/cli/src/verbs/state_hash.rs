//! `lazaret state-hash`: what a tenant's state hashes to.

use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output;

/// Print the hash of a tenant's state
///
/// Equal states have equal hashes on every machine: the memory, and what else a
/// call leaves behind, with the module's hash. Only pages that changed since
/// the last time are read, as far as their hashes were kept.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret state-hash counter
  lazaret state-hash counter --json")]
pub(crate) struct StateHash {
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
    /// In hex.
    hash: String,
}

impl StateHash {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        let found = self.data.host()?.tenant(&self.name)?.state_hash()?;
        let hash: String = (found.hash.iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        match self.json {
            true => output::json(
                "lazaret.state-hash/v1",
                Printed {
                    name: self.name,
                    version: found.version,
                    hash,
                },
            )?,
            false => output::print(&format!("{hash}\n"))?,
        }
        Ok(0)
    }
}
