//! `lazaret learn`: which system calls and files a program really uses.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use lazaret::{Learned, Report, UsedCall};

use super::run::Run;
use crate::failure::Failure;
use crate::output::{self, TITLE, harmless};

/// Run a program and tell which system calls and files it really uses
///
/// The program may do what `lazaret run` would let it do, and no more: its list
/// follows from its imports and grants, and what is learned changes nothing
/// about it. But each call stops the program until the host has looked at it, so
/// it runs more slowly, and the wall counts as one without a filter. What was
/// learned goes to standard error, below what the program prints there, or to a
/// file. All options are those of `lazaret run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "lazaret learn [OPTIONS] <MODULE> [ARGS]...",
    after_help = EXAMPLES,
    after_long_help = EXAMPLES
)]
pub(crate) struct Learn {
    /// Write what was learned to this file instead
    #[arg(long, value_name = "FILE", help_heading = "Learn")]
    output: Option<PathBuf>,
    /// As JSON
    #[arg(long, help_heading = "Learn")]
    json: bool,
    #[command(flatten)]
    run: Run,
}

const EXAMPLES: &str = "\
Examples:
  lazaret learn --dir ./data tool.wasm /data/list.csv
  lazaret learn --json --output learned.json untrusted.wasm < input

Exit codes: the program's own, or those of `lazaret run`.";

impl Learn {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        let mut file = match &self.output {
            None => None,
            Some(path) => Some(File::create(path).map_err(|source| Failure::WriteFile {
                path: path.clone(),
                source,
            })?),
        };
        let report = self.run.learned()?;
        if let Some(learned) = &report.learned {
            let text = match self.json {
                true => output::to_json("lazaret.learn/v1", learned)?,
                false => words(&report, learned).into_bytes(),
            };
            match (&mut file, self.output) {
                (Some(file), Some(path)) => {
                    // A file is no terminal.
                    let plain = anstream::adapter::strip_bytes(&text).into_vec();
                    file.write_all(&plain)
                        .map_err(|source| Failure::WriteFile { path, source })?;
                }
                _ => output::note(&String::from_utf8_lossy(&text)),
            }
        }
        Ok(super::run::exit_code(&report))
    }
}

fn words(report: &Report, learned: &Learned) -> String {
    let mut text = String::new();
    let mut put = |line: &str| {
        let _ = writeln!(text, "{line}");
    };
    let title = |text: &str| format!("{TITLE}{text}{TITLE:#}");
    if let Some(incident) = &report.incident {
        put(&format!(
            "{}: {}",
            title("stopped"),
            harmless(&incident.explanation, false)
        ));
    }
    put(&title("used"));
    for call in &learned.used {
        put(&format!(
            "  {:14} {:>8} x  {}",
            call.name,
            call.count,
            arguments(call)
        ));
    }
    if learned.used.is_empty() {
        put("  nothing beyond what every worker has");
    }
    put(&title(
        "on the list by its imports and grants, and not used",
    ));
    for call in &learned.unused {
        put(&format!("  {:14} {}", call.name, call.why));
    }
    if learned.unused.is_empty() {
        put("  nothing: the computed list is the smallest for this run");
    }
    for directory in &learned.directories {
        put(&title(&format!(
            "directory {}",
            harmless(&directory.guest, false)
        )));
        let granted = match directory.writable {
            true => "writable",
            false => "read only",
        };
        put(&format!(
            "  granted: {granted}; enough: {}",
            directory.enough()
        ));
        for (path, count) in &directory.paths {
            put(&format!("  {count:>8} x  {}", harmless(path, false)));
        }
    }
    put(&title("what every worker has"));
    put(&format!("  {}", learned.base.join(" ")));
    put("What was not used in this run may be needed in another: nothing was changed by this.");
    text
}

/// The arguments that tell something: none that had many values, as pointers and
/// lengths do, and none that was always 0.
fn arguments(call: &UsedCall) -> String {
    let told = call
        .arguments
        .iter()
        .enumerate()
        .filter_map(|(at, values)| {
            let values = values.as_ref()?;
            // Pointers are no news.
            if values.iter().all(|value| *value == 0)
                || values.iter().any(|value| is_address(*value))
            {
                return None;
            }
            let values: Vec<String> = values.iter().map(|value| format!("{value:#x}")).collect();
            Some(format!("arg{at} = {}", values.join(" or ")))
        });
    told.collect::<Vec<_>>().join(", ")
}

/// Whether a number looks like an address of user space.
fn is_address(value: u64) -> bool {
    (0x1_0000_0000..0x8000_0000_0000).contains(&value)
}
