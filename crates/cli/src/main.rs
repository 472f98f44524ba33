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

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::arguments::Arguments;

/// Lets this process open as many files as it may: a worker takes three descriptors, and
/// the limit that shells set by default is for programs that use select(2), which this one
/// doesn't. Whatever is refused stays as it was.
fn open_more_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, most);
}

fn main() -> ExitCode {
    #[cfg(target_arch = "x86_64")]
    lazaret_redteam::init();
    lazaret::init();
    open_more_files();
    let arguments = Arguments::read();
    logging::start(&arguments.logging, arguments.expects_incidents());
    match verbs::execute(arguments.verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
