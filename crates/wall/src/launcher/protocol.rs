//! What host and launcher say to each other.
//!
//! Both are trusted, so this is not the wire of the workers; it is decoded
//! with the same care anyway.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lazaret_wire::codec::{DecodeError, EncodeError, Message, Reader, Writer};

use super::root::Libraries;
use crate::layer::Layer;

/// The first message to the launcher. Descriptors: the executable of workers, and
/// that of compilers, if it starts any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configure {
    /// Directories to hand out, as absolute paths.
    pub directories: Vec<Directory>,
    /// Layers that may be missing.
    pub accept_missing: Vec<String>,
    /// Layers that are left out on purpose, as [`Off::names`] has them.
    ///
    /// [`Off::names`]: crate::Off::names
    pub off: Vec<String>,
    /// Whether workers are the red team's.
    pub red_team: bool,
    /// What its executables need besides what itself does: the host's, where
    /// compilers are made of that and the launcher is another. None where nothing is
    /// needed at all: then its root is empty.
    pub libraries: Option<Libraries>,
}

/// A directory that workers will be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// Device and inode that the host saw there.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Whether it may be written.
    pub writable: bool,
}

/// Where the standard descriptors and the set-up socket of a worker go.
pub const SETUP_FD: i32 = 3;

/// An order to start a worker. Descriptors: the worker's set-up socket; the
/// directory of its control group of version 2, if it has one; the `tasks` files
/// of those of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawn {
    /// The host's number for it.
    pub id: u64,
    /// Its user and group id, inside the launcher's user namespace; on the host
    /// where it has none.
    pub user: u32,
    /// Bytes of private memory it may have (RLIMIT_DATA).
    pub data_limit: u64,
    /// Bytes of address space it may have (RLIMIT_AS).
    pub address_space: u64,
    /// Descriptors it may have open (RLIMIT_NOFILE).
    pub descriptor_limit: u64,
    /// Bytes a file that it writes may have (RLIMIT_FSIZE).
    pub file_limit: u64,
    /// Seconds of processor time (RLIMIT_CPU), if limited.
    pub cpu_seconds: Option<u64>,
    /// Bytes of native stack (RLIMIT_STACK).
    pub stack: u64,
    /// Whether it is made of the compilers' executable.
    pub compiler: bool,
    /// Whether it is cloned into a control group.
    pub into: bool,
}

/// What the launcher says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Ready for orders. Descriptors: one for each directory.
    Configured {
        /// Layers of the launcher that could not be put on.
        missing: Vec<String>,
    },
    /// It can't go on.
    Failed {
        /// The layer that failed, if it was one.
        layer: Option<String>,
        /// Why.
        message: String,
        /// What the kernel said, if it was the kernel (errno(3)); 0 if not.
        errno: i32,
    },
    /// A worker was started. Descriptors: its pidfd.
    Spawned {
        /// The host's number for it.
        id: u64,
        /// Whether it is in its control groups.
        grouped: bool,
    },
    /// A worker could not be started.
    SpawnFailed {
        /// The host's number for it.
        id: u64,
        /// The layer that failed, if it was one.
        layer: Option<String>,
        /// Why.
        message: String,
        /// What the kernel said, if it was the kernel (errno(3)); 0 if not.
        errno: i32,
    },
    /// A worker has ended.
    Exited {
        /// The host's number for it.
        id: u64,
        /// How.
        status: ExitStatus,
        /// What it used.
        usage: Usage,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

/// What a process used, as the kernel counted it (getrusage(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time in user mode, in microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, in microseconds.
    pub system_us: u64,
    /// The most resident memory, in bytes.
    pub peak_resident: u64,
}

const MAX_PATH: usize = 4096;
const MAX_TEXT: usize = 4096;
/// The most libraries that a host may have mapped.
const MAX_LIBRARIES: usize = 512;

fn path(to: &mut Writer<'_>, path: &Path) -> Result<(), EncodeError> {
    to.bytes("path", path.as_os_str().as_bytes(), MAX_PATH)
        .map(drop)
}

fn read_path(from: &mut Reader<'_>) -> Result<PathBuf, DecodeError> {
    from.bytes("path", MAX_PATH)
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
}

fn text(to: &mut Writer<'_>, field: &'static str, value: &str) -> Result<(), EncodeError> {
    to.bytes(field, value.as_bytes(), MAX_TEXT).map(drop)
}

impl Message for Configure {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.list("directories", &self.directories, 64, |to, d| {
            to.bytes("path", &d.path, MAX_PATH)?
                .u64(d.device)
                .u64(d.inode)
                .flag(d.writable);
            Ok(())
        })?;
        to.list("layers", &self.accept_missing, 64, |to, name| {
            text(to, "layer", name)
        })?;
        to.list("layers left out", &self.off, 64, |to, name| {
            text(to, "layer", name)
        })?;
        to.flag(self.red_team);
        to.option(self.libraries.as_ref(), |to, libraries| {
            to.list("libraries", &libraries.files, MAX_LIBRARIES, |to, file| {
                path(to, file)
            })?;
            to.option(libraries.loader.as_ref(), |to, (link, target)| {
                path(to, link)?;
                path(to, target)
            })?;
            Ok(())
        })?;
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            directories: from.list("directories", 64, |from| {
                Ok(Directory {
                    path: from.bytes("path", MAX_PATH)?.to_vec(),
                    device: from.u64("device")?,
                    inode: from.u64("inode")?,
                    writable: from.flag("writable")?,
                })
            })?,
            accept_missing: from.list("layers", 64, |from| {
                from.text("layer", MAX_TEXT).map(str::to_owned)
            })?,
            off: from.list("layers left out", 64, |from| {
                from.text("layer", MAX_TEXT).map(str::to_owned)
            })?,
            red_team: from.flag("red team")?,
            libraries: from.option("libraries", |from| {
                Ok(Libraries {
                    files: from.list("libraries", MAX_LIBRARIES, read_path)?,
                    loader: from
                        .option("loader", |from| Ok((read_path(from)?, read_path(from)?)))?,
                })
            })?,
        })
    }
}

impl Configure {
    /// Whether the operator accepts that `layer` is missing.
    pub fn accepts(&self, layer: Layer) -> bool {
        self.accept_missing.iter().any(|name| name == layer.name())
    }
}

impl Message for Spawn {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.u64(self.id)
            .u32(self.user)
            .u64(self.data_limit)
            .u64(self.address_space)
            .u64(self.descriptor_limit)
            .u64(self.file_limit);
        to.option(self.cpu_seconds.as_ref(), |to, seconds| {
            to.u64(*seconds);
            Ok(())
        })?;
        to.u64(self.stack).flag(self.compiler).flag(self.into);
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: from.u64("id")?,
            user: from.u32("user")?,
            data_limit: from.u64("data limit")?,
            address_space: from.u64("address space")?,
            descriptor_limit: from.u64("descriptor limit")?,
            file_limit: from.u64("file limit")?,
            cpu_seconds: from.option("cpu seconds", |from| from.u64("cpu seconds"))?,
            stack: from.u64("stack")?,
            compiler: from.flag("compiler")?,
            into: from.flag("into")?,
        })
    }
}

impl Message for Report {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        let reason = |to: &mut Writer<'_>, layer: &Option<String>, message: &str, errno: i32| {
            to.option(layer.as_ref(), |to, layer| text(to, "layer", layer))?;
            text(to, "message", message)?;
            to.u32(errno as u32);
            Ok(())
        };
        match self {
            Self::Configured { missing } => to
                .u8(0)
                .list("missing", missing, 64, |to, name| text(to, "layer", name))
                .map(drop),
            Self::Failed {
                layer,
                message,
                errno,
            } => reason(to.u8(1), layer, message, *errno),
            Self::Spawned { id, grouped } => {
                to.u8(2).u64(*id).flag(*grouped);
                Ok(())
            }
            Self::SpawnFailed {
                id,
                layer,
                message,
                errno,
            } => reason(to.u8(3).u64(*id), layer, message, *errno),
            Self::Exited { id, status, usage } => {
                to.u8(4).u64(*id);
                match status {
                    ExitStatus::Exited(code) => to.u8(0).u32(*code as u32),
                    ExitStatus::Signaled(signal) => to.u8(1).u32(*signal as u32),
                };
                to.u64(usage.user_us)
                    .u64(usage.system_us)
                    .u64(usage.peak_resident);
                Ok(())
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let layer = |from: &mut Reader<'_>| {
            from.option("layer", |from| {
                from.text("layer", MAX_TEXT).map(str::to_owned)
            })
        };
        let message = |from: &mut Reader<'_>| from.text("message", MAX_TEXT).map(str::to_owned);
        Ok(match from.u8("report")? {
            0 => Self::Configured {
                missing: from.list("missing", 64, |from| {
                    from.text("layer", MAX_TEXT).map(str::to_owned)
                })?,
            },
            1 => Self::Failed {
                layer: layer(from)?,
                message: message(from)?,
                errno: from.u32("errno")? as i32,
            },
            2 => Self::Spawned {
                id: from.u64("id")?,
                grouped: from.flag("grouped")?,
            },
            3 => Self::SpawnFailed {
                id: from.u64("id")?,
                layer: layer(from)?,
                message: message(from)?,
                errno: from.u32("errno")? as i32,
            },
            4 => Self::Exited {
                id: from.u64("id")?,
                status: match from.u8("status")? {
                    0 => ExitStatus::Exited(from.u32("code")? as i32),
                    1 => ExitStatus::Signaled(from.u32("signal")? as i32),
                    other => {
                        return Err(DecodeError::Tag {
                            field: "status",
                            value: other.into(),
                        });
                    }
                },
                usage: Usage {
                    user_us: from.u64("user time")?,
                    system_us: from.u64("system time")?,
                    peak_resident: from.u64("peak resident")?,
                },
            },
            other => {
                return Err(DecodeError::Tag {
                    field: "report",
                    value: other.into(),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_comes_back_as_it_was() {
        let reports = [
            Report::Configured {
                missing: vec!["mdwe".into()],
            },
            Report::Failed {
                layer: Some("seccomp".into()),
                message: "x".into(),
                errno: 0,
            },
            Report::Spawned {
                id: 7,
                grouped: true,
            },
            Report::SpawnFailed {
                id: 8,
                layer: None,
                message: "y".into(),
                errno: libc::EAGAIN,
            },
            Report::Exited {
                id: 9,
                status: ExitStatus::Signaled(31),
                usage: Usage {
                    user_us: 1,
                    system_us: 2,
                    peak_resident: 3,
                },
            },
        ];
        let mut bytes = Vec::new();
        for report in reports {
            report.to_bytes(&mut bytes).unwrap();
            assert_eq!(Report::from_bytes(&bytes), Ok(report));
        }
    }
}
