//! Who copies a worker's pages: the host, which reaches into the worker's
//! memory, or the worker, where that is not allowed.

use std::io;

use lazaret_wall::{Probe, probe};

/// Who copies pages between a tenant's worker and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PageCopy {
    /// The host, unless the kernel refuses it: tried with every worker.
    #[default]
    Auto,
    /// The host (`process_vm_readv`, `process_vm_writev`): a page once, straight
    /// from the worker's memory.
    Host,
    /// The worker, through memory that both share: a page twice, and a round
    /// trip for every 256. For where Yama (`kernel.yama.ptrace_scope` 3) or the
    /// seccomp filter of a container forbids the other.
    Worker,
}

/// Who does copy one worker's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copier {
    Host,
    Worker,
}

impl Copier {
    /// Its name for receipts and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Worker => "worker",
        }
    }
}

impl PageCopy {
    /// Who copies the pages of the worker `pid`.
    ///
    /// # Errors
    /// If it must be the host, and the kernel refuses it.
    pub(crate) fn copier(self, pid: i32) -> io::Result<Copier> {
        match self {
            Self::Worker => Ok(Copier::Worker),
            Self::Host => probe::reach(pid).map(|()| Copier::Host),
            Self::Auto => Ok(match probe::reach(pid) {
                Ok(()) => Copier::Host,
                Err(error) => {
                    tracing::debug!(pid, %error, "the worker copies its pages itself");
                    Copier::Worker
                }
            }),
        }
    }

    /// What it comes to on this machine, by a try with a process of its own:
    /// `host` or `worker`.
    pub fn here(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Host => "host",
            Self::Auto => match probe::reach_child() {
                Probe::Works(_) => "host",
                Probe::Missing(_) => "worker",
            },
        }
    }
}
