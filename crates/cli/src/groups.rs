//! Options for control groups.

use clap::{Args, ValueEnum};
use lazaret::{Builder, CgroupMode};

use crate::values::cores::Cores;
use crate::values::size::Size;

/// Whether workers have control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// As far as this process may make them; what is missing is said
    Auto,
    /// Never: the limits underneath only
    Off,
    /// Nothing runs unless memory, processors and tasks can be limited
    Require,
}

/// Limits that the kernel keeps for all of a worker.
#[derive(Debug, Clone, Args)]
pub(crate) struct Groups {
    /// Put each worker into a control group of its own; `lazaret doctor` tells
    /// what that needs
    #[arg(
        long,
        help_heading = "Control groups",
        value_name = "WHEN",
        default_value = "auto"
    )]
    cgroup: Mode,
    /// What a worker may have resident, with what the kernel keeps for it; at most
    /// what follows from the limits of its memories, which is the default
    #[arg(long, help_heading = "Control groups", value_name = "SIZE")]
    worker_memory: Option<Size>,
    /// A worker's share of the processors, 1 to 10000; an ordinary process has 100
    #[arg(long, help_heading = "Control groups", value_name = "N")]
    cpu_weight: Option<u32>,
    /// A worker's ceiling in processors, such as 0.5
    #[arg(long, help_heading = "Control groups", value_name = "CORES")]
    cpu_limit: Option<Cores>,
    /// A worker's share of the disks, 1 to 10000, where their scheduler has shares
    #[arg(long, help_heading = "Control groups", value_name = "N")]
    io_weight: Option<u32>,
}

impl Groups {
    /// The builder with them.
    pub(crate) fn set(&self, builder: Builder) -> Builder {
        builder.cgroups(|options| {
            options.mode = match self.cgroup {
                Mode::Auto => CgroupMode::Auto,
                Mode::Off => CgroupMode::Off,
                Mode::Require => CgroupMode::Require,
            };
            // `lazaret doctor` and the receipt say what is missing, not every command.
            options.quiet = true;
            options.memory = self.worker_memory.map(|Size(bytes)| bytes);
            options.cpu_weight = self.cpu_weight;
            options.cpu_limit = self.cpu_limit.map(|Cores(thousandths)| thousandths);
            options.io_weight = self.io_weight;
        })
    }
}
