//! `lazaret install`: a new tenant.

use std::path::PathBuf;

use clap::Args;

use crate::encoded::Bytes;
use crate::failure::Failure;
use crate::host_options::Tenants;
use crate::interface::Target;
use crate::module_file;
use crate::output;

/// A module for a tenant, and the argument of its initialiser.
#[derive(Debug, Args)]
pub(crate) struct ModuleOptions {
    /// The tenant's name: 1 to 64 of a-z, A-Z, 0-9, `-`, `_`, `.`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The canister: a .wasm or .wat file, or - for standard input
    #[arg(value_name = "MODULE")]
    pub module: PathBuf,
    /// The argument as Candid text, such as '(42, "text")'; `()` if not given
    #[arg(long, value_name = "CANDID", conflicts_with_all = ["arg_hex", "arg_file"], allow_hyphen_values = true)]
    pub arg: Option<String>,
    #[command(flatten)]
    pub bytes: Bytes,
    #[command(flatten)]
    pub tenants: Tenants,
}

impl ModuleOptions {
    /// The module's binary, and the argument. All that is wrong with them is
    /// found before a data directory is touched.
    pub(crate) fn read(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        lazaret::check_name(&self.name)?;
        let (wasm, sections) = module_file::read_tenant(&self.module)?;
        let argument = self
            .bytes
            .or_candid(self.arg.as_deref(), &sections, &Target::Init)?;
        Ok((wasm, argument))
    }
}

/// Install a tenant: a canister whose memory is kept
///
/// Its initialiser runs with the argument, checked against the types that the
/// module states. If anything fails there is no tenant.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret install greeter greeter.wasm --arg '(\"Hello\")'

Exit codes: 1 the host failed; 2 bad usage; 3 the initialiser trapped.")]
pub(crate) struct Install {
    #[command(flatten)]
    options: ModuleOptions,
}

impl Install {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        let (wasm, argument) = self.options.read()?;
        let tenant = self
            .options
            .tenants
            .host()?
            .install(&self.options.name, wasm, &argument)?;
        let info = tenant.info();
        output::print(&format!(
            "installed {} at version {}\n",
            info.name, info.version
        ))?;
        Ok(0)
    }
}
