//! `lazaret incidents`: what workers did that no worker should.

mod replay;
mod text;

use std::collections::HashSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use lazaret::incident::{Entry, Incident, Severity, Store};
use serde::Serialize;

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output;

/// List what workers did that no worker should, or show one of it with the
/// evidence
///
/// A forbidden system call, nonsense on the wire, a crash, an exit that nobody
/// asked for, a limit that was reached: each is on record in the data
/// directory, with what could be seen of the worker. The record can be read
/// while a host uses the directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret incidents
  lazaret incidents shop --severity high
  lazaret incidents --id 20261122T0831
  lazaret incidents replay 20261122T0831
  lazaret incidents --follow --json | while read -r incident; do …")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Incidents {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only those of this tenant
    #[arg(value_name = "NAME", conflicts_with = "id")]
    tenant: Option<String>,
    /// Only those at least this bad: low, medium, high or critical
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<Severity>,
    /// Show this one with its evidence: its name, or the beginning of it
    #[arg(long, value_name = "ID", conflicts_with_all = ["severity", "follow"])]
    id: Option<String>,
    /// Go on with those to come, until interrupted
    #[arg(long)]
    follow: bool,
    /// Print JSON; with --follow, one incident in each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Subcommand)]
enum Action {
    Replay(replay::Replay),
}

/// How often --follow looks for more.
const PERIOD: Duration = Duration::from_millis(200);

/// What is told of one that can't be read.
#[derive(Debug, Serialize)]
struct Damaged {
    id: String,
    error: String,
}

impl Incidents {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        if let Some(Action::Replay(replay)) = self.action {
            return replay.execute();
        }
        if let Some(name) = &self.tenant {
            lazaret::check_name(name)?;
        }
        self.data.must_exist()?;
        let store = Store::of(&self.data.data);
        if let Some(id) = &self.id {
            let incident = store.find(id)?;
            match self.json {
                true => output::json("lazaret.incident/v1", &incident)?,
                false => output::print(&text::whole(&incident))?,
            }
            return Ok(0);
        }
        if self.follow {
            return self.follow(&store);
        }
        let (incidents, damaged) = self.read(&store, &store.list()?);
        match self.json {
            true => {
                #[derive(Serialize)]
                struct List<'a> {
                    incidents: &'a [Incident],
                    damaged: &'a [Damaged],
                }
                output::json(
                    "lazaret.incidents/v1",
                    List {
                        incidents: &incidents,
                        damaged: &damaged,
                    },
                )?;
            }
            false => output::print(&text::list(&incidents))?,
        }
        self.tell(&damaged);
        match damaged.len() {
            0 => Ok(0),
            count => Err(Failure::DamagedIncidents(count)),
        }
    }

    /// Prints those that are there, and those to come. The one that reads goes
    /// away by a signal, or by closing the pipe.
    fn follow(&self, store: &Store) -> Result<u8, Failure> {
        let mut known: HashSet<String> = HashSet::new();
        loop {
            let mut new = store.list()?;
            let now: HashSet<String> = new.iter().map(|entry| entry.id.clone()).collect();
            new.retain(|entry| !known.contains(&entry.id));
            known = now;
            let (incidents, damaged) = self.read(store, &new);
            for incident in &incidents {
                let line = match self.json {
                    true => serde_json::to_string(incident)
                        .map_err(|error| Failure::Output(error.into()))?,
                    false => text::line(incident),
                };
                if !output::line(&line)? {
                    return Ok(0);
                }
            }
            self.tell(&damaged);
            std::thread::sleep(PERIOD);
        }
    }

    /// Those of a list that are asked for, and those of them that are damaged.
    /// One that has gone meanwhile is neither.
    fn read(&self, store: &Store, list: &[Entry]) -> (Vec<Incident>, Vec<Damaged>) {
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for entry in list.iter().filter(|entry| self.wants(entry)) {
            match store.read(entry) {
                Ok(incident) => whole.push(incident),
                Err(lazaret::incident::StoreError::NotFound { .. }) => {}
                Err(error) => damaged.push(Damaged {
                    id: entry.id.clone(),
                    error: error.to_string(),
                }),
            }
        }
        (whole, damaged)
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.severity.is_none_or(|least| entry.severity >= least)
            && (self.tenant.is_none() || self.tenant == entry.tenant)
    }

    fn tell(&self, damaged: &[Damaged]) {
        for one in damaged {
            output::note(&format!("{}\n", output::harmless(&one.error, false)));
        }
    }
}
