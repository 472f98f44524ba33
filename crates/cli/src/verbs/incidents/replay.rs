//! `lazaret incidents replay`: what a worker was sent before an incident, once
//! more, in a fresh worker.

use std::fmt::Write;

use clap::Args;
use lazaret::incident::{Incident, Store};

use super::text;
use crate::failure::Failure;
use crate::host_options::{Data, Wall};
use crate::output::{self, BAD, GOOD, harmless};

/// Run the calls before an incident again, in a fresh worker on the same state
///
/// Nothing of it lasts: what the calls write is thrown away, and what the fresh
/// worker does is shown, but not recorded. The tenant may be in quarantine. The
/// states of the last four serious incidents of a tenant are kept, as snapshots
/// incident-vN.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret incidents replay 20261122T0831
  lazaret incidents replay 20261122T0831 --json | jq .reproduced

Exit codes: 0 if the same happened again, 4 if it did not.")]
pub(super) struct Replay {
    /// The incident's name, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wall: Wall,
    #[command(flatten)]
    data: Data,
}

/// It did not happen again.
const NOT_REPRODUCED: u8 = 4;

impl Replay {
    pub(super) fn execute(self) -> Result<u8, Failure> {
        self.data.must_exist()?;
        let incident = Store::of(&self.data.data).find(&self.id)?;
        let host = self.wall.builder().data_dir(&self.data.data).build()?;
        let replay = host.replay(&incident).map_err(Box::new)?;
        match self.json {
            true => output::json("lazaret.replay/v1", &replay)?,
            false => output::print(&words(&incident, &replay))?,
        }
        Ok(match replay.reproduced {
            true => 0,
            false => NOT_REPRODUCED,
        })
    }
}

fn words(incident: &Incident, replay: &lazaret::Replay) -> String {
    let mut words = String::new();
    let mut put = |line: &str| {
        // Methods and messages are the tenant's.
        let _ = writeln!(words, "{}", harmless(line, false));
    };
    put(&format!(
        "on version {} of {}, before: {}",
        replay.version,
        replay.tenant,
        text::what(&incident.what)
    ));
    for call in &replay.calls {
        put(&format!(
            "  {}: {} {} ({} bytes): {}",
            call.number,
            call.entry.to_lowercase(),
            call.method,
            call.argument_bytes,
            call.outcome
        ));
    }
    for remark in &replay.remarks {
        put(&format!("  note: {remark}"));
    }
    if let Some(now) = &replay.happened {
        put(&format!("now: {}", text::what(&now.what)));
        put(&now.explanation);
    }
    let (style, verdict) = match (replay.reproduced, &replay.happened) {
        (true, _) => (BAD, "it happened again"),
        (false, Some(_)) => (BAD, "something else happened"),
        (false, None) => (GOOD, "it did not happen again"),
    };
    format!("{words}{style}{verdict}{style:#}\n")
}
