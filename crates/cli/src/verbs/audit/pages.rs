//! How the host follows the pages of tenants: who notes what was written, who
//! copies it, and what of that works here.

use lazaret::wall::{Probe, probe};
use lazaret::{PageCopy, TrackerKind};
use serde::Serialize;

/// One way.
#[derive(Debug, Serialize)]
pub(crate) struct Way {
    /// Its name, as an option's value.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// What was found when it was tried.
    pub here: String,
    /// Whether it is what `auto` stands for here.
    pub chosen: bool,
}

/// All ways.
#[derive(Debug, Serialize)]
pub(crate) struct Pages {
    /// Who notes which pages a call wrote (`--tracker`).
    pub trackers: Vec<Way>,
    /// Who copies pages between worker and host (`--page-copy`).
    pub page_copy: Vec<Way>,
}

impl Pages {
    /// What there is, each tried for real.
    pub(crate) fn here() -> Self {
        let anywhere = || Probe::Works("needs nothing of the kernel".into());
        let (tracker, copier) = (TrackerKind::Auto.name(), PageCopy::Auto.here());
        let way = |name, what, probe, chosen: &str| {
            let (works, here) = match probe {
                Probe::Works(here) => (true, here),
                Probe::Missing(here) => (false, here),
            };
            Way {
                name,
                what,
                works,
                here,
                chosen: chosen == name,
            }
        };
        Self {
            trackers: vec![
                way(
                    "cards",
                    "compiled code sets a byte for each page before it writes to it",
                    anywhere(),
                    tracker,
                ),
                way(
                    "kernel",
                    "the kernel notes a page's first write; the host asks it",
                    probe::kernel_tracker(),
                    tracker,
                ),
                way(
                    "signal",
                    "pages are read-only until the worker's fault handler opens and notes them, by mprotect without PROT_EXEC",
                    anywhere(),
                    tracker,
                ),
            ],
            page_copy: vec![
                way(
                    "host",
                    "the host reaches into the worker's memory",
                    probe::reach_child(),
                    copier,
                ),
                way(
                    "worker",
                    "the worker copies pages to and from shared memory when told to",
                    anywhere(),
                    copier,
                ),
            ],
        }
    }

    /// The names of what `auto` stands for here: tracker, and who copies.
    pub(crate) fn chosen(&self) -> (&'static str, &'static str) {
        let name = |ways: &[Way]| {
            let chosen = ways.iter().find(|way| way.chosen);
            chosen.map_or("none", |way| way.name)
        };
        (name(&self.trackers), name(&self.page_copy))
    }
}
