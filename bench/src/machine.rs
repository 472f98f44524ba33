//! The machine that a table was measured on.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// Facts about the machine. A fact that can't be had is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Whether it is a virtual machine, as far as the processor says.
    pub virtual_machine: bool,
    /// The kernel's release.
    pub kernel: String,
    /// Load averages over 1, 5 and 15 minutes, before anything was measured.
    pub load: [f64; 3],
    /// Version of Lazaret.
    pub lazaret: String,
}

impl Machine {
    /// Looks.
    pub fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        let mut load = [0.0; 3];
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        for (slot, word) in load.iter_mut().zip(text.split_whitespace()) {
            *slot = word.parse().unwrap_or(0.0);
        }
        Self {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            load,
            lazaret: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu,
            cores,
            kernel,
            load: [one, five, fifteen],
            lazaret,
            ..
        } = self;
        let kind = if self.virtual_machine {
            "virtual machine"
        } else {
            "no hypervisor seen"
        };
        write!(
            f,
            "lazaret {lazaret}; {cpu}, {cores} cores, {kind}; Linux {kernel}; load {one} {five} {fifteen}"
        )
    }
}
