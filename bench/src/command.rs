//! Whole commands as what is measured.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Options;
use crate::error::BenchError;

/// The same command, to be run again.
pub(crate) fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

/// Runs a command, which must print just this and succeed.
pub(crate) fn execute(command: &mut Command, printed: &[u8]) -> Result<(), BenchError> {
    checked(command, |stdout| stdout == printed)
}

/// Runs a command, which must succeed.
pub(crate) fn run(command: &mut Command) -> Result<(), BenchError> {
    checked(command, |_| true)
}

fn checked(command: &mut Command, is_right: impl Fn(&[u8]) -> bool) -> Result<(), BenchError> {
    let fail = |message: String, command: &Command| BenchError::Program {
        program: format!("{command:?}"),
        message,
    };
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| fail(error.to_string(), command))?;
    match output.status.success() && is_right(&output.stdout) {
        true => Ok(()),
        false => Err(fail(
            format!(
                "{}; {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            command,
        )),
    }
}

/// The `lazaret` command, or why there is none.
pub(crate) fn lazaret(options: &Options) -> Result<PathBuf, String> {
    match (&options.command, env::current_exe()) {
        (Some(command), _) => Ok(command.clone()),
        (None, Ok(own)) if own.file_stem().is_some_and(|stem| stem == "lazaret") => Ok(own),
        _ => Err(
            "lazaret run was not measured: this executable is not the lazaret command".to_owned(),
        ),
    }
}
