//! Options for hosts: which layers may be missing, where tenants are.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lazaret::incident::Hook;
use lazaret::wall::{Grade, Layer, Measure, Profile};
use lazaret::{Builder, Host, MeasureOptions, PageCopy, TrackerKind};

use crate::failure::Failure;
use crate::groups::Groups;
use crate::progress;
use crate::values::quarantine_after::QuarantineAfter;
use crate::values::size::Size;

/// Layers that may be missing.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wall {
    /// Run even if this layer of the wall is missing on this host; can be given
    /// several times. `lazaret doctor` tells which are, and how to get them
    #[arg(long = "accept-missing", value_name = "LAYER")]
    pub accept_missing: Vec<Layer>,
    /// Which wall there is to be: `full`, every layer, or `container`, for where
    /// no namespaces can be made, as in Docker and Kubernetes by default; the grade
    /// is C then. See docs/containers.md
    #[arg(long, value_name = "PROFILE", env = "LAZARET_PROFILE", default_value_t)]
    pub profile: Profile,
    /// Run nothing behind a wall of a lower grade, whatever may be missing: A
    /// is the best, D the worst; `lazaret doctor` tells this host's
    #[arg(long, value_name = "GRADE")]
    pub require_grade: Option<Grade>,
    /// Run nothing unless this measure against side channels holds; can be given
    /// several times. Without it, each is taken that this host has: `lazaret
    /// doctor` tells which
    #[arg(long, value_name = "MEASURE")]
    pub require_measure: Vec<Measure>,
    /// Leave out this measure against side channels; can be given several times
    #[arg(long, value_name = "MEASURE")]
    pub measure_off: Vec<Measure>,
    /// Run this shell command for every incident but reached limits: its JSON
    /// is on standard input, its name, severity and tenant in LAZARET_INCIDENT,
    /// LAZARET_SEVERITY and LAZARET_TENANT. It may take 10 s
    #[arg(long, value_name = "COMMAND", env = "LAZARET_ON_INCIDENT")]
    pub on_incident: Option<OsString>,
}

impl Wall {
    /// A builder that accepts them, and shows progress.
    pub(crate) fn builder(&self) -> Builder {
        let builder = self.accept_missing.iter().fold(
            Host::builder().on_compile(progress::observer()),
            |builder, layer| builder.accept_missing(*layer),
        );
        let builder = builder.profile(self.profile);
        let builder = builder.measures(MeasureOptions {
            off: self.measure_off.clone(),
            required: self.require_measure.clone(),
        });
        let builder = match self.require_grade {
            Some(grade) => builder.require_grade(grade),
            None => builder,
        };
        match &self.on_incident {
            Some(command) => builder.incident_hook(Hook::shell(command)),
            None => builder,
        }
    }
}

/// Where tenants are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Data {
    /// Where tenants are kept
    #[arg(
        long = "data",
        value_name = "DIR",
        env = "LAZARET_DATA",
        default_value = "./lazaret-data"
    )]
    pub data: PathBuf,
}

/// What tenants may take, each and together.
#[derive(Debug, Clone, Args)]
pub(crate) struct Budgets {
    /// What the states of all tenants in the data directory may have together:
    /// heap and stable memory, running or not. Who needs more is told so and
    /// changes nothing. No budget if not given
    #[arg(long, value_name = "SIZE", env = "LAZARET_MEMORY_BUDGET")]
    pub memory_budget: Option<Size>,
    /// What a tenant may take of the disk, with its snapshots; files that they
    /// share count once. No quota if not given
    #[arg(long, value_name = "SIZE", env = "LAZARET_DISK_QUOTA")]
    pub disk_quota: Option<Size>,
}

impl Budgets {
    /// The builder with them.
    pub(crate) fn set(&self, builder: Builder) -> Builder {
        let builder = match self.memory_budget {
            Some(Size(bytes)) => builder.memory_budget(bytes),
            None => builder,
        };
        let quota = self.disk_quota.map(|Size(bytes)| bytes);
        builder.tenant_limits(|limits| limits.disk = quota)
    }
}

impl Data {
    /// A host for them that runs nothing.
    pub(crate) fn host(&self) -> Result<Host, Failure> {
        self.must_exist()?;
        Ok(Host::builder().data_dir(&self.data).build()?)
    }

    /// The same, with budgets for what it makes.
    pub(crate) fn host_within(&self, budgets: &Budgets) -> Result<Host, Failure> {
        self.must_exist()?;
        let builder = budgets.set(Host::builder().data_dir(&self.data));
        Ok(builder.build()?)
    }

    /// An error if there is nothing yet: only `install` makes a data directory.
    pub(crate) fn must_exist(&self) -> Result<(), Failure> {
        match self.exists() {
            true => Ok(()),
            false => Err(Failure::NoData {
                path: self.data.clone(),
            }),
        }
    }

    /// Whether there is anything yet.
    pub(crate) fn exists(&self) -> bool {
        self.data.exists()
    }
}

/// When an update is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// When it is on disk
    Durable,
    /// When it is in the page cache: it survives the end of every process, but
    /// not of the machine
    Relaxed,
}

/// How the pages that a call writes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tracker {
    /// What serves best here: cards
    Auto,
    /// The module's code notes them: cheapest unless a call stores a thousand
    /// times and more to each page it writes
    Cards,
    /// The kernel notes them (Linux 6.7): the code is as it was, each page's
    /// first write in a call costs 2 to 3 µs
    Kernel,
    /// The worker's fault handler notes them: the code is as it was, each
    /// page's first write in a call costs a signal; for older kernels
    Signal,
}

impl Tracker {
    /// As the library says it.
    pub(crate) fn kind(self) -> TrackerKind {
        match self {
            Self::Auto => TrackerKind::Auto,
            Self::Cards => TrackerKind::Cards,
            Self::Kernel => TrackerKind::Kernel,
            Self::Signal => TrackerKind::Signal,
        }
    }
}

/// Who copies pages between a worker and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Copies {
    /// The host, unless the kernel refuses it
    Auto,
    /// The host, which reaches into the worker's memory
    Host,
    /// The worker, through memory that both share: for where the host may not
    /// (Yama, a container's seccomp filter)
    Worker,
}

/// Options of verbs that run tenants.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tenants {
    #[command(flatten)]
    pub data: Data,
    /// When a version counts as kept
    #[arg(long, value_name = "WHEN", default_value = "durable")]
    pub durability: Durability,
    /// How the pages that a call writes are found; results and fuel don't
    /// depend on it
    #[arg(long, value_name = "TRACKER", default_value = "auto")]
    pub tracker: Tracker,
    /// Who copies pages between a worker and the host
    #[arg(long, value_name = "WHO", default_value = "auto")]
    pub page_copy: Copies,
    #[command(flatten)]
    pub budgets: Budgets,
    #[command(flatten)]
    pub wall: Wall,
    /// Put a tenant in quarantine after so many incidents of severity high or
    /// worse, or of another: none of its code runs until `lazaret release`
    #[arg(long, value_name = "N[:SEVERITY]", env = "LAZARET_QUARANTINE_AFTER")]
    pub quarantine_after: Option<QuarantineAfter>,
    #[command(flatten)]
    pub groups: Groups,
}

impl Tenants {
    /// A host that runs them.
    pub(crate) fn host(&self) -> Result<Host, Failure> {
        let builder = self
            .wall
            .builder()
            .data_dir(&self.data.data)
            .tracker(self.tracker.kind())
            .page_copy(match self.page_copy {
                Copies::Auto => PageCopy::Auto,
                Copies::Host => PageCopy::Host,
                Copies::Worker => PageCopy::Worker,
            });
        let builder = self.groups.set(self.budgets.set(builder));
        let builder = match self.quarantine_after {
            Some(QuarantineAfter(policy)) => builder.quarantine(policy),
            None => builder,
        };
        Ok(match self.durability {
            Durability::Durable => builder,
            Durability::Relaxed => builder.relaxed_durability(),
        }
        .build()?)
    }
}
