//! Who holds a data directory.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::DataDirError;
use lazaret_wall::process::is_exiting;

/// Takes the lock of a directory. A host that was just starting another process when
/// it ended may still hold it for a moment: until that one is another program, it has
/// a copy of the descriptor. So is one that this process has just let go of.
pub(super) fn hold(lock: &File, path: &Path) -> Result<(), Errno> {
    let begin = Instant::now();
    loop {
        let locked = rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive);
        let patience = match holder(path) {
            Some(pid) if pid == std::process::id() => Duration::from_millis(100),
            Some(pid) if is_exiting(pid.cast_signed()) => Duration::from_secs(2),
            _ => Duration::ZERO,
        };
        match locked {
            Err(Errno::WOULDBLOCK) if begin.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(2));
            }
            locked => return locked,
        }
    }
}

/// Who has said last that it holds a directory.
fn holder(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path.join("lock")).ok()?;
    text.trim().parse().ok()
}

/// The error for a directory that somebody else holds.
pub(super) fn in_use(path: &Path) -> DataDirError {
    DataDirError::InUse {
        path: path.to_owned(),
        holder: holder(path)
            .map(|pid| format!(" (pid {pid})"))
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;

    #[test]
    fn a_lock_that_outlives_its_holder_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        drop(DataDir::open(&path).unwrap());
        let lock_path = path.join("lock");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        // A process that the ended one has started has a copy of the descriptor.
        let copy = File::open(&lock_path).unwrap();
        rustix::fs::flock(&copy, FlockOperation::LockExclusive).unwrap();
        fs::write(&lock_path, format!("{}\n", child.id())).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                drop(copy);
            });
            drop(DataDir::open(&path).unwrap());
        });
        // Of one that lives it isn't.
        let held = File::open(&lock_path).unwrap();
        rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
        fs::write(&lock_path, "1\n").unwrap();
        let begin = Instant::now();
        let error = DataDir::open(&path).unwrap_err();
        assert!(error.to_string().contains("(pid 1)"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
}
