//! `lazaret call`: a method of a tenant.

use candid::Principal;
use clap::{Args, ValueEnum};
use lazaret::{CallOptions, Tenant};

use crate::encoded::{self, Bytes};
use crate::failure::Failure;
use crate::host_options::Tenants;
use crate::interface::{self, Sections, Target};
use crate::output;

/// Call a method of a tenant
///
/// A method that the module exports as a query is called as one: what it writes
/// is put back. Any other is called as an update: what it writes is on disk when
/// this returns.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret call counter add '(5)'
  lazaret call greeter describe '(vec { variant { circle = 1.5 } }, null)' --output candid

Exit codes: 1 the host failed; 2 bad usage, no such method, or an argument that does not fit;
3 the tenant rejected, trapped or did not reply.")]
pub(crate) struct Call {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// The method
    #[arg(value_name = "METHOD")]
    method: String,
    /// The argument as Candid text, such as '(42, "text")'; `()` if not given
    #[arg(value_name = "CANDID", conflicts_with_all = ["arg_hex", "arg_file"], allow_hyphen_values = true)]
    candid: Option<String>,
    #[command(flatten)]
    bytes: Bytes,
    /// Call it as a query, or fail
    #[arg(long)]
    query: bool,
    /// How to print the reply
    #[arg(long, value_name = "FORM", default_value = "candid")]
    output: Form,
    /// Who calls, as a principal in text; such a caller is no controller. Not
    /// given, it is the anonymous principal, as a controller
    #[arg(long, value_name = "PRINCIPAL", value_parser = principal)]
    caller: Option<Principal>,
    #[command(flatten)]
    tenants: Tenants,
}

/// How a reply is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// As Candid text, with the names that the module states
    Candid,
    /// As hex
    Hex,
    /// As it is
    Raw,
}

fn principal(text: &str) -> Result<Principal, String> {
    Principal::from_text(text).map_err(|error| format!("{error}; a principal looks like 2vxsx-fae"))
}

impl Call {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        self.tenants.data.must_exist()?;
        let host = self.tenants.host()?;
        let tenant = host.tenant(&self.name)?;
        let sections = Sections {
            service: tenant.icp_section("candid:service"),
            init: None,
        };
        let target = Target::Method(self.method.clone());
        let argument = self
            .bytes
            .or_candid(self.candid.as_deref(), &sections, &target)?;
        let options = match &self.caller {
            Some(caller) => CallOptions {
                caller: caller.as_slice().to_vec(),
                controller: false,
                ..CallOptions::default()
            },
            None => CallOptions::default(),
        };
        let result = match self.query || is_query(&tenant, &self.method) {
            true => tenant.query_with(&self.method, &argument, &options),
            false => tenant.update_with(&self.method, &argument, &options),
        };
        let reply = result.map_err(|error| Failure::Call {
            tenant: self.name.clone(),
            method: self.method.clone(),
            error,
        })?;
        tracing::info!(fuel_used = reply.fuel_used, committed = ?reply.committed, "replied");
        match self.output {
            Form::Candid => output::write(
                format!(
                    "{}\n",
                    interface::decode(&sections, &self.method, &reply.bytes)?
                )
                .as_bytes(),
            )?,
            Form::Hex => {
                output::write(format!("{}\n", encoded::encode_hex(&reply.bytes)).as_bytes())?
            }
            Form::Raw => output::write(&reply.bytes)?,
        }
        Ok(0)
    }
}

fn is_query(tenant: &Tenant, method: &str) -> bool {
    tenant
        .info()
        .methods
        .iter()
        .any(|known| known.strip_prefix("query ") == Some(method))
}
