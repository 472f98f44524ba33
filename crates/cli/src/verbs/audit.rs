//! `lazaret audit`: what crosses the wall.

mod live;
pub(crate) mod pages;
mod text;
mod worker;

use std::path::{Path, PathBuf};

use clap::Args;
use lazaret::wall::cgroup::{Availability, Cgroups, Controller};
use lazaret::wall::layers::landlock;
use lazaret::wall::policy::{ProgramRights, UNFILTERED, Unfiltered, Uses};
use lazaret::wall::{Kind, Layer, Measure, Probe, probe};
use lazaret::wire::message::Purpose;
use lazaret::wire::table::{Carrier, Direction};
use lazaret::{CgroupOptions, Declaration, Host};
use serde::Serialize;

use self::pages::Pages;
use self::worker::{Subject, Worker};
use crate::failure::Failure;
use crate::host_options::Data;
use crate::module_file;
use crate::output;
use crate::values::directory::Directory;

/// Print what crosses the wall: system calls with their argument checks,
/// messages, shared memory, descriptors, namespaces
///
/// Without a module, for every kind of worker, as if its module imported all
/// that there is; with one, for the worker that would run it. What is printed is what holds: the filters are compiled from
/// the same lists, and the host decodes by the same table.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret audit --json
  lazaret audit --dir ./data:ro tool.wasm
  lazaret audit --live

Exit codes: 1 with --live if a worker is not as it was verified, or can not be looked at.")]
pub(crate) struct Audit {
    /// A program or a canister: a .wasm or .wat file, or - for standard input
    #[arg(value_name = "MODULE")]
    module: Option<PathBuf>,
    /// A directory that it would be granted, as for `lazaret run`
    #[arg(long = "dir", value_name = "HOST[::GUEST][:ro]", requires = "module")]
    directories: Vec<Directory>,
    /// Look at the workers that run now, and compare each with its receipt: those
    /// of every host that uses the data directory, from a second after their start
    #[arg(long, conflicts_with_all = ["module", "directories"])]
    live: bool,
    #[command(flatten)]
    data: Data,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
struct Account {
    module: Option<Module>,
    workers: Vec<Worker>,
    /// How the host follows the pages of tenants.
    pages: Pages,
    /// What control groups would limit here.
    cgroups: Vec<GroupEntry>,
    /// System calls that the kernel answers before it asks any filter.
    unfiltered: &'static [Unfiltered],
    layers: Vec<LayerEntry>,
    /// Measures against side channels.
    measures: Vec<MeasureEntry>,
    /// Functions of an embedder's that guests may import: this command has none
    /// of its own.
    host_functions: Vec<Declaration>,
    namespaces: Vec<&'static str>,
}

/// What a module asks for.
#[derive(Debug, Serialize)]
struct Module {
    path: String,
    imports: Vec<String>,
    /// What these can need system calls for, if it is a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<Uses>,
    memory_minimum_bytes: u64,
}

/// A controller of control groups.
#[derive(Debug, Serialize)]
struct GroupEntry {
    name: &'static str,
    purpose: &'static str,
    /// What the group of a worker says by default; a limit of memory follows from
    /// those of the worker's memories.
    default: &'static str,
    /// Whether it works here.
    works: bool,
    /// Where groups are made, or why they can't be.
    here: String,
}

/// Every controller, as it is tried by a host that runs workers.
fn groups() -> Vec<GroupEntry> {
    let opened = Cgroups::open(CgroupOptions::default());
    let entry = |controller: Controller| {
        let (works, here) = match &opened {
            Err(error) => (false, error.to_string()),
            Ok(cgroups) => {
                let mut found = cgroups.probe().iter();
                match found.find(|probed| probed.controller == controller) {
                    None => (false, "not looked for".to_owned()),
                    Some(probed) => match &probed.availability {
                        Availability::Works { detail } => (true, detail.clone()),
                        Availability::Missing { why, .. } => (false, why.clone()),
                    },
                }
            }
        };
        GroupEntry {
            name: controller.name(),
            purpose: controller.purpose(),
            default: match controller {
                Controller::Memory => "RLIMIT_DATA, page tables for it and 64 MiB; no swap",
                Controller::Cpu => "weight 100, no ceiling",
                Controller::Pids => "1 task",
                Controller::Io => "weight 100",
            },
            works,
            here,
        }
    };
    Controller::ALL.map(entry).into()
}

#[derive(Debug, Serialize)]
struct MeasureEntry {
    name: &'static str,
    purpose: &'static str,
    /// Whether this host has it.
    works: bool,
    /// In words.
    here: String,
}

impl MeasureEntry {
    fn new(measure: &Measure) -> Self {
        let (works, here) = match measure.probe() {
            Probe::Works(detail) => (true, detail),
            Probe::Missing(why) => (false, why),
        };
        Self {
            name: measure.name(),
            purpose: measure.purpose(),
            works,
            here,
        }
    }
}

#[derive(Debug, Serialize)]
struct LayerEntry {
    name: &'static str,
    purpose: &'static str,
    /// How far it goes on this host, where that depends on the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<String>,
}

impl Audit {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        if self.live {
            return live::execute(&self.data, self.json);
        }
        let (module, subjects) = match &self.module {
            Some(path) => {
                let (module, subject) = self.look_at(path)?;
                (Some(module), vec![Subject::LAUNCH, subject])
            }
            None => (None, Subject::ALL.to_vec()),
        };
        let account = Account {
            module,
            workers: subjects.into_iter().map(Worker::new).collect(),
            pages: Pages::here(),
            cgroups: groups(),
            unfiltered: UNFILTERED,
            layers: Layer::ALL
                .iter()
                .map(|layer| LayerEntry {
                    name: layer.name(),
                    purpose: layer.purpose(),
                    here: (*layer == Layer::Landlock).then(landlock::coverage_here),
                })
                .collect(),
            measures: Measure::ALL.iter().map(MeasureEntry::new).collect(),
            host_functions: Host::builder()
                .offered()
                .iter()
                .map(|offered| offered.declaration.clone())
                .collect(),
            namespaces: probe::namespace_names().collect(),
        };
        match self.json {
            true => output::json("lazaret.audit/v1", account)?,
            false => output::print(&text::text(&account))?,
        }
        Ok(0)
    }

    /// What a module is: a program if it has a main function, else a canister.
    fn look_at(&self, path: &Path) -> Result<(Module, Subject), Failure> {
        let fail = |source| Failure::Module {
            path: path.to_owned(),
            source,
        };
        let wasm = lazaret::binary(module_file::read(path)?).map_err(fail)?;
        let (info, subject) = match lazaret::inspect(&wasm, Purpose::Tenant, &[]) {
            Ok(info) => (info, Subject::TENANT),
            Err(_) => {
                let info = lazaret::inspect(&wasm, Purpose::Program, &[]).map_err(fail)?;
                let grants = ProgramRights {
                    directories: !self.directories.is_empty(),
                    writable: self.directories.iter().any(|directory| directory.writable),
                    uses: info.uses(),
                };
                (info, Subject::program(grants))
            }
        };
        let module = Module {
            path: module_file::shown(path),
            imports: info
                .imports
                .iter()
                .map(|(module, name)| format!("{module}.{name}"))
                .collect(),
            uses: match subject.kind {
                Kind::Program(rights) => Some(rights.uses),
                _ => None,
            },
            memory_minimum_bytes: info.memory_minimum,
        };
        Ok((module, subject))
    }
}

fn carrier(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::SharedMemory => "shared memory",
        Carrier::Message => "message",
        Carrier::SetupSocket => "descriptor",
        Carrier::Pipe => "pipe",
        Carrier::WorkerMemory => "copied memory",
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::ToWorker => "to the worker",
        Direction::ToHost => "to the host",
        Direction::Both => "both ways",
    }
}
