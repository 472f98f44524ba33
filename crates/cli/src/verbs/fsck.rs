//! `lazaret fsck`: what is wrong with what is kept.

use std::path::Path;

use clap::Args;
use lazaret::{Depth, FsckEvent, FsckFinding, Severity};
use serde::Serialize;

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output::{self, BAD, GOOD};
use crate::progress::{Bar, Unit};

/// Check what is kept, and change nothing
///
/// Manifests, headers, how they hang together, modules and states, of tenants and
/// of their snapshots; with --deep every page too. Nothing is opened for writing,
/// so it works on a disk that is mounted read-only. No host may use the directory
/// meanwhile.
///
/// Each finding is a line: how bad it is, the file, the offset, the region and the
/// pages that are lost, and what to do. `damage` is lost; a `leftover` of a crash
/// is only in the way; a `note` is worth knowing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret fsck
  lazaret fsck --deep counter
  lazaret fsck --deep --json --data /mnt/backup/lazaret-data

Exit codes: 0 no damage; 1 damage, or it can't be checked; 2 bad usage, or no such tenant.")]
pub(crate) struct Fsck {
    /// The tenants to check, with their snapshots; all, if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Compare every page with its checksum: reads all there is
    #[arg(long)]
    deep: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Serialize)]
struct Findings {
    findings: Vec<FsckFinding>,
}

impl Fsck {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        for name in &self.names {
            lazaret::check_name(name)?;
        }
        self.data.must_exist()?;
        let depth = match self.deep {
            true => Depth::Pages,
            false => Depth::Headers,
        };
        let mut bar = Bar::hidden();
        let (mut findings, mut printed) = (Vec::new(), Ok(()));
        lazaret::fsck(
            &self.data.data,
            &self.names,
            depth,
            &mut |event| match event {
                FsckEvent::Begun { bytes } if self.deep => {
                    bar = Bar::new("checking", bytes, Unit::Bytes);
                }
                FsckEvent::Verified { bytes } => bar.advance(bytes),
                FsckEvent::Finding(finding) => {
                    if !self.json && printed.is_ok() {
                        printed = bar.aside(|| output::print(&line(&finding)));
                    }
                    findings.push(finding);
                }
                _ => {}
            },
        )?;
        drop(bar);
        printed?;
        let damage = findings
            .iter()
            .filter(|finding: &&FsckFinding| finding.severity == Severity::Damage)
            .count();
        match self.json {
            true => output::json("lazaret.fsck/v1", Findings { findings })?,
            false if findings.is_empty() => {
                output::print(&format!("{GOOD}nothing is wrong{GOOD:#}\n"))?;
            }
            false => {}
        }
        match damage {
            0 => Ok(0),
            count => Err(Failure::DamageFound(count)),
        }
    }
}

/// A finding in one line.
fn line(finding: &FsckFinding) -> String {
    let severity = match finding.severity {
        Severity::Damage => format!("{BAD}damage{BAD:#}"),
        other => other.to_string(),
    };
    let mut place = shown(&finding.path);
    if let Some(offset) = finding.offset {
        place.push_str(&format!(" at offset {offset}"));
    }
    if let (Some(region), Some(first), Some(last)) =
        (&finding.region, finding.first_page, finding.last_page)
    {
        place.push_str(&match first == last {
            true => format!(", {region} page {first}"),
            false => format!(", {region} pages {first} to {last}"),
        });
    }
    format!(
        "{severity}: {}: {}; {}\n",
        output::harmless(&place, false),
        output::harmless(&finding.problem, false),
        output::harmless(&finding.remedy, false)
    )
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
