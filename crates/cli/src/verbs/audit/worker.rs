//! One kind of worker: what it may call, and what crosses to and from it.

use lazaret::wall::layers::descriptors;
use lazaret::wall::policy::{Allowed, ProgramRights, Uses};
use lazaret::wall::{Kind, policy};
use lazaret::wire::table::TABLE;
use serde::Serialize;

/// A kind of worker, under the names that tables use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    /// What it may call.
    pub kind: Kind,
    /// Its name in the table of crossings; empty for a phase of all kinds.
    crossings: &'static str,
}

impl Subject {
    /// Any worker before its lock: no guest code runs in it yet.
    pub(super) const LAUNCH: Self = Self {
        kind: Kind::Launch,
        crossings: "",
    };
    /// A tenant's.
    pub(super) const TENANT: Self = Self {
        kind: Kind::Tenant,
        crossings: "tenant",
    };
    const COMPILER: Self = Self {
        kind: Kind::Compiler,
        crossings: "compiler",
    };
    /// Every kind.
    pub(super) const ALL: [Self; 6] = [
        Self::LAUNCH,
        Self::TENANT,
        Self::COMPILER,
        Self::program(ProgramRights {
            directories: false,
            writable: false,
            uses: Uses::ALL,
        }),
        Self::program(ProgramRights {
            directories: true,
            writable: false,
            uses: Uses::ALL,
        }),
        Self::program(ProgramRights {
            directories: true,
            writable: true,
            uses: Uses::ALL,
        }),
    ];

    /// A program's, with what it was granted and imports.
    pub(super) const fn program(grants: ProgramRights) -> Self {
        Self {
            kind: Kind::Program(grants),
            crossings: "program",
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Launch => "launch",
            Kind::Tenant => "tenant",
            Kind::Compiler => "compiler",
            Kind::Program(ProgramRights {
                directories: false, ..
            }) => "program",
            Kind::Program(ProgramRights {
                writable: false, ..
            }) => "program --dir :ro",
            Kind::Program(_) => "program --dir",
        }
    }

    fn what(&self) -> &'static str {
        match self.kind {
            Kind::Launch => {
                "any worker, from its start until it is locked; no guest code runs in it yet"
            }
            Kind::Tenant => "a tenant's worker, while it runs",
            Kind::Compiler => "a compiler, while it runs",
            Kind::Program(ProgramRights {
                directories: false, ..
            }) => "a program without directories, while it runs",
            Kind::Program(ProgramRights {
                writable: false, ..
            }) => "a program with directories to read, while it runs",
            Kind::Program(_) => "a program with directories to write, while it runs",
        }
    }
}

/// What is told of one kind of worker.
#[derive(Debug, Serialize)]
pub(super) struct Worker {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The system calls that are allowed; any other kills it.
    pub system_calls: Vec<SystemCall>,
    /// What crosses between it and the host.
    pub crossings: Vec<Crossing>,
    /// Its descriptors once it is locked.
    pub descriptors: Vec<String>,
}

/// An allowed system call.
#[derive(Debug, Serialize)]
pub(super) struct SystemCall {
    /// Its name.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// Alternatives, in each of which all checks must hold; empty for any arguments.
    pub arguments: Vec<Vec<String>>,
    /// What for.
    pub why: &'static str,
}

/// One thing that crosses.
#[derive(Debug, Serialize)]
pub(super) struct Crossing {
    /// Its name.
    pub name: &'static str,
    /// What carries it.
    pub carrier: &'static str,
    /// Which way.
    pub direction: &'static str,
    /// The most of it; nothing where there is no bound.
    pub bound: Option<u64>,
    /// What the bound counts.
    pub unit: &'static str,
    /// What the receiver does when it is wrong.
    pub when_wrong: &'static str,
}

impl Worker {
    pub(super) fn new(subject: Subject) -> Self {
        let has = |workers: &str| {
            !subject.crossings.is_empty()
                && (workers == "all" || workers.split(' ').any(|kind| kind == subject.crossings))
        };
        Self {
            name: subject.name(),
            what: subject.what(),
            system_calls: policy(subject.kind)
                .allowed
                .iter()
                .map(system_call)
                .collect(),
            crossings: TABLE
                .iter()
                .filter(|crossing| has(crossing.workers))
                .map(|crossing| Crossing {
                    name: crossing.name,
                    carrier: super::carrier(crossing.carrier),
                    direction: super::direction(crossing.direction),
                    bound: Some(crossing.bound).filter(|&bound| bound < u64::MAX),
                    unit: crossing.unit,
                    when_wrong: crossing.when_wrong,
                })
                .collect(),
            descriptors: descriptors::listed(subject.kind)
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }
}

fn system_call(allowed: &Allowed) -> SystemCall {
    SystemCall {
        name: allowed.name,
        number: allowed.number,
        arguments: allowed
            .arguments
            .iter()
            .map(|checks| checks.iter().map(ToString::to_string).collect())
            .collect(),
        why: allowed.why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crossing_belongs_to_a_kind_that_is_told() {
        let told: Vec<&str> = Subject::ALL
            .iter()
            .map(|subject| subject.crossings)
            .filter(|name| !name.is_empty())
            .collect();
        for crossing in TABLE {
            for kind in crossing.workers.split(' ') {
                assert!(
                    kind == "all" || told.contains(&kind),
                    "{}: `{kind}` is no kind that audit prints",
                    crossing.name
                );
            }
        }
    }

    #[test]
    fn kinds_have_names_of_their_own_and_a_program_is_asked_for_no_more_than_its_grants() {
        let workers = Subject::ALL.map(Worker::new);
        for (index, worker) in workers.iter().enumerate() {
            assert!(
                workers[..index]
                    .iter()
                    .all(|other| other.name != worker.name),
                "{}",
                worker.name
            );
            assert!(!worker.system_calls.is_empty());
        }
        let may = |name: &str, call: &str| {
            workers.iter().any(|worker| {
                worker.name == name && worker.system_calls.iter().any(|known| known.name == call)
            })
        };
        assert!(
            may("program --dir", "unlinkat")
                && !may("program --dir :ro", "unlinkat")
                && !may("program", "openat")
        );
    }
}
