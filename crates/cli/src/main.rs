//! The `lazaret` command. Each verb is a file under [`verbs`].
#![deny(missing_docs)]

mod arguments;
mod columns;
mod encoded;
mod failure;
mod groups;
mod host_options;
mod interface;
mod logging;
mod module_file;
mod output;
mod progress;
mod values;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    #[cfg(target_arch = "x86_64")]
    lazaret_redteam::init();
    lazaret::init();
    let arguments = Arguments::parse();
    logging::start(&arguments.logging, arguments.expects_incidents());
    match verbs::execute(arguments.verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
