//! `lazaret bench`: what it costs here.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget};
use lazaret_bench::Options;

use crate::failure::Failure;
use crate::host_options::Wall;
use crate::output;

/// A set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// What calls, starts and state cost
    Costs,
    /// What many tenants cost: beside up to 5,000 idle workers, some minutes
    Scale,
    /// What others need for the same: wasmtime, bwrap, crun, runsc, node, if installed
    Peers,
}

/// Measure what Lazaret costs here, each time against a baseline in the same run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret bench --json > bench.json
  lazaret bench --curves figures
  lazaret bench --suite scale --curves figures
  lazaret bench --suite peers --module python.wasm")]
pub(crate) struct Bench {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A hundredth of the calls: to see that everything runs, not to quote
    #[arg(long)]
    quick: bool,
    /// What to measure
    #[arg(long, value_name = "SUITE", default_value = "costs")]
    suite: Suite,
    /// Only this row and those below it, such as update/100
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write curves to this directory as CSV and SVG. Of `costs`, instead of the table:
    /// updates by the pages they write, their order and the heap's size, and
    /// starts by the state's size (three minutes); of `scale`, beside it: starts and
    /// calls by the number of workers
    #[arg(long, value_name = "DIR")]
    curves: Option<PathBuf>,
    /// Where tenants are kept meanwhile: its file system is part of what is
    /// measured [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// A large WASI program, which the suite `peers` compiles and loads
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
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
            module: self.module,
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
        let only_curves = self
            .curves
            .as_deref()
            .filter(|_| self.suite == Suite::Costs);
        if (self.json || options.filter.is_some()) && only_curves.is_some() {
            return Err(Failure::Suite(
                "--curves of the suite `costs` can't be used with --json or --filter",
            ));
        }
        if self.suite != Suite::Peers && options.module.is_some() {
            return Err(Failure::Suite("--module is for the suite `peers`"));
        }
        if self.suite == Suite::Peers && self.curves.is_some() {
            return Err(Failure::Suite("the suite `peers` has no curves"));
        }
        if let Some(directory) = only_curves {
            let curves = lazaret_bench::curves(&options, directory, &mut progress)?;
            bar.finish_and_clear();
            output::print(&curves.to_string())?;
            return Ok(0);
        }
        let table = match self.suite {
            Suite::Costs => lazaret_bench::run(&options, &mut progress)?,
            Suite::Scale => lazaret_bench::scale(&options, self.curves.as_deref(), &mut progress)?,
            Suite::Peers => lazaret_bench::peers(&options, &mut progress)?,
        };
        bar.finish_and_clear();
        match self.json {
            true => output::json("lazaret.bench/v1", table)?,
            false => output::print(&format!("{table}\n"))?,
        }
        Ok(0)
    }
}
