//! `lazaret quarantine` and `lazaret release`: whose code may run.

use clap::Args;

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output;

/// Put a tenant in quarantine: none of its code runs until it is released
///
/// Its state is kept, and can be exported, snapshotted and hashed meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret quarantine shop --reason \"calls ptrace, see incident 20261122T0831\"")]
pub(crate) struct Quarantine {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// Why; it is told to whoever calls the tenant
    #[arg(long, value_name = "TEXT", default_value = "an operator put it there")]
    reason: String,
    #[command(flatten)]
    data: Data,
}

impl Quarantine {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        self.data.host()?.quarantine(&self.name, &self.reason)?;
        output::print(&format!("{} is in quarantine\n", self.name))?;
        Ok(0)
    }
}

/// Let a tenant out of quarantine; its incidents so far don't count again
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret release shop")]
pub(crate) struct Release {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    data: Data,
}

impl Release {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        let text = match self.data.host()?.release(&self.name)? {
            true => format!("{} may run again\n", self.name),
            false => format!("{} was not in quarantine\n", self.name),
        };
        output::print(&text)?;
        Ok(0)
    }
}
