//! `lazaret logs`: what a tenant printed.

use std::io::{self, IsTerminal};

use clap::Args;
use jiff::Timestamp;
use lazaret::LogLine;

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output;

/// Print what a tenant printed, kept whatever became of the call
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret logs counter | grep -i error")]
pub(crate) struct Logs {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    data: Data,
}

impl Logs {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        let terminal = io::stdout().is_terminal();
        let lines = self.data.host()?.tenant(&self.name)?.logs()?;
        let text: String = lines.iter().map(|line| shown(line, terminal)).collect();
        output::write(text.as_bytes())?;
        Ok(0)
    }
}

/// A line with its time. On a terminal, control sequences are made harmless;
/// a newline always is, so that what a tenant prints is never taken for two lines.
fn shown(line: &LogLine, terminal: bool) -> String {
    let time = Timestamp::from_nanosecond(line.time.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
    match terminal {
        true => format!("{time} {}\n", output::harmless(&line.text, false)),
        false => format!("{time} {}\n", line.text.replace('\n', "\u{240a}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_and_stays_one_line() {
        let line = |text: &str| LogLine {
            time: 1_795_304_880_123_456_789,
            version: 1,
            text: text.into(),
        };
        assert_eq!(
            shown(&line("a\x1b[2J\nb"), true),
            "2026-11-21T23:48:00.123Z a␛[2J␊b\n"
        );
        assert_eq!(
            shown(&line("a\x1b[2J\nb"), false),
            "2026-11-21T23:48:00.123Z a\x1b[2J␊b\n"
        );
        assert!(
            shown(
                &LogLine {
                    time: u64::MAX,
                    version: 0,
                    text: String::new()
                },
                true
            )
            .starts_with("2554-07-21T")
        );
    }
}
