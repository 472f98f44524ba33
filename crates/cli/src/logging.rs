//! What the host says while it works: on standard error, never among results.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

/// How much to log, and how.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// What to log on standard error, and everything more severe
    #[arg(
        long = "log",
        value_name = "LEVEL",
        default_value = "warn",
        global = true,
        help_heading = "Logging"
    )]
    level: Level,
    /// How to write log lines
    #[arg(
        long = "log-format",
        value_name = "FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Logging"
    )]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Starts logging. Lines that can't be written are dropped: a closed standard
/// error must not end a program.
///
/// Where incidents are what is asked for, nothing is logged but by a level that is
/// more than the ordinary one.
pub(crate) fn start(logging: &Logging, expects_incidents: bool) {
    let level = match logging.level {
        Level::Error | Level::Warn if expects_incidents => LevelFilter::OFF,
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .log_internal_errors(false);
    // An error means that somebody has set one already, and nobody has.
    let _ = match logging.format {
        Format::Text => tracing::subscriber::set_global_default(lines.with_target(false).finish()),
        Format::Json => tracing::subscriber::set_global_default(lines.json().finish()),
    };
}
