//! Which workers live, for others than their host: a file each in `workers` of
//! the data directory, from soon after a worker was verified until it ends.
//!
//! `lazaret audit --live` reads them and looks at the workers again. What lies
//! there is this user's to write, so it is no proof against that user.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lazaret_wall::{Posture, Receipt};
use serde::{Deserialize, Serialize};

use crate::aside::{Aside, is_aside};
use crate::incident::Subject;
use lazaret_wall::process::{is_exiting, start_time};

/// The version of the record's members.
pub const SCHEMA: u32 = 1;

/// Its directory in a data directory.
const DIRECTORY: &str = "workers";
/// The largest record that is read: one that is larger is none of ours.
const LARGEST: u64 = 4 << 20;

/// A worker that lives, or lived when this was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveWorker {
    /// The version of this record: [`SCHEMA`].
    pub schema: u32,
    /// Its number on the host.
    pub pid: i32,
    /// When its process was started, in clock ticks since the machine was.
    pub started: u64,
    /// The host's process.
    pub host_pid: u32,
    /// Whose worker it is.
    #[serde(flatten)]
    pub subject: Subject,
    /// Whether it may open files below directories that it was granted.
    pub may_open: bool,
    /// What was verified when it was locked ([`Receipt`]).
    pub receipt: serde_json::Value,
    /// What of it must stay so.
    pub posture: Posture,
}

/// How a worker looks now, beside its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "detail")]
#[non_exhaustive]
pub enum Standing {
    /// As it was verified.
    Same,
    /// Otherwise.
    Different(Vec<String>),
    /// It has ended.
    Ended,
    /// This user may not look at it, or the kernel refuses.
    Unseen(String),
}

impl LiveWorker {
    /// Of one that lives; nothing if it has just ended.
    pub(crate) fn new(
        pid: i32,
        subject: Subject,
        receipt: &Receipt,
        posture: Posture,
        may_open: bool,
    ) -> Option<Self> {
        Some(Self {
            schema: SCHEMA,
            pid,
            started: start_time(pid)?,
            host_pid: std::process::id(),
            subject,
            may_open,
            receipt: serde_json::to_value(receipt).ok()?,
            posture,
        })
    }

    /// Looks at it again.
    pub fn look(&self) -> Standing {
        let here = || start_time(self.pid) == Some(self.started) && !is_exiting(self.pid);
        if !here() {
            return Standing::Ended;
        }
        let looked = Posture::look(self.pid);
        // What was seen is of this process only if it is there still.
        match looked {
            _ if !here() => Standing::Ended,
            Err(why) => Standing::Unseen(why),
            Ok(now) => match self.posture.differences(&now, self.may_open) {
                differences if differences.is_empty() => Standing::Same,
                differences => Standing::Different(differences),
            },
        }
    }
}

/// Where a host says which of its workers live.
#[derive(Debug)]
pub(crate) struct Register(PathBuf);

impl Register {
    /// That of a data directory. What dead hosts left there is removed.
    pub(crate) fn open(data: &Path) -> Self {
        let register = Self(data.join(DIRECTORY));
        for entry in fs::read_dir(&register.0).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_aside(&path) || read(&path).is_ok_and(|worker| worker.is_stale()) {
                let _ = fs::remove_file(path);
            }
        }
        register
    }

    fn path(&self, pid: i32) -> PathBuf {
        self.0.join(format!("{pid}.json"))
    }

    /// Tells of a worker. It is gone with a power cut, as the worker is.
    pub(crate) fn enter(&self, worker: &LiveWorker) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let path = self.path(worker.pid);
        let mut aside = Aside::create(&path, 0o666)?;
        aside.file().write_all(&serde_json::to_vec(worker)?)?;
        aside.put(&path)
    }

    /// It has ended.
    pub(crate) fn leave(&self, pid: i32) {
        let _ = fs::remove_file(self.path(pid));
    }
}

impl LiveWorker {
    fn is_stale(&self) -> bool {
        start_time(self.pid) != Some(self.started)
    }
}

/// A record that can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveWorkerError {
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file makes no sense.
    #[error("{path}: {reason}: it is no record of a worker, or of a newer Lazaret")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn read(path: &Path) -> Result<LiveWorker, LiveWorkerError> {
    let system = |source| LiveWorkerError::System {
        path: path.to_owned(),
        source,
    };
    let corrupt = |reason: String| LiveWorkerError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let length = fs::metadata(path).map_err(system)?.len();
    if length > LARGEST {
        return Err(corrupt(format!("it has {length} bytes")));
    }
    let bytes = fs::read(path).map_err(system)?;
    let worker: LiveWorker =
        serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    match worker.schema {
        SCHEMA => Ok(worker),
        other => Err(corrupt(format!("schema {other}"))),
    }
}

/// The workers that hosts of a data directory tell of, by their numbers; for
/// records that can't be read, why.
///
/// # Errors
/// If the directory can't be listed; one that isn't there has none.
pub fn list(data: &Path) -> Result<Vec<Result<LiveWorker, LiveWorkerError>>, LiveWorkerError> {
    let directory = data.join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(LiveWorkerError::System {
                path: directory,
                source,
            });
        }
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !is_aside(path))
        .map(|path| read(&path))
        // It ended meanwhile.
        .filter(|read| {
            !matches!(read, Err(LiveWorkerError::System { source, .. })
                if source.kind() == io::ErrorKind::NotFound)
        })
        .collect();
    found.sort_by_key(|read| read.as_ref().map_or(i32::MAX, |worker| worker.pid));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(child: &std::process::Child) -> LiveWorker {
        let pid = child.id() as i32;
        let subject = Subject {
            tenant: Some("shop".into()),
            worker: "tenant".into(),
            module: None,
        };
        let receipt = Receipt::none(pid, 0);
        let posture = Posture::look(pid).unwrap();
        LiveWorker::new(pid, subject, &receipt, posture, false).unwrap()
    }

    #[test]
    fn a_worker_is_listed_while_it_lives_and_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        assert!(list(directory.path()).unwrap().is_empty());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let worker = of(&child);
        let register = Register::open(directory.path());
        register.enter(&worker).unwrap();
        let listed = list(directory.path()).unwrap();
        let [Ok(read)] = listed.as_slice() else {
            panic!("{listed:?}");
        };
        assert_eq!(*read, worker);
        assert_eq!(read.look(), Standing::Same);
        let mut other = worker.clone();
        other.posture.status.insert("Threads".into(), "7".into());
        assert!(matches!(other.look(), Standing::Different(differences) if differences.len() == 1));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(read.look(), Standing::Ended);
        // What a dead host left is swept; what isn't ours stays.
        fs::write(directory.path().join("workers/x.json"), b"{").unwrap();
        let _ = Register::open(directory.path());
        let listed = list(directory.path()).unwrap();
        assert!(
            matches!(listed.as_slice(), [Err(LiveWorkerError::Corrupt { .. })]),
            "{listed:?}"
        );
    }
}
