//! `lazaret fork`: a new tenant of another's state.

use clap::Args;

use crate::failure::Failure;
use crate::host_options::{Budgets, Data};
use crate::output;

/// Make a new tenant of the state of another
///
/// They share every page until one of them writes it, so it takes milliseconds
/// and no room, whatever the state's size.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret fork counter counter-test
  lazaret fork counter counter-then --from monday")]
pub(crate) struct Fork {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// The new tenant
    #[arg(value_name = "NEW")]
    new: String,
    /// A snapshot of the tenant, rather than its newest version
    #[arg(long, value_name = "TAG")]
    from: Option<String>,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    budgets: Budgets,
}

impl Fork {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        lazaret::check_name(&self.new)?;
        let host = self.data.host_within(&self.budgets)?;
        let fork = host.fork(&self.name, &self.new, self.from.as_deref())?;
        output::print(&format!(
            "forked {} from {} at version {}\n",
            self.new,
            self.name,
            fork.info().version
        ))?;
        Ok(0)
    }
}
