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

/// The launcher for a program, and the directories for its worker.
pub(super) fn grants(
    host: &Inner,
    directories: &[Directory],
    as_user: Option<u32>,
) -> Result<(Arc<Launcher>, Vec<OwnedFd>), RunError> {
    if directories.is_empty() && as_user.is_none() {
        return Ok((host.launchers.next()?, Vec::new()));
    }
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
        directories: if root { Vec::new() } else { grants.clone() },
        ..host.launchers.launcher_options()?
    };
    let launcher = Arc::new(host.launchers.start(options)?);
    let opened = if root && launcher.off().has(Layer::MountNamespace) {
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
            .collect::<Result<_, _>>()?
    } else if root {
        lazaret_wall::grants::open_as_root(&grants, launcher.first_host_uid(), as_user.is_some())
            .map_err(|error| RunError::Directory {
                path: error.path.clone(),
                reason: error.to_string(),
            })?
    } else {
        launcher
            .directories()
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| RunError::Directory {
                path: PathBuf::new(),
                reason: error.to_string(),
            })?
    };
    Ok((launcher, opened))
}
