//! `lazaret snapshot`: versions of a tenant that are kept.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use lazaret::SnapshotInfo;
use serde::Serialize;

use crate::columns::columns;
use crate::failure::Failure;
use crate::host_options::{Budgets, Data, Wall};
use crate::output::{self, BAD};
use crate::values::size::human;

/// Keep versions of a tenant, and go back to them
///
/// A snapshot shares the tenant's files: it takes milliseconds and no room until
/// the tenant writes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret snapshot create counter --tag before-upgrade
  lazaret snapshot list counter
  lazaret snapshot restore counter before-upgrade")]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    List(List),
    Restore(Restore),
    Delete(Delete),
}

/// Keep the newest version of a tenant
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret snapshot create counter --tag monday")]
struct Create {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// What the snapshot is called; the time, if not given
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    budgets: Budgets,
}

/// List the snapshots of a tenant
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret snapshot list counter --json

Exit codes: 1 if any snapshot can't be read; the others are listed all the same.")]
struct List {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

/// Make a snapshot the newest version of its tenant
///
/// With it comes the module that the tenant had then. The snapshot stays; what
/// the tenant is now is gone, unless there is a snapshot of it too.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret snapshot create counter --tag now && lazaret snapshot restore counter monday")]
struct Restore {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// The snapshot
    #[arg(value_name = "TAG")]
    tag: String,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    budgets: Budgets,
    #[command(flatten)]
    wall: Wall,
}

/// Remove a snapshot
///
/// Space is given back for what neither the tenant nor anybody else shares.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret snapshot delete counter monday")]
struct Delete {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// The snapshot
    #[arg(value_name = "TAG")]
    tag: String,
    #[command(flatten)]
    data: Data,
}

/// One snapshot, or why nothing is known of it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row {
    Snapshot(SnapshotInfo),
    Damaged { tag: String, error: String },
}

#[derive(Debug, Serialize)]
struct Rows {
    snapshots: Vec<Row>,
}

impl Snapshot {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        match self.action {
            Action::Create(verb) => verb.execute(),
            Action::List(verb) => verb.execute(),
            Action::Restore(verb) => verb.execute(),
            Action::Delete(verb) => verb.execute(),
        }
    }
}

impl Create {
    fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        let now = || Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ").to_string();
        let tag = self.tag.unwrap_or_else(now);
        let made = self
            .data
            .host_within(&self.budgets)?
            .snapshot(&self.name, &tag)?;
        output::print(&format!(
            "{} of {}: version {}\n",
            made.tag, self.name, made.version
        ))?;
        Ok(0)
    }
}

impl List {
    fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        let rows = self.data.host()?.snapshots(&self.name)?;
        let snapshots: Vec<Row> = rows
            .into_iter()
            .map(|row| match row {
                Ok(info) => Row::Snapshot(info),
                Err(damaged) => Row::Damaged {
                    error: output::chain(&damaged.error),
                    tag: damaged.tag,
                },
            })
            .collect();
        let damaged = snapshots
            .iter()
            .filter(|row| matches!(row, Row::Damaged { .. }))
            .count();
        match self.json {
            true => output::json("lazaret.snapshots/v1", Rows { snapshots })?,
            false => output::print(&table(&snapshots))?,
        }
        match damaged {
            0 => Ok(0),
            count => Err(Failure::DamagedSnapshots(count)),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| match row {
            Row::Snapshot(info) => [
                info.tag.clone(),
                info.version.to_string(),
                Timestamp::from_nanosecond(info.time.into())
                    .unwrap_or(Timestamp::UNIX_EPOCH)
                    .strftime("%Y-%m-%dT%H:%M:%SZ")
                    .to_string(),
                human(info.heap_bytes),
                human(info.stable_bytes),
                info.module.chars().take(12).collect(),
            ],
            Row::Damaged { tag, .. } => {
                let unknown = || "-".to_owned();
                [
                    tag.clone(),
                    unknown(),
                    unknown(),
                    unknown(),
                    unknown(),
                    unknown(),
                ]
            }
        })
        .collect();
    let titles = ["TAG", "VERSION", "TIME", "HEAP", "STABLE", "MODULE"];
    let mut text = String::new();
    for (line, row) in columns(titles, &cells)
        .iter()
        .zip(std::iter::once(None).chain(rows.iter().map(Some)))
    {
        text.push_str(line);
        if let Some(Row::Damaged { error, .. }) = row {
            text.push_str(&format!("  {BAD}{}{BAD:#}", output::harmless(error, false)));
        }
        text.push('\n');
    }
    text
}

impl Restore {
    fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        self.data.must_exist()?;
        let builder = self.wall.builder().data_dir(&self.data.data);
        let host = self.budgets.set(builder).build()?;
        let info = host.restore(&self.name, &self.tag)?.info();
        output::print(&format!(
            "restored {} from {}: version {}\n",
            self.name, self.tag, info.version
        ))?;
        Ok(0)
    }
}

impl Delete {
    fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        self.data.host()?.delete_snapshot(&self.name, &self.tag)?;
        output::print(&format!("deleted {} of {}\n", self.tag, self.name))?;
        Ok(0)
    }
}
