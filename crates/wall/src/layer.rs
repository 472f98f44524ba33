//! The layers of the wall, by name.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One layer of the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layer {
    /// A user namespace of its own: no power over anything outside.
    UserNamespace,
    /// A PID namespace of its own: sees and signals nobody.
    PidNamespace,
    /// A mount namespace of its own.
    MountNamespace,
    /// The launcher's network namespace, which has no interface that is up.
    NetworkNamespace,
    /// An IPC namespace of its own: no shared System V objects or queues.
    IpcNamespace,
    /// A UTS namespace of its own: not the host's name.
    UtsNamespace,
    /// A root directory with nothing in it.
    EmptyRoot,
    /// Nothing executed can gain privileges.
    NoNewPrivs,
    /// No capability in any set.
    Capabilities,
    /// No environment variables.
    Environment,
    /// Only the listed descriptors.
    Descriptors,
    /// Limits on memory, files, processes and core dumps.
    Rlimits,
    /// Landlock: no file but what was granted.
    Landlock,
    /// Memory that is written can't become executable.
    Mdwe,
    /// Only the listed system calls, with checked arguments.
    Seccomp,
}

impl Layer {
    /// All layers, in the order in which they go on.
    pub const ALL: &'static [Self] = &[
        Self::UserNamespace,
        Self::PidNamespace,
        Self::MountNamespace,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::Rlimits,
        Self::Environment,
        Self::EmptyRoot,
        Self::NoNewPrivs,
        Self::Capabilities,
        Self::Descriptors,
        Self::Landlock,
        Self::Mdwe,
        Self::Seccomp,
    ];

    /// The name used on the command line and in receipts.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::NetworkNamespace => "network-namespace",
            Self::IpcNamespace => "ipc-namespace",
            Self::UtsNamespace => "uts-namespace",
            Self::EmptyRoot => "empty-root",
            Self::NoNewPrivs => "no-new-privs",
            Self::Capabilities => "capabilities",
            Self::Environment => "environment",
            Self::Descriptors => "descriptors",
            Self::Rlimits => "rlimits",
            Self::Landlock => "landlock",
            Self::Mdwe => "mdwe",
            Self::Seccomp => "seccomp",
        }
    }

    /// What the layer stops, in a sentence.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::UserNamespace => {
                "a worker has no rights over anything outside its own namespaces"
            }
            Self::PidNamespace => "a worker can't see or signal any other process",
            Self::MountNamespace => "a worker can't see the host's mounts",
            Self::NetworkNamespace => "a worker has no network interface to use",
            Self::IpcNamespace => "a worker shares no System V or POSIX queue with anybody",
            Self::UtsNamespace => "a worker doesn't learn the host's name",
            Self::EmptyRoot => "there is no path that a worker could open",
            Self::NoNewPrivs => "nothing that a worker executes could gain privileges",
            Self::Capabilities => "a worker holds no capability, not even in its own namespace",
            Self::Environment => "nothing of the host's environment reaches a worker",
            Self::Descriptors => "a worker holds only the descriptors that `lazaret audit` lists",
            Self::Rlimits => "a worker can't exhaust memory, files or processes, nor dump core",
            Self::Landlock => {
                "a worker opens nothing but what it was granted, whatever path or descriptor it uses"
            }
            Self::Mdwe => "memory that was written can't be made executable",
            Self::Seccomp => {
                "the kernel answers only the listed system calls; any other kills the worker"
            }
        }
    }

    /// How an error about its absence ends: how to run without it, where that
    /// is possible.
    pub fn without(self) -> String {
        match self {
            Self::UserNamespace
            | Self::PidNamespace
            | Self::MountNamespace
            | Self::NetworkNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace => {
                "; to run without any namespace, behind a wall of grade C: --profile container"
                    .to_owned()
            }
            _ => format!("; to run without it: --accept-missing {self}"),
        }
    }

    /// What to do on a host that lacks it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::UserNamespace
            | Self::PidNamespace
            | Self::MountNamespace
            | Self::NetworkNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace => {
                "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0; on Ubuntu an AppArmor profile for this binary or kernel.apparmor_restrict_unprivileged_userns=0; in a container a seccomp profile that allows clone3, unshare and mount)"
            }
            Self::EmptyRoot => {
                "allow mount and pivot_root inside user namespaces (a container's seccomp or AppArmor profile may refuse them)"
            }
            Self::NoNewPrivs
            | Self::Capabilities
            | Self::Environment
            | Self::Descriptors
            | Self::Rlimits => {
                "every supported kernel has it: look for an outer filter that refuses prctl, capset or prlimit64"
            }
            Self::Landlock => {
                "boot a kernel with CONFIG_SECURITY_LANDLOCK (Linux 5.13 or later) and landlock in the lsm= list"
            }
            Self::Mdwe => "run Linux 6.3 or later",
            Self::Seccomp => {
                "boot a kernel with CONFIG_SECCOMP_FILTER; look for an outer filter that refuses seccomp"
            }
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no layer's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` is not a layer; the layers are {known}", known = Layer::ALL.iter().map(|layer| layer.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownLayer {
    /// The name.
    pub name: String,
}

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(name: &str) -> Result<Self, UnknownLayer> {
        Self::ALL
            .iter()
            .copied()
            .find(|layer| layer.name() == name)
            .ok_or_else(|| UnknownLayer {
                name: name.to_owned(),
            })
    }
}

/// Why a layer can't be put on.
#[derive(Debug, Error)]
#[error("layer {layer}: {step}: {source}; {remedy}", remedy = layer.remedy())]
pub struct LayerError {
    /// The layer.
    pub layer: Layer,
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl LayerError {
    /// An error of `layer` at `step`, from the kernel's number.
    pub fn new(layer: Layer, step: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self {
            layer,
            step,
            source: errno.into(),
        }
    }

    /// The same from the last error of a C library call.
    pub fn last(layer: Layer, step: &'static str) -> Self {
        Self {
            layer,
            step,
            source: io::Error::last_os_error(),
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "detail")]
pub enum Probe {
    /// The layer works here; a detail such as an ABI version.
    Works(String),
    /// It doesn't, and why.
    Missing(String),
}

impl Probe {
    /// Whether the layer works.
    pub fn works(&self) -> bool {
        matches!(self, Self::Works(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_has_a_name_of_its_own_that_parses() {
        for layer in Layer::ALL {
            assert_eq!(layer.name().parse(), Ok(*layer));
            assert_eq!(serde_json::to_value(layer).unwrap(), layer.name());
        }
        assert!(
            "selinux"
                .parse::<Layer>()
                .unwrap_err()
                .to_string()
                .contains("landlock")
        );
    }
}
