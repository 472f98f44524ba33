//! Directories that a program is granted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use lazaret_wall::Layer;
use lazaret_wall::launcher::{Grants, Launcher, LauncherOptions};
use rustix::fs::{Mode, OFlags};

use super::error::RunError;
use crate::host::Inner;
use crate::launchers::Begun;
use crate::worker::WorkerError;

/// A directory for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) host: PathBuf,
    pub(super) guest: String,
    pub(super) writable: bool,
}

/// A worker that could not open a directory was refused it for its user id: the
/// error says which that is, and what to do.
pub(super) fn refused(error: WorkerError, directories: &[Directory], uid: u32) -> RunError {
    let WorkerError::Setup(text) = &error else {
        return error.into();
    };
    match directories.iter().find(|directory| {
        text.contains(&format!(
            "the directory for {:?} can't be opened",
            directory.guest
        ))
    }) {
        Some(directory) => RunError::Directory {
            path: directory.host.clone(),
            reason: format!(
                "{text}; the worker runs as uid {uid} on the host: let that user read it (chmod, setfacl), or as root choose another (--as-user UID) or none"
            ),
        },
        None => error.into(),
    }
}

/// A launcher for a program that gets ready, if it isn't yet, and what it grants.
#[derive(Debug)]
pub(super) enum Granting {
    /// One of those that all have.
    Nothing,
    /// The program's own.
    Own {
        begun: Box<Begun>,
        grants: Vec<Grants>,
        /// Whether this process is root, and opens them itself.
        root: bool,
        /// Whether its workers are somebody whom the caller has chosen.
        as_user: bool,
    },
}

impl Granting {
    /// Has the launcher get ready.
    ///
    /// # Errors
    /// If the directories can't be granted, or there is no such launcher.
    pub(super) fn begin(
        host: &Inner,
        directories: &[Directory],
        as_user: Option<u32>,
    ) -> Result<Self, RunError> {
        if directories.is_empty() && as_user.is_none() {
            host.launchers.prepare();
            return Ok(Self::Nothing);
        }
        check(directories)?;
        let grants: Vec<Grants> = directories
            .iter()
            .map(|directory| Grants {
                path: directory.host.clone(),
                writable: directory.writable,
            })
            .collect();
        let root = rustix::process::geteuid().is_root();
        let as_user = as_user.or(host.options.worker_user);
        let options = LauncherOptions {
            as_user,
            directories: match root {
                true => Vec::new(),
                false => grants.clone(),
            },
            ..host.launchers.launcher_options()?
        };
        let begun = host.launchers.begin(options)?;
        Ok(Self::Own {
            begun: Box::new(begun),
            grants,
            root,
            as_user: as_user.is_some(),
        })
    }

    /// The launcher, ready, and the directories for its worker.
    pub(super) fn finish(self, host: &Inner) -> Result<(Arc<Launcher>, Vec<OwnedFd>), RunError> {
        match self {
            Self::Nothing => Ok((host.launchers.next()?, Vec::new())),
            Self::Own {
                begun,
                grants,
                root,
                as_user,
            } => {
                let launcher = Arc::new(host.launchers.finish(*begun)?);
                let opened = match root {
                    true => open_as_root(&launcher, &grants, as_user)?,
                    false => opened_by(&launcher)?,
                };
                Ok((launcher, opened))
            }
        }
    }
}

/// Whether directories are there and this process may read them.
fn check(directories: &[Directory]) -> Result<(), RunError> {
    for directory in directories {
        let fail = |reason: String| RunError::Directory {
            path: directory.host.clone(),
            reason,
        };
        match std::fs::metadata(&directory.host) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(fail(
                    "it is not a directory; grant the directory that contains it".into(),
                ));
            }
            Err(error) => return Err(fail(error.to_string())),
        }
        // With the effective ids, as the launcher will open it.
        let access = rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK;
        if let Err(errno) = rustix::fs::accessat(
            rustix::fs::CWD,
            &directory.host,
            access,
            rustix::fs::AtFlags::EACCESS,
        ) {
            let uid = rustix::process::geteuid().as_raw();
            return Err(fail(format!(
                "{}; this process is uid {uid}: let that user read it (chmod, setfacl)",
                io::Error::from(errno)
            )));
        }
    }
    Ok(())
}

/// The directories that an ordinary user's launcher has opened.
fn opened_by(launcher: &Launcher) -> Result<Vec<OwnedFd>, RunError> {
    let opened = launcher.directories().iter().map(OwnedFd::try_clone);
    opened
        .collect::<io::Result<_>>()
        .map_err(|error| RunError::Directory {
            path: PathBuf::new(),
            reason: error.to_string(),
        })
}

/// The directories as root opens them for a worker of this launcher.
fn open_as_root(
    launcher: &Launcher,
    grants: &[Grants],
    as_user: bool,
) -> Result<Vec<OwnedFd>, RunError> {
    if !launcher.off().has(Layer::MountNamespace) {
        return lazaret_wall::grants::open_as_root(grants, launcher.first_host_uid(), as_user)
            .map_err(|error| RunError::Directory {
                path: error.path.clone(),
                reason: error.to_string(),
            });
    }
    grants
        .iter()
        .map(|grant| {
            rustix::fs::open(
                &grant.path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|errno| RunError::Directory {
                path: grant.path.clone(),
                reason: io::Error::from(errno).to_string(),
            })
        })
        .collect()
}
