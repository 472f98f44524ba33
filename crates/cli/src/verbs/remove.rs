//! `lazaret remove`: a tenant and all its state.

use clap::Args;

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output;

/// Remove a tenant and all its state
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret remove counter")]
pub(crate) struct Remove {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    data: Data,
}

impl Remove {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        self.data.host()?.remove(&self.name)?;
        output::print(&format!("removed {}\n", self.name))?;
        Ok(0)
    }
}
