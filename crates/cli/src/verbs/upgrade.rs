//! `lazaret upgrade`: another module for a tenant.

use clap::Args;

use super::install::ModuleOptions;
use crate::failure::Failure;
use crate::output;

/// Replace a tenant's module and keep its state
///
/// If anything fails, the tenant is as it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret upgrade counter counter-v2.wasm

Exit codes: 1 the host failed; 2 bad usage; 3 the old or the new module trapped.")]
pub(crate) struct Upgrade {
    #[command(flatten)]
    options: ModuleOptions,
}

impl Upgrade {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        self.options.tenants.data.must_exist()?;
        let (wasm, argument) = self.options.read()?;
        let tenant = self
            .options
            .tenants
            .host()?
            .upgrade(&self.options.name, wasm, &argument)?;
        let info = tenant.info();
        output::print(&format!(
            "upgraded {} to version {}\n",
            info.name, info.version
        ))?;
        Ok(0)
    }
}
