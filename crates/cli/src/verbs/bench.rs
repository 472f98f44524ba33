//! `lazaret bench`: what it costs here.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use lazaret_bench::Options;

use crate::failure::Failure;
use crate::host_options::Wall;
use crate::output;

/// Measure what Lazaret costs here, each time against a baseline in the same run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret bench --json > bench.json
  lazaret bench --curves figures")]
pub(crate) struct Bench {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A hundredth of the calls: to see that everything runs, not to quote
    #[arg(long)]
    quick: bool,
    /// Only this row and those below it, such as update/100
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Measure curves instead, and write them to this directory as CSV and SVG:
    /// updates by the pages they write, their order and the heap's size, and
    /// starts by the state's size. Takes three minutes
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "filter"])]
    curves: Option<PathBuf>,
    /// Where tenants are kept meanwhile: its file system is part of what is
    /// measured [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    wall: Wall,
}

impl Bench {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        let options = Options {
            quick: self.quick,
            filter: self.filter,
            directory: self.directory,
            command: None,
            accept_missing: self.wall.accept_missing,
            profile: self.wall.profile,
        };
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let mut progress = |what: &str| {
            tracing::info!(what, "measuring");
            bar.set_message(what.to_owned());
            bar.tick();
        };
        if let Some(directory) = self.curves {
            let curves = lazaret_bench::curves(&options, &directory, &mut progress)?;
            bar.finish_and_clear();
            output::print(&curves.to_string())?;
            return Ok(0);
        }
        let table = lazaret_bench::run(&options, &mut progress)?;
        bar.finish_and_clear();
        match self.json {
            true => output::json("lazaret.bench/v1", table)?,
            false => output::print(&format!("{table}\n"))?,
        }
        Ok(0)
    }
}
