//! The empty root: a worker's `/` has nothing in it.

use super::proc;
use crate::layer::LayerError;

/// Makes the launcher's empty directory the root of this worker.
pub fn apply() -> Result<(), LayerError> {
    crate::launcher::enter_empty()
}

/// From outside: `/proc/PID/root` lists nothing.
pub fn verify(pid: i32) -> Result<String, String> {
    let mut entries = std::fs::read_dir(proc(pid, "root/"))
        .map_err(|error| format!("/proc/{pid}/root: {error}"))?;
    match entries.next() {
        None => Ok("empty".into()),
        Some(Ok(entry)) => Err(format!("the root has {:?}", entry.file_name())),
        Some(Err(error)) => Err(format!("/proc/{pid}/root: {error}")),
    }
}
